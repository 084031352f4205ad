"""Elapsed-time sampling (ES-DFM, Yang et al., AAAI 2021): watch each impression a while, then weigh what is told.

After the elapsed time an impression is told as a positive or a negative; a click that comes later tells it again as a
positive. Two heads say p_dp, the chance that an impression is such a delayed positive, and p_rn, the chance that an
observed negative is a real one. Positives weigh 1 + p_dp, negatives (1 + p_dp) p_rn. The heads learn only from
rows whose label is final: clicked in time, clicked late, or never clicked (told once the wait is over).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from contracts.segments import Role
from model.delayed.seen import Seen

#: Where the heads' logits begin: few positives are late, most negatives are real.
START = (-3.0, 3.0)


def loss(logit_B: Tensor, rows: Seen, net: int) -> Tensor:
    """Weighted cross-entropy in nats, [B]; 0 where an impression is told as a negative for the second time.

    >>> from model.delayed.seen import seen
    >>> even = [[0.0, 0.0]] * 4
    >>> loss(torch.zeros(4), seen([1, 0, 1, 0], [0, 1, 2, 0], [0.1, 0.25, 0.5, 1.0], even), 0) / 0.6931472
    tensor([1.5000, 0.7500, 1.5000, 0.0000])
    """
    del net
    late_B, real_B = rows.head(0).detach().sigmoid(), rows.head(1).detach().sigmoid()
    weight_B = torch.where(rows.label_B > 0, 1 + late_B, (1 + late_B) * real_B)
    cost_B = F.binary_cross_entropy_with_logits(logit_B, rows.label_B, reduction="none")
    return torch.where(rows.ended, 0.0, weight_B * cost_B)


def head_loss(rows: Seen) -> Tensor:
    """Cross-entropy of both heads in nats, [B]; 0 where the label is not final.

    >>> from model.delayed.seen import seen
    >>> even = [[0.0, 0.0]] * 4
    >>> head_loss(seen([1, 0, 1, 0], [0, 1, 2, 0], [0.1, 0.25, 0.5, 1.0], even)) / 0.6931472
    tensor([1., 0., 2., 2.])
    """
    late_B, observed_negative = rows.has(Role.CORRECTION), ~rows.told_once
    of_late_B = F.binary_cross_entropy_with_logits(rows.head(0), late_B.to(rows.label_B), reduction="none")
    of_real_B = F.binary_cross_entropy_with_logits(rows.head(1), 1 - rows.label_B, reduction="none")
    return torch.where(rows.has(Role.PROVISIONAL), 0.0, of_late_B + torch.where(observed_negative, of_real_B, 0.0))
