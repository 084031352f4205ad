"""How good predicted probabilities are: sums that merge, and exact ranking figures on arrays.

Everything that a mean can express is kept as `Sums`, so parts of a stream add up to the whole. Ranking figures (AUC,
GAUC) are exact here; `model.progressive` approximates them from mergeable histograms.
"""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from contracts.errors import RocketError

Floats = npt.NDArray[np.float64]
#: Probabilities are kept that far from 0 and 1, so that one sure mistake costs 16 nats and not infinity.
EPSILON = 1e-7


def clipped(p: npt.ArrayLike) -> Floats:
    """Probabilities as float64, at least `EPSILON` away from 0 and 1."""
    return np.clip(np.asarray(p, np.float64), EPSILON, 1 - EPSILON)


def cross_entropy(target: npt.ArrayLike, p: npt.ArrayLike) -> Floats:
    """Nats that each prediction costs; the target is a label or a true probability.

    >>> cross_entropy([1, 0], [0.5, 0.5]).round(3).tolist()
    [0.693, 0.693]
    """
    safe, wanted = clipped(p), np.asarray(target, np.float64)
    return -(wanted * np.log(safe) + (1 - wanted) * np.log1p(-safe))


@dataclass(frozen=True, slots=True)
class Sums:
    """Sums over rows that merge by adding; every mean figure derives from them.

    >>> a, b = Sums.of([1, 0], [0.8, 0.2]), Sums.of([0], [0.5])
    >>> (a + b) == Sums.of([1, 0, 0], [0.8, 0.2, 0.5])
    True
    """

    rows: int = 0
    weight: float = 0.0
    clicks: float = 0.0  #: weighted
    predicted: float = 0.0  #: weighted sum of probabilities
    loss: float = 0.0  #: weighted sum of nats

    @classmethod
    def of(cls, label: npt.ArrayLike, p: npt.ArrayLike, weight: npt.ArrayLike | None = None) -> "Sums":
        """The sums of some rows."""
        y, q = np.asarray(label, np.float64), np.asarray(p, np.float64)
        w = np.ones_like(y) if weight is None else np.asarray(weight, np.float64)
        # np.sum, not a dot product: BLAS may add in another order on another alignment, and resume is bit for bit
        parts = (w, w * y, w * q, w * cross_entropy(y, q))
        return cls(len(y), *(float(np.sum(part)) for part in parts))

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))

    @property
    def logloss(self) -> float | None:
        """Mean nats a row; None without rows."""
        return self.loss / self.weight if self.weight else None

    @property
    def ctr(self) -> float | None:
        """Share of clicks; None without rows."""
        return self.clicks / self.weight if self.weight else None

    @property
    def ne(self) -> float | None:
        """Normalised entropy: logloss over that of predicting the mean; None where the labels are all equal."""
        rate = self.ctr
        if rate is None or not 0 < rate < 1 or self.logloss is None:
            return None
        return self.logloss / float(-rate * np.log(rate) - (1 - rate) * np.log(1 - rate))

    @property
    def calibration(self) -> float | None:
        """Predicted clicks over observed ones; None without a click."""
        return self.predicted / self.clicks if self.clicks else None


def auc_by_group(
    group: npt.NDArray[np.int64], label: npt.ArrayLike, p: npt.ArrayLike, weight: npt.ArrayLike | None = None
) -> tuple[Floats, Floats]:
    """The exact AUC of each group, ties counting half, and the group's weight.

    Args:
        group: [rows], numbers 0 .. G-1, each at least once.
        label: [rows], 0 or 1.
        p: [rows], any score.
        weight: [rows], one each by default.

    Returns:
        AUC [G], NaN where a group has one class only; summed weight [G].

    >>> auc_by_group(np.array([0, 0, 1, 1]), [0, 1, 0, 1], [0.1, 0.9, 0.5, 0.5])[0].tolist()
    [1.0, 0.5]
    """
    y, q = np.asarray(label, np.float64), np.asarray(p, np.float64)
    w = np.ones_like(y) if weight is None else np.asarray(weight, np.float64)
    order = np.lexsort((q, group))
    g, q, positive, w = group[order], q[order], (w * y)[order], w[order]
    negative = w - positive
    first_of_tie = np.flatnonzero(np.r_[True, (g[1:] != g[:-1]) | (q[1:] != q[:-1])])
    tie_positive = np.add.reduceat(positive, first_of_tie)
    tie_negative = np.add.reduceat(negative, first_of_tie)
    tie_group = g[first_of_tie]
    before = np.cumsum(tie_negative) - tie_negative
    first_of_group = np.searchsorted(tie_group, np.arange(int(g[-1]) + 1))
    below = before - before[first_of_group][tie_group]
    won = np.bincount(tie_group, tie_positive * (below + 0.5 * tie_negative))
    num_positive, num_negative = np.bincount(g, positive), np.bincount(g, negative)
    pairs = num_positive * num_negative
    with np.errstate(invalid="ignore", divide="ignore"):
        value: Floats = np.where(pairs > 0, won / pairs, np.nan)
    return value, np.bincount(g, w).astype(np.float64)


def auc(label: npt.ArrayLike, p: npt.ArrayLike, weight: npt.ArrayLike | None = None) -> float | None:
    """Chance that a click is ranked above a non-click, ties half; None where the labels are all equal.

    >>> auc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
    0.75
    """
    size = np.size(np.asarray(label))
    if size == 0:
        return None
    value = float(auc_by_group(np.zeros(size, np.int64), label, p, weight)[0][0])
    return None if np.isnan(value) else value


def gauc(
    label: npt.ArrayLike, p: npt.ArrayLike, user: pl.Series | npt.ArrayLike, weight: npt.ArrayLike | None = None
) -> float | None:
    """Mean AUC inside each user, weighted by the user's impressions; users with one class only are left out.

    >>> gauc([0, 1, 1, 0], [0.1, 0.9, 0.2, 0.3], ["a", "a", "b", "b"])
    0.5
    """
    users = user if isinstance(user, pl.Series) else pl.Series("user", np.asarray(user))
    if users.len() == 0:
        return None
    ranks = users.rank("dense").fill_null(0).to_numpy()
    group = np.unique(ranks, return_inverse=True)[1].astype(np.int64)
    aucs, weights = auc_by_group(group, label, p, weight)
    defined = ~np.isnan(aucs)
    return float(np.average(aucs[defined], weights=weights[defined])) if defined.any() else None


def expected_logloss(truth: npt.ArrayLike, p: npt.ArrayLike, weight: npt.ArrayLike | None = None) -> float:
    """Mean nats under the true click probability: logloss without the noise of the labels.

    >>> expected_logloss([0.5], [0.5])
    0.693147
    """
    return float(np.average(cross_entropy(truth, p), weights=None if weight is None else np.asarray(weight)))


def refuse_not_finite(p: npt.ArrayLike, whose: str) -> None:
    """Stop on a prediction that is no number.

    Raises:
        RocketError: naming the first such row.
    """
    bad = np.flatnonzero(~np.isfinite(np.asarray(p, np.float64)))
    if bad.size:
        raise RocketError(
            f"{whose}: {bad.size} of {np.size(p)} predictions are not finite, the first in row {bad[0]}; "
            "the net has diverged: lower the learning rates, or go back to an earlier checkpoint"
        )


def summarise(
    label: npt.ArrayLike,
    p: npt.ArrayLike,
    user: pl.Series | npt.ArrayLike | None = None,
    weight: npt.ArrayLike | None = None,
    truth: npt.ArrayLike | None = None,
) -> dict[str, Any]:
    """All figures of one model on some rows; a figure that is not defined there is None.

    Args:
        label: [rows], 0 or 1.
        p: [rows], predicted probabilities.
        user: [rows], for GAUC.
        weight: [rows], one each by default.
        truth: [rows], the true probabilities where they are known, for `expected_logloss`.

    Raises:
        RocketError: a prediction that is not finite.

    >>> figures = summarise([0, 1], [0.2, 0.8])
    >>> figures["auc"], figures["calibration"], figures["gauc"]
    (1.0, 1.0, None)
    """
    refuse_not_finite(p, "summarise")
    sums = Sums.of(label, p, weight)
    figures: dict[str, Any] = {
        "rows": sums.rows,
        "ctr": sums.ctr,
        "auc": auc(label, p, weight),
        "gauc": None if user is None else gauc(label, p, user, weight),
        "logloss": sums.logloss,
        "ne": sums.ne,
        "calibration": sums.calibration,
    }
    if truth is not None and sums.rows:
        figures["expected_logloss"] = expected_logloss(truth, p, weight)
    return figures
