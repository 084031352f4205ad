"""How good the models are, and how sure that is: over seeds, and over users.

Seeds differ by first weights alone and share one test set, so their spread understates the doubt: the honest error
resamples users (Efron's bootstrap; all rows of a user come or stay away together). Every model and seed meets the same
draws, so differences between models are paired.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from model.metrics import Floats, Sums, auc, expected_logloss, gauc

DRAWS = 100  #: resamples of the users


class UserBootstrap:
    """AUC under resampled users: the same draws for every model.

    Args:
        user: of each row.
        label: of each row, 0 or 1.
        draws: how many resamples.

    >>> resampled = UserBootstrap(pl.Series(["a", "a", "b", "b"]), [0, 1, 0, 1], draws=3)
    >>> resampled.auc([0.1, 0.9, 0.2, 0.8]).tolist()
    [1.0, 1.0, 1.0]
    """

    def __init__(self, user: pl.Series, label: npt.ArrayLike, draws: int = DRAWS) -> None:
        code_B = user.rank("dense").to_numpy().astype(np.int64) - 1
        users = int(code_B.max()) + 1
        drawn = np.random.default_rng(1).integers(0, users, (draws, users))
        self._weights = [np.bincount(each, minlength=users)[code_B].astype(np.float64) for each in drawn]
        self._label = np.asarray(label, np.float64)

    def auc(self, p: npt.ArrayLike) -> Floats:
        """[draws] the AUC of a prediction in each resample, ties counting half; NaN where one class is missing."""
        score = np.asarray(p, np.float64)
        order = np.argsort(score, kind="stable")
        sorted_, label = score[order], self._label[order]
        starts = np.flatnonzero(np.r_[True, sorted_[1:] != sorted_[:-1]])
        found = []
        for weight in self._weights:
            w = weight[order]
            positive, negative = np.add.reduceat(w * label, starts), np.add.reduceat(w * (1 - label), starts)
            below = np.cumsum(negative) - negative / 2
            pairs = positive.sum() * negative.sum()
            found.append(float(positive @ below) / pairs if pairs else np.nan)
        return np.array(found)


def figures(label: Floats, p: Floats, user: pl.Series | None = None, truth: Floats | None = None) -> dict[str, float]:
    """AUC, logloss and calibration; GAUC where users are given, expected logloss where the truth is."""
    sums = Sums.of(label, p)
    found = {"auc": auc(label, p), "logloss": sums.logloss, "calibration": sums.calibration}
    if user is not None:
        found["gauc"] = gauc(label, p, user)
    if truth is not None:
        found["expected_logloss"] = expected_logloss(truth, p)
    return {name: float(value) for name, value in found.items() if value is not None}


def mean_and_error(values: npt.ArrayLike) -> tuple[float, float]:
    """The mean over seeds and its standard error (0 for one seed).

    >>> mean_and_error([1.0, 3.0])
    (2.0, 1.0)
    """
    each = np.asarray(values, np.float64)
    return float(each.mean()), float(each.std(ddof=1) / np.sqrt(each.size)) if each.size > 1 else 0.0


def paired(mine: list[dict[str, Any]], theirs: list[dict[str, Any]], figure: str) -> tuple[float, float]:
    """Mean and standard error of the difference in a figure, seed by seed; a model without chance stands for all."""
    many = max(len(mine), len(theirs))
    pairs = zip(
        (mine * many)[:many] if len(mine) == 1 else mine, theirs * many if len(theirs) == 1 else theirs, strict=False
    )
    return mean_and_error([a[figure] - b[figure] for a, b in pairs])
