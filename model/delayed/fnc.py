"""Fake negative calibration (Ktena et al., RecSys 2019, arXiv 1907.06558): learn the biased stream, mend when serving.

Each impression is told at once as a negative, and again as a positive when its click comes. A net that learns this
stream as it is learns b = p / (1 + p), so the odds b / (1 - b) = exp(logit) are the click probability, at most 1
(`contracts.weights.Link` "odds").
"""

import torch.nn.functional as F
from torch import Tensor

from model.delayed.seen import Seen


def loss(logit_B: Tensor, rows: Seen, net: int) -> Tensor:
    """Cross-entropy in nats, [B]; a positive that was never told as a negative counts as both.

    >>> import torch
    >>> from model.delayed.seen import seen
    >>> loss(torch.zeros(3), seen([0, 1, 1], [1, 2, 0], [0.0, 0.5, 0.0]), 0)
    tensor([0.6931, 0.6931, 1.3863])
    """
    del net
    as_told_B = F.binary_cross_entropy_with_logits(logit_B, rows.label_B, reduction="none")
    return as_told_B + rows.told_once * F.softplus(logit_B)
