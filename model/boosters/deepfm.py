"""DeepFM: a factorisation machine beside deep layers, on the same embeddings.

Guo et al., "DeepFM: A Factorization-Machine based Neural Network for CTR Prediction", IJCAI 2017, arXiv 1703.04247,
equations 1, 2 and 4; the second-order term by Rendle's identity (ICDM 2010), O(M * D).
"""

from torch import Tensor

from model.boosters import BoosterInput
from model.boosters.wdl import WideAndDeep
from model.layers import second_order


class DeepFM(WideAndDeep):
    """first order + second order + head(deep(x)): the first order is the wide term."""

    def forward(self, seen: BoosterInput, hidden: list[Tensor] | None = None) -> Tensor:
        """Logits [B]."""
        logit_B: Tensor = super().forward(seen, hidden) + second_order(seen.vectors().float())
        return logit_B
