"""Rows that wait for their event time, taken out at the cost of those that are near it."""

import polars as pl

_NEVER = -(2**62)


class TimeRows:
    """Rows by event time: what lies further ahead than a step is not looked at.

    >>> rows = TimeRows(pl.DataFrame(schema={"at": pl.Int64}), "at", step_ms=10)
    >>> rows.add(pl.DataFrame({"at": [90, 5, 7]}))
    >>> rows.take(6)["at"].to_list(), rows.least_ms, rows.height
    ([5], 7, 2)
    """

    def __init__(self, empty: pl.DataFrame, at: str, step_ms: int) -> None:
        """Keep rows like those of `empty` by the column `at`."""
        self._at, self._step_ms = at, max(1, step_ms)
        self._near = empty
        self._far: list[tuple[int, pl.DataFrame]] = []  # smallest event time, rows
        self._horizon_ms = _NEVER  # near are the rows up to it

    def add(self, rows: pl.DataFrame) -> None:
        """Take rows in any order."""
        if not rows.height:
            return
        rows = rows.select(self._near.columns)
        least_ms = _least(rows, self._at)
        if least_ms <= self._horizon_ms:
            near = pl.col(self._at) <= self._horizon_ms
            self._near = pl.concat([self._near, rows.filter(near)])
            rows = rows.filter(~near)
            least_ms = _least(rows, self._at) if rows.height else 0
        if rows.height:
            self._far.append((least_ms, rows))

    def take(self, due_ms: int) -> pl.DataFrame:
        """Take out the rows at or before `due_ms`, in the order of the parts they came in."""
        if due_ms >= self._horizon_ms:
            self._approach(due_ms + self._step_ms)
        due = pl.col(self._at) <= due_ms
        taken, self._near = self._near.filter(due), self._near.filter(~due)
        return taken

    @property
    def height(self) -> int:
        """How many rows it keeps."""
        return self._near.height + sum(rows.height for _, rows in self._far)

    @property
    def least_ms(self) -> int | None:
        """The smallest event time that it keeps."""
        least = [least_ms for least_ms, _ in self._far]
        if self._near.height:
            least.append(_least(self._near, self._at))
        return min(least, default=None)

    def all(self) -> pl.DataFrame:
        """All rows that it keeps."""
        return pl.concat([self._near, *(rows for _, rows in self._far)])

    def restore(self, rows: pl.DataFrame) -> None:
        """Keep these rows, and no others."""
        self._near, self._far, self._horizon_ms = self._near.clear(), [], _NEVER
        self.add(rows)

    def _approach(self, horizon_ms: int) -> None:
        coming = [rows for least_ms, rows in self._far if least_ms <= horizon_ms]
        self._far = [(least_ms, rows) for least_ms, rows in self._far if least_ms > horizon_ms]
        self._horizon_ms = horizon_ms
        if coming:
            self.add(pl.concat(coming))


def _least(rows: pl.DataFrame, at: str) -> int:
    return int(rows[at].min())  # type: ignore[arg-type]
