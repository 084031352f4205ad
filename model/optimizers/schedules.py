"""The learning rate by rows learnt: no clock and no count of steps, so that it means the same at any minibatch size."""

import math

from contracts.training import Dense


def share_of_rate(settings: Dense, rows_learnt: int) -> float:
    """What the rate is multiplied by, in [0, 1].

    It grows from 0 in a straight line during the warm-up (Goyal et al., arXiv 1706.02677, section 2.2), and then falls
    as a half cosine (Loshchilov and Hutter, "SGDR", ICLR 2017), in a straight line, or with the root of the rows
    (Vaswani et al., NeurIPS 2017, section 5.3, where the peak is at the end of the warm-up).

    Args:
        settings: of the schedule.
        rows_learnt: those of the step's own minibatch included.

    >>> falls = Dense(schedule="linear", warmup_rows=100, decay_rows=200, lr_floor=0.1)
    >>> [round(share_of_rate(falls, rows), 3) for rows in (50, 100, 200, 300, 10_000)]
    [0.5, 1.0, 0.55, 0.1, 0.1]
    >>> share_of_rate(Dense(schedule="inverse_sqrt", warmup_rows=100), 400)
    0.5
    """
    if rows_learnt < settings.warmup_rows:
        return rows_learnt / settings.warmup_rows
    if settings.schedule == "constant":
        return 1.0
    if settings.schedule == "inverse_sqrt":
        return math.sqrt(settings.warmup_rows / rows_learnt)
    done = min(1.0, (rows_learnt - settings.warmup_rows) / settings.decay_rows)
    left = 0.5 * (1 + math.cos(math.pi * done)) if settings.schedule == "cosine" else 1 - done
    return settings.lr_floor + (1 - settings.lr_floor) * left
