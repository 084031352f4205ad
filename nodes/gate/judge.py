"""Whether a candidate predicts as well as what is live, from sums over rows that neither has learnt."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from contracts.sections import Gate
from nodes.gate.window import Window

#: Without a click in the window, as many predicted clicks are still believed.
CLICKS_BELIEVED = 5.0
#: Why a candidate is held, in one word, for counting.
Kind = Literal[
    "superseded",  # a newer one came before its window was full
    "norms",  # a NaN, an infinity, weights that have run away
    "no_rows",  # nothing to judge it on
    "not_finite",  # its predictions
    "labels",  # those that it learnt or is judged on are not believed
    "feature",  # one is frozen or missing
    "logloss",
    "calibration",
    "scores",  # shifted, saturated or all the same, on the canary set
    "rolled_back",  # an operator went back to an older version
    "emptied",  # the store lost its data meanwhile
    "store",  # it cannot be reached
]


class Fault(NamedTuple):
    """Why a candidate must be held."""

    kind: Kind
    reason: str  #: a sentence with the figures


@dataclass(frozen=True, slots=True)
class Decision:
    """What became of a candidate, and why."""

    outcome: Literal["published", "held"]
    reason: str
    position: int  #: rows of the example log that it had learnt
    step: int
    version: int | None  #: that it got; None when held
    figures: dict[str, float | str | None]
    kind: Kind | None = None  #: of the reason to hold it; None when published
    at_ms: int = 0  #: decided, epoch milliseconds


def judge(candidate: Window, live: Window, settings: Gate, *, live_is_version: bool = True) -> Fault | None:
    """Why the candidate must be held; None when it may go live.

    Args:
        candidate: its sums over the window.
        live: those of what answers requests now (the live version, or the app's prior CTR), on the same rows.
        settings: the gate's limits.
        live_is_version: False when the prior answers: it says nothing about the window's labels.

    >>> good, bad = Window(), Window()
    >>> good.add(np.array([1, 0]), np.array([0.9, 0.1]), np.ones(2))
    >>> bad.add(np.array([1, 0]), np.array([0.1, 0.9]), np.ones(2))
    >>> judge(good, good, Gate()), judge(bad, good, Gate()).reason
    (None, 'logloss 2.3026 is more than 2 % above the 0.1054 of what is live')
    """
    if not candidate.rows:
        return Fault("no_rows", "no row came after it to judge it on")
    if not np.isfinite(candidate.loss):
        return Fault("not_finite", "its predictions on the window are not finite")
    if live_is_version and live.ne > settings.max_live_ne:
        return Fault(
            "labels",
            f"the window's labels look wrong: on them the live version has normalised entropy {live.ne:.2f}, far worse "
            "than a constant; if traffic really changed so much, publish with --force",
        )
    if candidate.logloss > live.logloss * (1 + settings.max_logloss_increase):
        more = f"{settings.max_logloss_increase:.0%}".replace("%", " %")
        return Fault(
            "logloss",
            f"logloss {candidate.logloss:.4f} is more than {more} above the {live.logloss:.4f} of what is live",
        )
    low, high = settings.calibration
    if candidate.calibration is None:
        if candidate.predicted > CLICKS_BELIEVED:
            return Fault("calibration", f"it predicts {candidate.predicted:.1f} clicks in a window that has none")
    elif not low <= candidate.calibration <= high:
        return Fault("calibration", f"calibration {candidate.calibration:.3f} is outside {low:g} to {high:g}")
    return None
