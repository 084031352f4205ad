"""FiBiNET: which fields matter (SENet), and what pairs of them say (bilinear), then deep layers.

Huang et al., "FiBiNET: Combining Feature Importance and Bilinear Feature Interaction for Click-Through Rate
Prediction", RecSys 2019, arXiv 1905.09433, equations 2 to 8.
"""

from itertools import combinations

import torch
from torch import Tensor, nn

from contracts.nets import Booster
from model.boosters import BoosterInput, Sizes, hidden_of
from model.layers import DeepLayers, linear, logit_head


class Excite(nn.Module):
    """Squeeze each field to its mean, excite through two layers, and weigh the fields by what comes out."""

    def __init__(self, fields: int, ratio: int) -> None:
        super().__init__()
        narrow = max(1, fields // ratio)
        self.squeeze, self.excite = linear(fields, narrow), linear(narrow, fields)

    def forward(self, vectors_BMD: Tensor) -> Tensor:
        """[B, M, D] to [B, M, D]."""
        weight_BM = self.excite(self.squeeze(vectors_BMD.mean(2)).relu()).relu()
        weighed_BMD: Tensor = vectors_BMD * weight_BM.unsqueeze(2)
        return weighed_BMD


class Bilinear(nn.Module):
    """(v_i W) * v_j for each pair i < j: one matrix for all, one for each i, or one for each pair."""

    def __init__(self, fields: int, width: int, kind: str) -> None:
        super().__init__()
        pairs = list(combinations(range(fields), 2))
        self._left, self._right = [i for i, _ in pairs], [j for _, j in pairs]
        self._kind, count = kind, {"all": 1, "each": fields, "interaction": len(pairs)}[kind]
        self.matrix_KDD = nn.Parameter(torch.empty(count, width, width))
        for matrix in self.matrix_KDD:
            nn.init.xavier_uniform_(matrix)
        self.outputs = len(pairs) * width

    def forward(self, vectors_BMD: Tensor) -> Tensor:
        """[B, M, D] to [B, pairs * D]."""
        if self._kind == "interaction":
            left_BPD = torch.einsum("bpd,pde->bpe", vectors_BMD[:, self._left], self.matrix_KDD)
        elif self._kind == "each":
            left_BPD = torch.einsum("bmd,mde->bme", vectors_BMD, self.matrix_KDD)[:, self._left]
        else:
            left_BPD = (vectors_BMD @ self.matrix_KDD[0])[:, self._left]
        return (left_BPD * vectors_BMD[:, self._right]).flatten(1)


class FiBiNET(nn.Module):
    """Deep layers over the bilinear pairs of the fields, those of the weighed fields, and the numbers."""

    def __init__(self, sizes: Sizes, settings: Booster) -> None:
        super().__init__()
        self.importance = Excite(sizes.vectors, settings.squeeze_ratio)
        self.plain = Bilinear(sizes.vectors, sizes.width, settings.bilinear)
        self.weighed = Bilinear(sizes.vectors, sizes.width, settings.bilinear)
        self.first = nn.Linear(sizes.flat, 1, bias=False)
        nn.init.zeros_(self.first.weight)
        inputs = self.plain.outputs + self.weighed.outputs + sizes.numbers
        self.deep = DeepLayers(inputs, settings.hidden, hidden_of(settings))
        self.head = logit_head(self.deep.outputs)

    def forward(self, seen: BoosterInput, hidden: list[Tensor] | None = None) -> Tensor:
        """Logits [B]."""
        vectors_BMD = seen.vectors()
        pairs = (self.plain(vectors_BMD), self.weighed(self.importance(vectors_BMD)), seen.numbers())
        deep_B1 = self.head(self.deep(torch.cat(pairs, dim=1), hidden))
        logit_B: Tensor = (deep_B1 + self.first(seen.flat()).float()).squeeze(1)
        return logit_B
