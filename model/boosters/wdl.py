"""Wide & Deep: a linear term beside deep layers.

Cheng et al., "Wide & Deep Learning for Recommender Systems", DLRS 2016, arXiv 1606.07792. A booster sees ids as
embeddings, so the wide term is linear in those: the first-order weight of an id is w_field . embedding[id].
"""

from torch import Tensor, nn

from contracts.nets import Booster
from model.boosters import BoosterInput, Sizes, hidden_of
from model.layers import DeepLayers, logit_head


class WideAndDeep(nn.Module):
    """wide(x) + head(deep(x)) over the flat input."""

    def __init__(self, sizes: Sizes, settings: Booster) -> None:
        super().__init__()
        self.wide = nn.Linear(sizes.flat, 1, bias=False)
        nn.init.zeros_(self.wide.weight)
        self.deep = DeepLayers(sizes.flat, settings.hidden, hidden_of(settings))
        self.head = logit_head(self.deep.outputs)

    def forward(self, seen: BoosterInput, hidden: list[Tensor] | None = None) -> Tensor:
        """Logits [B]."""
        x_BI = seen.flat()
        logit_B: Tensor = (self.head(self.deep(x_BI, hidden)) + self.wide(x_BI).float()).squeeze(1)
        return logit_B
