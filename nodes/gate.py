"""Whether a candidate version may go live: judged on rows that neither it nor the live version has learnt."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from contracts.sections import Gate

#: fp16 ends at 65504; a weight near it has run away.
MAX_ABS_WEIGHT = 1e4
#: Without a click in the window, as many predicted clicks are still believed.
CLICKS_BELIEVED = 5.0
#: A live version this much worse than a constant (normalised entropy) says that the window's labels are wrong.
LIVE_NE_BELIEVED = 1.2


@dataclass
class Window:
    """Sums over the rows seen so far, for one net: mergeable, and all that the gate needs.

    >>> window = Window()
    >>> window.add(np.array([1, 0]), np.array([0.5, 0.5]), np.ones(2))
    >>> window.rows, round(window.logloss, 4), window.calibration
    (2, 0.6931, 1.0)
    """

    rows: int = 0
    weight: float = 0.0
    clicks: float = 0.0
    predicted: float = 0.0
    loss: float = 0.0
    max_abs_logit: float = 0.0

    def add(self, label: np.ndarray, p: np.ndarray, weight: np.ndarray) -> None:
        """Count rows in.

        Args:
            label: 0 or 1, [B].
            p: the net's probabilities, [B].
            weight: of each row, so that sampled negatives count for those left out, [B].
        """
        safe = np.clip(p.astype(np.float64), 1e-15, 1 - 1e-15)
        self.rows += label.size
        self.weight += float(weight.sum())
        self.clicks += float((weight * label).sum())
        self.predicted += float((weight * safe).sum())
        self.loss += float(-(weight * np.where(label > 0, np.log(safe), np.log1p(-safe))).sum())
        self.max_abs_logit = max(self.max_abs_logit, float(np.abs(np.log(safe) - np.log1p(-safe)).max(initial=0)))

    @property
    def logloss(self) -> float:
        """Mean log loss; NaN without rows."""
        return self.loss / self.weight if self.weight else float("nan")

    @property
    def ne(self) -> float:
        """Normalised entropy: log loss over that of the window's own label rate; NaN where that has no entropy."""
        rate = self.clicks / self.weight if self.weight else 0.0
        entropy = -(rate * np.log(rate) + (1 - rate) * np.log1p(-rate)) if 0 < rate < 1 else float("nan")
        return float(self.logloss / entropy)

    @property
    def calibration(self) -> float | None:
        """Predicted / observed clicks; None without a click."""
        return self.predicted / self.clicks if self.clicks else None


@dataclass(frozen=True, slots=True)
class Decision:
    """What became of a candidate, and why."""

    outcome: Literal["published", "held"]
    reason: str
    position: int  #: rows of the example log that it had learnt
    step: int
    version: int | None  #: that it got; None when held
    figures: dict[str, float | str | None]


def judge(candidate: Window, live: Window, settings: Gate, *, live_is_version: bool = True) -> str | None:
    """Why the candidate must be held; None when it may go live.

    Args:
        candidate: its sums over the window.
        live: those of what answers requests now (the live version, or the app's prior CTR), on the same rows.
        settings: the gate's limits.
        live_is_version: False when the prior answers: it says nothing about the window's labels.

    >>> good, bad = Window(), Window()
    >>> good.add(np.array([1, 0]), np.array([0.9, 0.1]), np.ones(2))
    >>> bad.add(np.array([1, 0]), np.array([0.1, 0.9]), np.ones(2))
    >>> judge(good, good, Gate()), judge(bad, good, Gate())
    (None, 'logloss 2.3026 is more than 2 % above the 0.1054 of what is live')
    """
    if not candidate.rows:
        return "no row came after it to judge it on"
    if not np.isfinite(candidate.loss):
        return "its predictions on the window are not finite"
    if live_is_version and live.ne > LIVE_NE_BELIEVED:
        return (
            f"the window's labels look wrong: on them the live version has normalised entropy {live.ne:.2f}, far worse "
            "than a constant; if traffic really changed so much, publish with --force"
        )
    if candidate.logloss > live.logloss * (1 + settings.max_logloss_increase):
        return (
            f"logloss {candidate.logloss:.4f} is more than {settings.max_logloss_increase:.0%} above the "
            f"{live.logloss:.4f} of what is live"
        ).replace("%", " %")
    low, high = settings.calibration
    if candidate.calibration is None:
        if candidate.predicted > CLICKS_BELIEVED:
            return f"it predicts {candidate.predicted:.1f} clicks in a window that has none"
    elif not low <= candidate.calibration <= high:
        return f"calibration {candidate.calibration:.3f} is outside {low:g} to {high:g}"
    return None


def unfit(arrays: dict[str, np.ndarray]) -> str | None:
    """Why arrays must not be published whatever they predict; None when they may.

    >>> unfit({"bias": np.array([np.nan], np.float32)})
    "array 'bias' holds a NaN or an infinity"
    >>> unfit({"bias": np.array([2e4], np.float32)})
    "array 'bias' has run away: its largest weight is 2e+04, above 1e+04"
    """
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            return f"array '{name}' holds a NaN or an infinity"
        largest = float(np.abs(array).max(initial=0))
        if largest > MAX_ABS_WEIGHT:
            return f"array '{name}' has run away: its largest weight is {largest:.3g}, above {MAX_ABS_WEIGHT:.3g}"
    return None


#: How a reason begins or what it says -> its kind, for counting.
_KINDS = {
    "a newer candidate": "superseded",
    "array ": "unfit",
    "no row ": "no_rows",
    "its predictions": "not_finite",
    "the window's labels": "labels",
    "logloss ": "logloss",
    "calibration ": "calibration",
    "it predicts ": "calibration",
    "it is version ": "rolled_back",
    "it was version ": "emptied",
}


def hold_kind(reason: str) -> str:
    """The kind of a reason to hold a candidate: one of a few words, where the reason itself holds figures.

    >>> hold_kind("calibration 3.100 is outside 0.7 to 1.4"), hold_kind("redis://host: cannot be reached")
    ('calibration', 'store')
    """
    return next((kind for start, kind in _KINDS.items() if reason.startswith(start)), "store")
