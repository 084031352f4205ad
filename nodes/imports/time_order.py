"""A log in whatever order comes out in time order: sorted runs on disk, read back window by window."""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import polars as pl

from contracts.events import DEAD_LETTERS
from nodes.imports.delimited import Rows

_BUFFER_BYTES = 64 << 20  # of a run while it is sorted, and of a window
_GROUP_ROWS = 8192  # of a row group: what a window reads more than it needs
_UNIT_MS = 60_000  # windows begin at whole minutes


def in_time_order(
    chunks: Iterable[Rows], folder: Path, *, at: str = "event_time_ms", buffer_bytes: int = _BUFFER_BYTES
) -> Iterator[Rows]:
    """The same rows in ascending order of `at`; rows of one time stay in the order in which they came.

    Memory is a few times `buffer_bytes`, more only where one minute holds more. Dead letters are passed on first.

    Args:
        chunks: all with the same columns.
        folder: for the sorted runs, as much as the log; theirs alone.
        at: epoch milliseconds, without nulls.
        buffer_bytes: of rows in memory.
    """
    runs: list[Path] = []
    minutes: Counter[int] = Counter()
    size, held = 0, list[pl.DataFrame]()

    def spill() -> None:
        runs.append(folder / f"run-{len(runs):06d}.parquet")
        run = pl.concat(held).sort(at, maintain_order=True)
        run.write_parquet(runs[-1], compression="lz4", row_group_size=_GROUP_ROWS, statistics=True)
        held.clear()

    for rows in chunks:
        if rows.dead.height:
            yield Rows(rows.frame.clear(), rows.dead)
        if rows.frame.height:
            held.append(rows.frame)
            minutes.update(dict((rows.frame[at] // _UNIT_MS).value_counts().iter_rows()))
            size += int(rows.frame.estimated_size())
        if sum(frame.estimated_size() for frame in held) >= buffer_bytes:
            spill()
    if held:
        spill()
    if not runs:
        return
    most = max(1, minutes.total() * buffer_bytes // max(size, 1))
    for first, after in _windows(minutes, most):
        inside = pl.col(at).is_between(first * _UNIT_MS, after * _UNIT_MS, closed="left")
        window = pl.concat([pl.scan_parquet(run) for run in runs]).filter(inside).collect()
        yield Rows(window.sort(at, maintain_order=True), pl.DataFrame(schema=DEAD_LETTERS))


def _windows(minutes: Counter[int], most: int) -> Iterator[tuple[int, int]]:
    """Spans of minutes with at most that many rows each, or one minute with more.

    >>> list(_windows(Counter({5: 2, 6: 2, 9: 7, 11: 1}), 4))
    [(5, 7), (9, 10), (11, 12)]
    """
    begin, rows, last = None, 0, 0
    for minute in sorted(minutes):
        if begin is not None and rows + minutes[minute] > most:
            yield begin, last + 1
            begin, rows = None, 0
        begin, rows, last = minute if begin is None else begin, rows + minutes[minute], minute
    if begin is not None:
        yield begin, last + 1
