"""The delayed feedback model (DFM, Chapelle, KDD 2014): click chance p and delay rate lambda learnt together.

A click comes with chance p after an exponential delay of rate lambda (one head a net, softplus). Of an impression

    with a click after d    - log p - log lambda + lambda d
    without one after e     - log S(e),    S(e) = 1 - p + p exp(-lambda e)

Here an impression is told after the elapsed time c, and once more when its click comes or its wait is over. What is
told the second time costs the conditional likelihood given that nothing came until c, that is plus log S(c): the
rows of one impression add up to its likelihood above, and nothing counts twice. Times are in waits (`labels.wait_s`).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from contracts.segments import Role
from model.delayed.seen import Seen

#: Where the heads' outputs begin: lambda 3, so that 95 % of the clicks come within the wait.
START = (2.949, 2.949)
_SLOWEST = 1e-6  # waits^-1: keeps log lambda finite


def loss(logit_B: Tensor, rows: Seen, net: int) -> Tensor:
    """Negative log-likelihood in nats, [B].

    >>> from model.delayed.seen import seen
    >>> heads = [[0.5413, 0.0]] * 4  # lambda 1
    >>> loss(torch.zeros(4), seen([1, 0, 1, 0], [0, 1, 2, 0], [0.1, 0.25, 0.5, 1.0], heads), 0)
    tensor([0.7932, 0.1172, 1.0759, 0.2627])
    """
    rate_B = F.softplus(rows.head(net)).clamp_min(_SLOWEST)
    clicked_B = F.softplus(-logit_B) - rate_B.log() + rate_B * rows.elapsed_B
    silent_B = _log_silent(logit_B, rate_B, rows.elapsed_B)
    first_B = _log_silent(logit_B, rate_B, torch.full_like(rate_B, rows.observed))
    told_again = rows.has(Role.CORRECTION) | rows.ended
    return torch.where(rows.label_B > 0, clicked_B, -silent_B) + torch.where(told_again, first_B, 0.0)


def _log_silent(logit_B: Tensor, rate_B: Tensor, elapsed_B: Tensor) -> Tensor:
    """Log of S(e), without overflow."""
    return torch.logaddexp(-F.softplus(logit_B), -F.softplus(-logit_B) - rate_B * elapsed_B)
