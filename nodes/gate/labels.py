"""Whether the label rate is still what it was: a shift is believed only as far as chance cannot explain it.

The rate of a stretch of rows stands for unsampled traffic (weighted by what each row counts), and its uncertainty is
that of its effective sample size, (sum w)^2 / sum w^2 (Kish, 1965). Wilson's score interval (1927) holds for few clicks
too; the *shift* is how far, in logits, the whole interval lies from that of the reference.
"""

from dataclasses import dataclass

import numpy as np

#: Half-width of an interval in standard deviations: clicks come in clumps, and a gate looks thousands of times a day.
SIGMAS = 5.0
_LEAST = 1e-9  # a rate's distance from 0 and 1, so that it has a logit


@dataclass
class LabelSums:
    """Clicks among weighted rows: mergeable.

    >>> sums = LabelSums.of(np.array([1, 0, 0, 0]), np.ones(4))
    >>> sums.rate, sums.size
    (0.25, 4.0)
    """

    clicks: float = 0.0
    weight: float = 0.0
    squares: float = 0.0  #: of the weights

    @classmethod
    def of(cls, label: np.ndarray, weight: np.ndarray) -> "LabelSums":
        """Those of rows: labels 0 or 1 [B], weights [B]."""
        return cls(float((label * weight).sum()), float(weight.sum()), float((weight * weight).sum()))

    def __add__(self, other: "LabelSums") -> "LabelSums":
        return LabelSums(self.clicks + other.clicks, self.weight + other.weight, self.squares + other.squares)

    def decayed(self, by: float) -> "LabelSums":
        """Rows that count `by` as much: rate unchanged, effective size `by` times."""
        return LabelSums(self.clicks * by, self.weight * by, self.squares * by)

    @property
    def rate(self) -> float:
        """Clicks a row."""
        return min(max(self.clicks / self.weight, 0.0), 1.0) if self.weight > 0 else 0.0

    @property
    def size(self) -> float:
        """Effective number of rows."""
        return self.weight**2 / self.squares if self.squares > 0 and self.weight > 0 else 0.0


def wilson(rate: float, size: float, sigmas: float = SIGMAS) -> tuple[float, float]:
    """Wilson's score interval of a rate seen among `size` rows.

    >>> low, high = wilson(0.0, 100, sigmas=2)
    >>> round(low, 4), round(high, 4)
    (0.0, 0.0385)
    """
    if size <= 0:
        return 0.0, 1.0
    spread = sigmas**2 / size
    middle = rate + spread / 2
    half = sigmas * np.sqrt(rate * (1 - rate) / size + spread / (4 * size))
    return float(max((middle - half) / (1 + spread), 0.0)), float(min((middle + half) / (1 + spread), 1.0))


def shift(window: LabelSums, reference: LabelSums) -> float:
    """How far the window's rate lies from the reference's in logits, at least, and where; 0: chance may do it.

    >>> before, now = LabelSums(60, 1000, 1000), LabelSums(940, 1000, 1000)
    >>> shift(now, before) > 4, shift(before, before), shift(LabelSums(2, 10, 10), before)
    (True, 0.0, 0.0)
    """
    low, high = wilson(window.rate, window.size)
    from_, to = wilson(reference.rate, reference.size)
    if low > to:
        return _logit(low) - _logit(to)
    if high < from_:
        return _logit(high) - _logit(from_)
    return 0.0


def prior_of(rate: float) -> LabelSums:
    """A rate that is known beforehand, as if from endless rows."""
    return LabelSums(rate * 1e12, 1e12, 1e12)


def _logit(rate: float) -> float:
    safe = min(max(rate, _LEAST), 1 - _LEAST)
    return float(np.log(safe) - np.log1p(-safe))
