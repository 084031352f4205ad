"""Sums over the rows on which a net is judged."""

from dataclasses import dataclass

import numpy as np


@dataclass
class Window:
    """Sums over the rows seen so far, for one net: mergeable, and all that a comparison of two nets needs.

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
