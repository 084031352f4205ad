"""Progressive validation: each row is judged by the prediction made before it was learnt.

Figures of the whole stream and of windows of event time, from sums and histograms that merge. GAUC is not kept: under
predict-then-train it is biased down, so it is judged on frozen weights (`model.metrics.gauc`).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from model.metrics import Sums, clipped, cross_entropy

_REACH = 12.0  #: logits beyond it share the outermost bin
_BINS = 4096  #: of the whole stream
_WINDOW_BINS = 256  #: of one window: a divisor of `_BINS`
_SUMS = 5  #: rows, weight, clicks, predicted, loss

Array = npt.NDArray[np.float64]


def bins_of(p: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """The histogram bin of each probability, by its logit.

    >>> bins_of([0.0, 0.5, 1.0]).tolist()
    [0, 2048, 4095]
    """
    safe = clipped(p)
    logit = np.log(safe) - np.log1p(-safe)
    scaled = ((logit + _REACH) * (_BINS / (2 * _REACH))).astype(np.int64)
    return np.clip(scaled, 0, _BINS - 1)


def histogram_auc(negative: Array, positive: Array) -> float | None:
    """AUC from the weights of both classes in ascending bins; rows of one bin count as ties.

    Off by at most half the share of pairs that meet in one bin; None without both classes.

    >>> histogram_auc(np.array([1.0, 0.0]), np.array([0.0, 1.0]))
    1.0
    """
    pairs = float(negative.sum()) * float(positive.sum())
    if not pairs:
        return None
    below = np.cumsum(negative) - negative
    return float(np.sum(positive * (below + 0.5 * negative)) / pairs)


def _figures(sums: Array, histogram: Array) -> dict[str, Any]:
    """The figures of one model from its [5] sums and [2, bins] histogram."""
    whole = Sums(int(sums[0]), *(float(value) for value in sums[1:]))
    return {
        "rows": whole.rows,
        "auc": histogram_auc(histogram[0].astype(np.float64), histogram[1].astype(np.float64)),
        "gauc": None,
        "logloss": whole.logloss,
        "ne": whole.ne,
        "calibration": whole.calibration,
    }


class Progressive:
    """Sums and histograms of each model, over the stream and by window of event time.

    At most `max_windows` windows are held: beyond that, neighbours merge and the window doubles. So the state is
    bounded (about 0.2 MB a model), and depends on the rows' content alone.

    >>> told = Progressive(("light",))
    >>> told.update([1, 0], [0, 1], {"light": [0.9, 0.2]})
    >>> told.figures()["light"]["auc"]
    1.0
    """

    def __init__(self, models: tuple[str, ...], *, window_ms: int = 600_000, max_windows: int = 64) -> None:
        self._models, self._max_windows = models, max_windows
        self._window_ms = window_ms
        self._windows: list[int] = []  # numbers, ascending: event time // window_ms
        self._sums = np.zeros((len(models), _SUMS))
        self._histogram = np.zeros((len(models), 2, _BINS))
        self._window_sums = np.zeros((len(models), 0, _SUMS))
        self._window_histogram = np.zeros((len(models), 0, 2, _WINDOW_BINS), np.float32)
        self._not_finite = dict.fromkeys(models, 0)  # rows

    def update(
        self,
        label: npt.ArrayLike,
        event_time_ms: npt.ArrayLike,
        predictions: Mapping[str, npt.ArrayLike],
        weight: npt.ArrayLike | None = None,
    ) -> None:
        """Count rows with what each model predicted for them before it learnt them.

        Args:
            label: [rows], 0 or 1.
            event_time_ms: [rows].
            predictions: model -> [rows] probabilities; a model that is absent is not counted.
            weight: [rows], one each by default.

        A prediction that is not finite is counted apart, as `not_finite`, and in no other figure of its model.
        """
        y = np.asarray(label, np.float64)
        w = np.ones_like(y) if weight is None else np.asarray(weight, np.float64)
        slot = self._slots(np.asarray(event_time_ms, np.int64))
        for at, model in enumerate(self._models):
            if model not in predictions:
                continue
            p = np.asarray(predictions[model], np.float64)
            fine = np.isfinite(p)
            if fine.all():
                self._count(at, y, w, p, slot)
            else:
                self._not_finite[model] += int((~fine).sum())
                self._count(at, y[fine], w[fine], p[fine], slot[fine])

    def _count(self, at: int, y: Array, w: Array, p: Array, slot: npt.NDArray[np.int64]) -> None:
        """Add rows with finite predictions of one model, by its number."""
        sides = (w * (1 - y), w * y)
        columns = np.stack([np.ones_like(y), w, w * y, w * p, w * cross_entropy(y, p)], axis=1)
        bins = bins_of(p)
        coarse = bins // (_BINS // _WINDOW_BINS)
        for number in np.unique(slot):  # a minibatch spans one or two windows
            mine = slot == number
            self._window_sums[at, number] += columns[mine].sum(axis=0)
            for side in (0, 1):
                self._window_histogram[at, number, side] += np.bincount(
                    coarse[mine], sides[side][mine], _WINDOW_BINS
                ).astype(np.float32)
        self._sums[at] += columns.sum(axis=0)
        for side in (0, 1):
            self._histogram[at, side] += np.bincount(bins, sides[side], _BINS)

    def _slots(self, event_time_ms: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The index of each row's window; windows are made, and merged, as needed."""
        numbers = np.unique(event_time_ms // self._window_ms)
        while len(np.union1d(self._windows, numbers)) > self._max_windows:
            self._window_ms *= 2
            self._regroup([number // 2 for number in self._windows], sorted({n // 2 for n in self._windows}))
            numbers = np.unique(event_time_ms // self._window_ms)
        if not set(numbers.tolist()) <= set(self._windows):
            self._regroup(self._windows, sorted({*self._windows, *numbers.tolist()}))
        return np.searchsorted(np.asarray(self._windows, np.int64), event_time_ms // self._window_ms).astype(np.int64)

    def _regroup(self, old: list[int], new: list[int]) -> None:
        """Add the windows, now numbered `old`, into the windows `new`."""
        index = np.searchsorted(np.asarray(new, np.int64), np.asarray(old, np.int64))
        sums = np.zeros((len(self._models), len(new), _SUMS))
        histogram = np.zeros((len(self._models), len(new), 2, _WINDOW_BINS), np.float32)
        for before, after in enumerate(index):
            sums[:, after] += self._window_sums[:, before]
            histogram[:, after] += self._window_histogram[:, before]
        self._windows, self._window_sums, self._window_histogram = new, sums, histogram

    def figures(self) -> dict[str, dict[str, Any]]:
        """Model -> rows, auc, gauc (None), logloss, ne, calibration over all rows counted.

        And `not_finite`, rows that are not among them, where there are any.
        """
        return {
            model: _figures(self._sums[at], self._histogram[at])
            | ({"not_finite": self._not_finite[model]} if self._not_finite[model] else {})
            for at, model in enumerate(self._models)
            if self._sums[at, 0]
        }

    def curve(self) -> list[dict[str, Any]]:
        """One row a window of event time: `window_ms` (its start), `length_ms`, and each model's figures."""
        return [
            {"window_ms": number * self._window_ms, "length_ms": self._window_ms}
            | {
                model: _figures(self._window_sums[at, slot], self._window_histogram[at, slot])
                for at, model in enumerate(self._models)
                if self._window_sums[at, slot, 0]
            }
            for slot, number in enumerate(self._windows)
        ]

    def arrays(self) -> dict[str, np.ndarray]:
        """Copies of the state, for a checkpoint; `meta` holds the rest."""
        return {
            "sums": self._sums.copy(),
            "histogram": self._histogram.copy(),
            "window_sums": self._window_sums.copy(),
            "window_histogram": self._window_histogram.copy(),
        }

    def meta(self) -> dict[str, Any]:
        """The JSON-able part of the state."""
        return {"models": list(self._models), "window_ms": self._window_ms, "windows": list(self._windows)} | (
            {"not_finite": dict(self._not_finite)} if any(self._not_finite.values()) else {}
        )

    def restore(self, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> None:
        """Go on from `arrays` and `meta` of an earlier one.

        Models may have been added or left out since: what is common is kept.
        """
        self._window_ms, self._windows = int(meta["window_ms"]), [int(number) for number in meta["windows"]]
        told = meta.get("not_finite", {})
        self._not_finite = {model: int(told.get(model, 0)) for model in self._models}
        known = list(meta["models"])
        source = np.array([known.index(model) if model in known else -1 for model in self._models], np.int64)

        def taken(name: str) -> np.ndarray:
            found = arrays[name]
            made = np.zeros((len(self._models), *found.shape[1:]), found.dtype)
            made[source >= 0] = found[source[source >= 0]]
            return made

        self._sums, self._histogram = taken("sums"), taken("histogram")
        self._window_sums, self._window_histogram = taken("window_sums"), taken("window_histogram")
