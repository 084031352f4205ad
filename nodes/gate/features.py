"""Whether a feature still says what it said: one that varied and now has a single value, or is suddenly missing."""

from collections.abc import Sequence

import numpy as np
import polars as pl

from contracts.features import Feature
from contracts.sections import Gate
from nodes.gate.judge import Fault
from nodes.gate.labels import wilson

#: A feature that usually has one value in more of the rows may stand still by nature: in the KuaiRand log the age of
#: the videos shown has one bucket in four rows of five, and then in all of them for days.
USED_TO_VARY = 0.5
#: What three slices in four do not exceed is usual: a freeze that comes bit by bit must not make itself usual.
_USUAL = 0.75
#: Slices remembered, and how many of them there must be before a feature is judged.
REMEMBERED, LEAST = 64, 4


class FeatureWatch:
    """What each feature looked like in the last believed slices of the log.

    Two figures a feature and slice: `top_share`, the share of its most common value where that is more than half (below
    it the exact share says nothing of a freeze), and `missing`, the share of rows in bucket 0 (or an empty list, or the
    default of a dense feature). The clock's features stand still by nature and are not looked at for a freeze.

    Args:
        features: the app's; the booster's own too, because it teaches the light net.
        settings: `frozen_share` and `max_missing_rise`.
    """

    def __init__(self, features: Sequence[Feature], settings: Gate) -> None:
        self._features, self._settings = tuple(features), settings
        self._may_stand = np.array([feature.kind == "time" for feature in self._features], bool)
        self._seen: list[np.ndarray] = []  # [F, 2] each, the newest last

    def figures(self, rows: pl.DataFrame) -> np.ndarray:
        """`top_share` and `missing` of each feature in some rows, [F, 2]."""
        return np.array([_figures(feature, rows) for feature in self._features]).reshape(-1, 2)

    def fault(self, figures: np.ndarray, rows: int) -> Fault | None:
        """What is wrong with a slice of so many rows; None also while too little has been seen to say."""
        if len(self._seen) < LEAST or not self._features:
            return None
        usual_top, usual_missing = np.quantile(np.stack(self._seen), _USUAL, axis=0).T
        frozen = (figures[:, 0] >= self._settings.frozen_share) & (usual_top <= USED_TO_VARY) & ~self._may_stand
        for at in np.flatnonzero(frozen).tolist():
            return Fault(
                "feature",
                f"feature '{self._features[at].name}' is frozen: {figures[at, 0]:.1%} of {rows} rows have one value, "
                f"where {usual_top[at]:.1%} is usual; mend its source, or publish with --force",
            )
        for at, feature in enumerate(self._features):
            if wilson(float(figures[at, 1]), rows)[0] > usual_missing[at] + self._settings.max_missing_rise:
                return Fault(
                    "feature",
                    f"feature '{feature.name}' is missing in {figures[at, 1]:.1%} of {rows} rows, where "
                    f"{usual_missing[at]:.1%} is usual; mend its source, or publish with --force",
                )
        return None

    def believe(self, figures: np.ndarray) -> None:
        """Remember a slice with which nothing was wrong."""
        self._seen.append(figures)
        del self._seen[:-REMEMBERED]

    def forget(self) -> None:
        """Begin anew."""
        self._seen = []


def _figures(feature: Feature, rows: pl.DataFrame) -> tuple[float, float]:
    column = rows[feature.name]
    if feature.output == "ids":
        column = column.list.first().fill_null(0)
    values = column.to_numpy()
    if not values.size:
        return 0.0, 0.0
    median = np.partition(values, values.size // 2)[values.size // 2]  # a value with more than half of the rows is it
    top = float((values == median).mean())
    if feature.output != "dense":
        return top, float((values == 0).mean())
    return top, float((values == np.float32(feature.default)).mean()) if feature.kind == "dense" else 0.0
