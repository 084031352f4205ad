"""Which rows an impression gives the log, and when: the label modes beside `wait` (`labels.mode`).

    impression ──observe_s──▶ clicked: one row, settled, positive
                          └─▶ not yet: provisional, negative ──click──▶ correction, positive
                                                             └─wait_s─▶ settled, negative (es_dfm, dfm)

Each row stands in the log at the moment from which its label is known; its features are those of the impression.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from contracts.sections import Labels
from contracts.segments import Role

#: What the join adds to the columns of an impression.
ROW = {"label": pl.UInt8(), "role": pl.UInt8(), "elapsed_s": pl.Float32(), "_log_ms": pl.Int64()}
#: Modes whose nets learn from an impression that never got its click, once that is known.
_TOLD_AT_THE_END = frozenset({"es_dfm", "dfm"})


class LogRows:
    """Labels impressions as a mode tells them to the log.

    Args:
        labels: mode and times of the app.
        at: the name of the impression's event time.

    >>> rows = LogRows(Labels(mode="fake_negative", wait_s=60), "at")
    >>> shown = pl.DataFrame({"at": [1000, 2000], "_clicked_at": [1000, 31_000]})
    >>> rows.first(shown).select("label", "role", "elapsed_s", "_log_ms").rows()
    [(1, 0, 0.0, 1000), (0, 1, 0.0, 2000)]
    >>> rows.corrected(shown[1:]).select("label", "role", "elapsed_s", "_log_ms").rows()
    [(1, 2, 29.0, 31000)]
    """

    def __init__(self, labels: Labels, at: str) -> None:
        self._at = at
        self._waits = labels.mode == "wait"
        self._wait_ms, self.first_ms = round(labels.wait_s * 1000), round(labels.first_row_s * 1000)
        self.follows = not self._waits  #: whether a first row may be followed by another
        self.ends = labels.mode in _TOLD_AT_THE_END  #: whether an impression without a click is told at the end

    @property
    def lag_ms(self) -> int:
        """How far behind the moment of its row in the log an impression's first row is known."""
        return self._wait_ms if self._waits else 0

    def first(self, shown: pl.DataFrame) -> pl.DataFrame:
        """The first rows of impressions, with `_clicked_at` (epoch ms; null: no click so far)."""
        delay = pl.col("_clicked_at") - pl.col(self._at)
        positive = (delay <= self.first_ms).fill_null(value=False)
        role = pl.when(positive | self._waits).then(pl.lit(Role.SETTLED.value)).otherwise(Role.PROVISIONAL.value)
        seen_ms = pl.when(positive).then(delay.clip(0)).otherwise(self.first_ms)
        place = pl.col(self._at) + (0 if self._waits else self.first_ms)
        return _row(shown, positive, role, seen_ms, place)

    def corrected(self, shown: pl.DataFrame) -> pl.DataFrame:
        """The corrections of impressions that were told as negatives, with `_clicked_at`."""
        delay = pl.col("_clicked_at") - pl.col(self._at)
        return _row(shown, pl.lit(1), pl.lit(Role.CORRECTION.value), delay, pl.col("_clicked_at"))

    def ended(self, shown: pl.DataFrame) -> pl.DataFrame:
        """The last rows of impressions whose wait is over without a click."""
        wait_ms = pl.lit(self._wait_ms)
        return _row(shown, pl.lit(0), pl.lit(Role.SETTLED.value), wait_ms, pl.col(self._at) + wait_ms)


def _row(shown: pl.DataFrame, label: pl.Expr, role: pl.Expr, seen_ms: pl.Expr, place_ms: pl.Expr) -> pl.DataFrame:
    made = {"label": label, "role": role, "elapsed_s": seen_ms.cast(pl.Float64) / 1000, "_log_ms": place_ms}
    typed = {name: column.cast(ROW[name]) for name, column in made.items()}
    return shown.with_columns(**typed).drop("_clicked_at")


def counts_once(mode: str) -> pl.Expr:
    """Whether a row is its impression's first in the log: each accepted impression that is not sampled out has one.

    >>> rows = pl.DataFrame({"role": [0, 0, 1, 2], "label": [1, 0, 0, 1]})
    >>> rows.select(counts_once("dfm"))["role"].to_list(), rows.select(counts_once("wait"))["role"].to_list()
    ([True, False, True, False], [True, True, False, False])
    """
    settled = pl.col("role") == Role.SETTLED.value
    if mode == "wait":
        return settled
    return (settled & (pl.col("label") == 1)) | (pl.col("role") == Role.PROVISIONAL.value)


class Judged(NamedTuple):
    """Which rows to judge predictions on, so that sums over them are sums over final labels."""

    at: Any  #: index into the rows: a row may be judged twice
    label: npt.NDArray[np.float64]  #: 0 or 1
    sign: npt.NDArray[np.float64]  #: what each counts: 1, 0 (was judged before), -1 (taken back)


def judged(rows: pl.DataFrame, mode: str) -> Judged:
    """A correction counts as a positive and takes back the negative that it corrects; an end counts nothing.

    Sums over a stretch of the log are then those of its impressions' labels, but for the delay of the corrections: the
    early ones belong to impressions before it, and about as many are still to come after it.

    Args:
        rows: `role` and `label` of rows of the log.
        mode: `labels.mode`.

    >>> rows = pl.DataFrame({"role": [1, 2, 0], "label": [0, 1, 0]})
    >>> [part.tolist() for part in judged(rows, "es_dfm")]
    [[0, 1, 2, 1], [0.0, 1.0, 0.0, 0.0], [1.0, 1.0, 0.0, -1.0]]
    """
    label, role = rows["label"].to_numpy().astype(np.float64), rows["role"].to_numpy()
    if mode == "wait":
        return Judged(slice(None), label, np.ones_like(label))
    back = np.flatnonzero(role == Role.CORRECTION)
    ended = (role == Role.SETTLED) & (label == 0)
    return Judged(
        np.concatenate([np.arange(label.size), back]),
        np.concatenate([label, np.zeros(back.size)]),
        np.concatenate([np.where(ended, 0.0, 1.0), np.full(back.size, -1.0)]),
    )


def first_rows(rows: pl.DataFrame, labels: Labels) -> pl.DataFrame:
    """The first row of each impression, `event_time_ms` its own time again and not the place in the log.

    >>> rows = pl.DataFrame({"role": [1, 2], "label": [0, 1], "event_time_ms": [5_000, 9_000]})
    >>> first_rows(rows, Labels(mode="dfm", observe_s=2)).rows()
    [(1, 0, 3000)]
    """
    lag_ms = 0 if labels.mode == "wait" else round(labels.first_row_s * 1000)
    return rows.filter(counts_once(labels.mode)).with_columns(pl.col("event_time_ms") - lag_ms)


def final_labels(rows: pl.DataFrame, labels: Labels) -> pl.DataFrame:
    """One row an impression with the label that it has in the end: its first row, corrected by what follows it.

    >>> rows = pl.DataFrame({"impression_id": ["a", "a"], "role": [1, 2], "label": [0, 1], "event_time_ms": [5, 9]})
    >>> final_labels(rows, Labels(mode="fnc")).rows()
    [('a', 1, 1, 5)]
    """
    clicked = rows.filter(pl.col("role") == Role.CORRECTION.value)["impression_id"]
    if not clicked.len():
        return first_rows(rows, labels)
    late = pl.col("impression_id").is_in(clicked.implode())
    return first_rows(rows, labels).with_columns(
        label=pl.when(late).then(1).otherwise("label").cast(rows["label"].dtype)
    )
