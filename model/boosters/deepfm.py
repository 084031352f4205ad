"""DeepFM: a factorisation machine beside deep layers, on the same embeddings.

Guo et al., "DeepFM: A Factorization-Machine based Neural Network for CTR Prediction", IJCAI 2017, arXiv 1703.04247,
equations 1, 2 and 4; the second-order term by Rendle's identity (ICDM 2010), O(M * D).
"""

from torch import Tensor

from model.boosters import BoosterInput
from model.boosters.wdl import WideAndDeep


def second_order(vectors_BMD: Tensor) -> Tensor:
    """Sum of the inner products of all pairs: [B, M, D] to [B].

    >>> import torch
    >>> second_order(torch.tensor([[[1.0, 0.0], [2.0, 3.0], [0.0, 1.0]]])).tolist()  # 2 + 0 + 3
    [5.0]
    """
    squared_BD = vectors_BMD.sum(1).square() - vectors_BMD.square().sum(1)
    pairs_B: Tensor = 0.5 * squared_BD.sum(1)
    return pairs_B


class DeepFM(WideAndDeep):
    """first order + second order + head(deep(x)): the first order is the wide term."""

    def forward(self, seen: BoosterInput) -> Tensor:
        """Logits [B]."""
        logit_B: Tensor = super().forward(seen) + second_order(seen.vectors().float())
        return logit_B
