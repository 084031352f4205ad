"""DCN-v2: explicit feature crosses beside or below deep layers.

Wang et al., "DCN V2: Improved Deep & Cross Network and Practical Lessons for Web-scale Learning to Rank Systems",
WWW 2021, arXiv 2008.13535: equation 1 (whole matrices), 2 and 3 (a mixture of low-rank experts), both structures.
"""

import torch
from torch import Tensor, nn

from contracts.nets import Booster
from model.boosters import BoosterInput, Sizes, hidden_of
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


class WholeCross(nn.Module):
    """x0 * (W x + b) + x, with I * I weights."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.matrix = nn.Linear(inputs, inputs)
        nn.init.xavier_uniform_(self.matrix.weight)
        nn.init.zeros_(self.matrix.bias)

    def forward(self, x0_BI: Tensor, x_BI: Tensor) -> Tensor:
        """[B, I] to [B, I]."""
        crossed_BI: Tensor = x0_BI * self.matrix(x_BI) + x_BI
        return crossed_BI


class MixedCross(nn.Module):
    """sum over K experts of g_k(x) * x0 * (U_k tanh(C_k tanh(V_k^T x)) + b), plus x; g is a softmax of x."""

    def __init__(self, inputs: int, rank: int, experts: int) -> None:
        super().__init__()
        self.gate = nn.Linear(inputs, experts, bias=False)
        self.down = nn.Linear(inputs, experts * rank, bias=False)
        self.core_KRR = nn.Parameter(torch.empty(experts, rank, rank))
        self.up_KRI = nn.Parameter(torch.empty(experts, rank, inputs))
        self.bias_I = nn.Parameter(torch.zeros(inputs))
        nn.init.xavier_uniform_(self.down.weight)
        for matrices in (self.core_KRR, self.up_KRI):
            for matrix in matrices:
                nn.init.xavier_uniform_(matrix)

    def forward(self, x0_BI: Tensor, x_BI: Tensor) -> Tensor:
        """[B, I] to [B, I]."""
        experts, rank, _ = self.core_KRR.shape
        low_BKR = self.down(x_BI).view(-1, experts, rank).tanh()
        low_BKR = torch.einsum("bkr,krs->bks", low_BKR, self.core_KRR).tanh()
        up_BKI = torch.einsum("bkr,kri->bki", low_BKR, self.up_KRI) + self.bias_I
        gate_BK1 = self.gate(x_BI).softmax(1).unsqueeze(2)
        crossed_BI: Tensor = x0_BI * (gate_BK1 * up_BKI).sum(1) + x_BI
        return crossed_BI


class DCNv2(nn.Module):
    """Crosses and deep layers over the flat input, side by side or one after the other, then one logit."""

    def __init__(self, sizes: Sizes, settings: Booster) -> None:
        super().__init__()
        self.stacked = settings.cross_stacked
        self.crosses = nn.ModuleList(_cross(sizes.flat, settings) for _ in range(settings.cross_layers))
        self.deep = DeepLayers(sizes.flat, settings.hidden, hidden_of(settings))
        beside = len(self.crosses) and not self.stacked
        self.head = logit_head(self.deep.outputs + (sizes.flat if beside else 0))

    def forward(self, seen: BoosterInput, hidden: list[Tensor] | None = None) -> Tensor:
        """Logits [B]."""
        x0_BI = seen.flat()
        x_BI = x0_BI
        for cross in self.crosses:
            x_BI = cross(x0_BI, x_BI)
        if self.stacked or not len(self.crosses):
            last_BH = self.deep(x_BI, hidden)
        else:
            last_BH = torch.cat((x_BI, self.deep(x0_BI, hidden)), dim=1)
        logit_B: Tensor = self.head(last_BH).squeeze(1)
        return logit_B


def _cross(inputs: int, settings: Booster) -> nn.Module:
    if not settings.cross_rank:
        return WholeCross(inputs)
    rank = min(settings.cross_rank, inputs)
    if settings.cross_experts > 1:
        return MixedCross(inputs, rank, settings.cross_experts)
    return LowRankCross(inputs, rank)
