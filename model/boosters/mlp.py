"""A plain multi-layer perceptron over everything the booster sees."""

from torch import Tensor, nn

from contracts.nets import Booster
from model.boosters import BoosterInput, Sizes, hidden_of
from model.layers import DeepLayers, logit_head


class MLP(nn.Module):
    """Deep layers over the flat input, then one logit.

    Example::

        >>> net = MLP(Sizes(ids=2, sequences=1, dense=3, width=4), Booster(hidden=(8,)))
        >>> import torch
        >>> seen = BoosterInput(torch.zeros(5, 2, 4), torch.zeros(5, 1, 4), torch.zeros(5, 3), ())
        >>> net(seen).shape
        torch.Size([5])
    """

    def __init__(self, sizes: Sizes, settings: Booster) -> None:
        super().__init__()
        self.deep = DeepLayers(sizes.flat, settings.hidden, hidden_of(settings))
        self.head = logit_head(self.deep.outputs)

    def forward(self, seen: BoosterInput, hidden: list[Tensor] | None = None) -> Tensor:
        """Logits [B]."""
        logit_B: Tensor = self.head(self.deep(seen.flat(), hidden)).squeeze(1)
        return logit_B
