"""DCN-v2: explicit feature crosses of low rank beside deep layers.

Wang et al., "DCN V2: Improved Deep & Cross Network and Practical Lessons for Web-scale Learning to Rank Systems",
WWW 2021, arXiv 2008.13535, equations 1 and 4, parallel structure.
"""

import torch
from torch import Tensor, nn

from contracts.sections import Booster
from model.boosters import BoosterInput, Sizes
from model.layers import DeepLayers, logit_head


class LowRankCross(nn.Module):
    """x0 * (U V^T x + b) + x: each layer raises the degree of the crosses by one, with 2 * I * rank weights.

    Example::

        >>> LowRankCross(6, 2)(torch.zeros(3, 6), torch.zeros(3, 6)).shape
        torch.Size([3, 6])
    """

    def __init__(self, inputs: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Linear(inputs, rank, bias=False)
        self.up = nn.Linear(rank, inputs)
        nn.init.xavier_uniform_(self.down.weight)
        nn.init.xavier_uniform_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x0_BI: Tensor, x_BI: Tensor) -> Tensor:
        """[B, I] to [B, I]."""
        crossed_BI: Tensor = x0_BI * self.up(self.down(x_BI)) + x_BI
        return crossed_BI


class DCNv2(nn.Module):
    """Low-rank crosses and deep layers side by side over the flat input, then one logit."""

    def __init__(self, sizes: Sizes, settings: Booster) -> None:
        super().__init__()
        rank = min(settings.cross_rank, sizes.flat)
        self.crosses = nn.ModuleList(LowRankCross(sizes.flat, rank) for _ in range(settings.cross_layers))
        self.deep = DeepLayers(sizes.flat, settings.hidden)
        crossed = sizes.flat if settings.cross_layers else 0
        self.head = logit_head(crossed + self.deep.outputs)

    def forward(self, seen: BoosterInput) -> Tensor:
        """Logits [B]."""
        x0_BI = seen.flat()
        x_BI = x0_BI
        for cross in self.crosses:
            x_BI = cross(x0_BI, x_BI)
        deep_BH = self.deep(x0_BI)
        both = torch.cat((x_BI, deep_BH), dim=1) if len(self.crosses) else deep_BH
        logit_B: Tensor = self.head(both).squeeze(1)
        return logit_B
