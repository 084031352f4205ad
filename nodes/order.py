"""Rows go into the example log in (event time, impression id) order, whatever order they are settled in (law 4)."""

from collections.abc import Iterable, Iterator

import apache_beam as beam
import polars as pl
from apache_beam.metrics.metric import Metrics
from apache_beam.pvalue import PCollection

from nodes.chunks import Ordered
from nodes.coders import from_bytes, to_bytes


class LogOrder:
    """Holds rows back until no earlier one can come, then numbers and releases them.

    State: the rows not yet released, and the number of the next row.

    >>> order = LogOrder(["at_ms", "id"])
    >>> order.add(pl.DataFrame({"at_ms": [9, 3], "id": ["a", "b"]}))
    >>> order.add(pl.DataFrame({"at_ms": [3, 4], "id": ["a", "c"]}))
    >>> [(first, rows["id"].to_list()) for first, rows in order.release(4, max_rows=2)]
    [(0, ['a', 'b']), (2, ['c'])]
    >>> [(first, rows["id"].to_list()) for first, rows in order.release(None, max_rows=2)]
    [(3, ['a'])]
    """

    def __init__(self, by: list[str], next_row: int = 0) -> None:
        """Order by those columns, of which the first is event time; begin at `next_row`."""
        self._by, self.next_row = by, next_row
        self._held: list[tuple[int, pl.DataFrame]] = []  # rows, and the smallest event time of them

    def add(self, rows: pl.DataFrame) -> None:
        """Take rows in any order."""
        if rows.height:
            self._held.append((int(rows[self._by[0]].min()), rows))  # type: ignore[arg-type]

    def release(self, due_ms: int | None, max_rows: int) -> Iterator[tuple[int, pl.DataFrame]]:
        """The rows at or before `due_ms` (None: all) in order, at most `max_rows` at a time, with their row numbers.

        Costs only the parts that hold a row which is due; what is held is freed as the parts are taken.

        Args:
            due_ms: no row at or before it is still to come.
            max_rows: how many at a time.
        """
        if due_ms is None:
            due, self._held = [rows for _, rows in self._held], []
        else:
            due = []
            held, self._held = self._held, []
            for least_ms, rows in held:
                if least_ms > due_ms:
                    self._held.append((least_ms, rows))
                    continue
                is_due = pl.col(self._by[0]) <= due_ms
                due.append(rows.filter(is_due))
                self.add(rows.filter(~is_due))
        if not due:
            return
        sorted_rows = pl.concat(due).sort(self._by)
        due.clear()
        first, self.next_row = self.next_row, self.next_row + sorted_rows.height
        for start in range(0, sorted_rows.height, max_rows):
            yield first + start, sorted_rows.slice(start, max_rows)

    def held(self) -> pl.DataFrame | None:
        """The rows not yet released."""
        return pl.concat([rows for _, rows in self._held]) if self._held else None


class _Release(beam.DoFn):
    def __init__(self, by: list[str], max_rows: int) -> None:
        self._by, self._max_rows = by, max_rows

    def process(self, keyed: tuple[int, Iterable[bytes]]) -> Iterator[Ordered]:
        order = LogOrder(self._by)
        for encoded in keyed[1]:
            order.add(from_bytes(encoded))
        for first_row, part in order.release(None, self._max_rows):
            Metrics.counter("rocket", "ctr_order_rows_total").inc(part.height)
            yield Ordered(first_row, part)


def _to_one(rows: pl.DataFrame) -> tuple[int, bytes]:
    return 0, to_bytes(rows)


class OrderRows(beam.PTransform[PCollection[pl.DataFrame], PCollection[Ordered]]):
    """Put all rows of bounded input in one order, that of the example log, and number them.

    One worker holds all of them: keep them narrow.
    """

    def __init__(self, by: list[str], max_rows: int) -> None:
        super().__init__()
        self._by, self._max_rows = by, max_rows

    def expand(self, rows: PCollection[pl.DataFrame]) -> PCollection[Ordered]:
        return (
            rows
            | "Key as one" >> beam.Map(_to_one)
            | "Bring together" >> beam.GroupByKey()
            | "Release in order" >> beam.ParDo(_Release(self._by, self._max_rows))
        )
