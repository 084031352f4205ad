"""The net that serves: a first-order (wide) term beside a small MLP, exactly as `contracts.weights` publishes it."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from model.layers import linear, logit_head


class LightNet(nn.Module):
    """logit = bias + sum of wide[ids] + wide_dense . dense + mlp(concat(embedding[ids], dense)).

    Args:
        ids: F, id features that the light net sees.
        dense: N, dense features that it sees.
        width: D of an embedding.
        hidden: widths of the MLP's hidden layers.
        wide: whether there is a first-order term.
        prior_logit: where the bias starts: a new net predicts the app's prior.

    Example::

        >>> net = LightNet(2, 1, width=4, hidden=(8,), wide=True, prior_logit=0.0)
        >>> net(torch.zeros(3, 8), torch.zeros(3, 2), torch.zeros(3, 1)).shape
        torch.Size([3])
    """

    def __init__(
        self, ids: int, dense: int, *, width: int, hidden: tuple[int, ...], wide: bool, prior_logit: float
    ) -> None:
        super().__init__()
        widths = (ids * width + dense, *hidden)
        layers = [linear(a, b) for a, b in pairwise(widths)]
        self.mlp = nn.ModuleList([*layers, logit_head(widths[-1])])
        self.wide_dense = nn.Parameter(torch.zeros(dense)) if wide else None
        self.bias = nn.Parameter(torch.full((1,), prior_logit))

    def forward(self, embedding_BX: Tensor, wide_BF: Tensor | None, dense_BN: Tensor) -> Tensor:
        """Embeddings [B, F * D], first-order weights [B, F] (None without wide), dense [B, N] to logits [B]."""
        x_BI = torch.cat((embedding_BX, dense_BN), dim=1) if dense_BN.shape[1] else embedding_BX
        for layer in self.mlp[:-1]:
            x_BI = layer(x_BI).relu()
        logit_B: Tensor = self.mlp[-1](x_BI).squeeze(1) + self.bias
        if wide_BF is not None:
            logit_B = logit_B + wide_BF.sum(1)
        if self.wide_dense is not None and dense_BN.shape[1]:
            logit_B = logit_B + dense_BN @ self.wide_dense
        return logit_B
