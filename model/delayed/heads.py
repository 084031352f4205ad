"""The delay heads: what an impression says of its click's delay, learnt beside the click itself."""

import torch
from torch import Tensor, nn

from model.layers import linear

_HIDDEN = 16


class DelayHeads(nn.Module):
    """One hidden layer on the light net's inputs, then K outputs; no gradient goes back to what it reads.

    Args:
        inputs: embeddings and dense features of the light net together.
        start: where the outputs begin, K numbers.

    Example::

        >>> heads = DelayHeads(8, (-3.0, 3.0))
        >>> heads(torch.zeros(2, 6), torch.zeros(2, 2)).tolist()
        [[-3.0, 3.0], [-3.0, 3.0]]
    """

    def __init__(self, inputs: int, start: tuple[float, ...]) -> None:
        super().__init__()
        self.hidden = linear(inputs, _HIDDEN)
        self.out = nn.Linear(_HIDDEN, len(start))
        nn.init.zeros_(self.out.weight)
        self.out.bias.data = torch.tensor(start)

    def forward(self, embedding_BX: Tensor, dense_BN: Tensor) -> Tensor:
        """Embeddings [B, F * D] and dense [B, N] to outputs [B, K], float32."""
        x_BI = torch.cat((embedding_BX, dense_BN), dim=1).detach().float()
        out_BK: Tensor = self.out(self.hidden(x_BI).relu())
        return out_BK
