"""Fake negative weighting (Ktena et al., RecSys 2019, arXiv 1907.06558): importance weights undo the fake negatives.

Each impression is told at once as a negative, and again as a positive when its click comes: in the stream positives
have the share p / (1 + p). Positives weigh 1 + p and negatives (1 - p)(1 + p), p being what the net itself says:
the expected gradient is then (1 + p)(1 - p)(p - p*), zero only at the true p*.
"""

import torch.nn.functional as F
from torch import Tensor

from model.delayed.seen import Seen


def loss(logit_B: Tensor, rows: Seen, net: int) -> Tensor:
    """Weighted cross-entropy in nats, [B]; a positive that was never told as a negative counts as both.

    >>> import torch
    >>> from model.delayed.seen import seen
    >>> loss(torch.zeros(3), seen([0, 1, 1], [1, 2, 0], [0.0, 0.5, 0.0]), 0) / torch.log(torch.tensor(2.0))
    tensor([0.7500, 1.5000, 2.2500])
    """
    del net
    p_B = logit_B.detach().sigmoid()
    positive_B = (1 + p_B) * F.softplus(-logit_B)
    negative_B = (1 - p_B) * (1 + p_B) * F.softplus(logit_B)
    return rows.label_B * positive_B + (1 - rows.label_B + rows.told_once.to(rows.label_B)) * negative_B
