"""FinalMLP: two plain streams, each with a gate of its own on what it sees, fused bilinearly.

Mao et al., "FinalMLP: An Enhanced Two-Stream MLP Model for CTR Prediction", AAAI 2023, arXiv 2304.00902, equations 2 to
11. Both gates look at the whole input; the paper may give each a chosen part of it.
"""

import torch
from torch import Tensor, nn

from contracts.nets import Booster
from model.boosters import BoosterInput, Sizes, hidden_of
from model.layers import DeepLayers, logit_head


class Gate(nn.Module):
    """2 * sigmoid of a layer of the input, on the input: 1 everywhere would leave it as it is."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.weigh = nn.Linear(inputs, inputs)
        nn.init.xavier_uniform_(self.weigh.weight, 0.1)
        nn.init.zeros_(self.weigh.bias)

    def forward(self, x_BI: Tensor) -> Tensor:
        """[B, I] to [B, I]."""
        gated_BI: Tensor = 2 * self.weigh(x_BI).sigmoid() * x_BI
        return gated_BI


class Fusion(nn.Module):
    """w2 . o2 + sum over heads of o1_h W_h o2_h: what is beside the first stream's own term."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.second = nn.Linear(width, 1, bias=False)
        nn.init.zeros_(self.second.weight)
        self.pair_KDD = nn.Parameter(torch.empty(heads, width // heads, width // heads))
        for matrix in self.pair_KDD:
            nn.init.xavier_uniform_(matrix, 0.1)

    def forward(self, one_BH: Tensor, two_BH: Tensor) -> Tensor:
        """Two [B, H] to [B]."""
        rows, heads = one_BH.shape[0], self.pair_KDD.shape[0]
        one_BKD, two_BKD = one_BH.view(rows, heads, -1), two_BH.view(rows, heads, -1)
        pairs_B = torch.einsum("bkd,kde,bke->b", one_BKD, self.pair_KDD, two_BKD)
        fused_B: Tensor = self.second(two_BH).squeeze(1).float() + pairs_B.float()
        return fused_B


class FinalMLP(nn.Module):
    """b + w1 . o1 + fusion(o1, o2): two gated streams of the same widths; `attention_heads` divide the last of them."""

    def __init__(self, sizes: Sizes, settings: Booster) -> None:
        super().__init__()
        width = settings.hidden[-1] if settings.hidden else sizes.flat
        self.gates = nn.ModuleList(Gate(sizes.flat) for _ in range(2))
        self.streams = nn.ModuleList(DeepLayers(sizes.flat, settings.hidden, hidden_of(settings)) for _ in range(2))
        self.fusion = Fusion(width, settings.attention_heads)
        self.head = logit_head(width)

    def forward(self, seen: BoosterInput, hidden: list[Tensor] | None = None) -> Tensor:
        """Logits [B]; hidden layers: the first stream's, then the second's."""
        x_BI = seen.flat()
        one_BH, two_BH = (stream(gate(x_BI), hidden) for gate, stream in zip(self.gates, self.streams, strict=True))
        logit_B: Tensor = self.head(one_BH).squeeze(1) + self.fusion(one_BH, two_BH)
        return logit_B
