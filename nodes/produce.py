"""Files of events as the stream that they once were: merged in the order in which they arrive, and paced.

Each file keeps its own order, as a partition does: an event that is late in its file stays late. Files are merged by
the largest plausible event time that each has reached.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from contracts.errors import ContractError
from nodes.lines import Block, read_lines

_TIME = r'("event_time_ms"[ \t\r]*:[ \t\r]*)(-?\d{1,18})([^\d.eE]|$)'
_KEY = r'"impression_id"[ \t\r]*:[ \t\r]*"((?:[^"\\]|\\.)*)"'
#: One row a line, in order of arrival.
ARRIVALS = {
    "file": pl.UInt32(),  # index in the files given
    "line": pl.Binary(),
    "key": pl.String(),  # the impression id as it is written; null where the line has none
    "event_time_ms": pl.Int64(),  # null where the line has none
    "arrival_ms": pl.Int64(),  # largest plausible event time in its file up to here; never falls
}


@dataclass(frozen=True, slots=True)
class EventFile:
    """Newline-delimited JSON of one stream."""

    stream: str
    path: Path


def arrivals(
    files: Sequence[EventFile],
    *,
    time_min_ms: int,
    time_max_ms: int,
    max_line_bytes: int,
    block_lines: int = 8192,
) -> Iterator[pl.DataFrame]:
    """All lines of all files in order of arrival, some thousands at a time; ties in the order of the files.

    Lines that are no JSON, or have no time, come next to their neighbours in the file.

    Args:
        files: each read once, in bounded memory.
        time_min_ms: an earlier event time moves nothing.
        time_max_ms: nor does a later one.
        max_line_bytes: a longer line is refused.
        block_lines: lines of a file that are held at a time.

    Yields:
        Frames of ARRIVALS.

    Raises:
        ContractError: a file cannot be read, or a line is too long to be a message.
    """
    open_blocks = [
        _arriving(index, file.path, time_min_ms, time_max_ms, max_line_bytes, block_lines)
        for index, file in enumerate(files)
    ]
    held: list[pl.DataFrame | None] = [next(blocks, None) for blocks in open_blocks]
    while reached := [int(frame["arrival_ms"][-1]) for frame in held if frame is not None]:
        until = min(reached)  # further than that, another file may still come between
        due: list[pl.DataFrame] = []
        for index, frame in enumerate(held):
            if frame is None:
                continue
            cut = int(frame["arrival_ms"].search_sorted(until, side="right"))
            due.append(frame.head(cut))
            left = frame.slice(cut)
            held[index] = left if left.height else next(open_blocks[index], None)
        yield pl.concat(due).sort("arrival_ms", maintain_order=True)


def _arriving(
    index: int, path: Path, time_min_ms: int, time_max_ms: int, max_line_bytes: int, block_lines: int
) -> Iterator[pl.DataFrame]:
    """The lines of one file with the time that each arrives at."""
    clock_ms = time_min_ms
    for block in read_lines(path, max_lines=block_lines, max_line_bytes=max_line_bytes):
        _refuse_long_lines(path, block, max_line_bytes)
        time = pl.col("event_time_ms")
        plausible = pl.when(time.is_between(time_min_ms, time_max_ms)).then(time).cum_max()
        frame = parse(block.lines).with_columns(
            file=pl.lit(index, pl.UInt32),
            # what comes before the first time of a file arrives with it
            arrival_ms=pl.max_horizontal(
                plausible.fill_null(strategy="forward").fill_null(strategy="backward").fill_null(clock_ms),
                pl.lit(clock_ms, pl.Int64),
            ),
        )
        clock_ms = int(frame["arrival_ms"][-1])
        yield frame.select(list(ARRIVALS))


def _refuse_long_lines(path: Path, block: Block, max_line_bytes: int) -> None:
    for index, size in block.whole_bytes.items():
        raise ContractError(
            f"{path}: line {block.first_line + index + 1} has {size:,} bytes, and a message holds {max_line_bytes:,}; "
            "take the line out, or raise kafka.max_message_bytes"
        )


def parse(lines: Sequence[bytes]) -> pl.DataFrame:
    r"""What replaying needs to know of each line: its key and its event time, found without decoding the JSON.

    >>> parse([b'{"impression_id":"i", "event_time_ms": 7}', b"no JSON \xff"]).select("key", "event_time_ms").rows()
    [('i', 7), (None, None)]
    """
    text = pl.Series("text", _readable(lines), pl.Binary).cast(pl.String)
    return pl.DataFrame({"line": pl.Series(lines, dtype=pl.Binary), "text": text}).select(
        "line",
        key=pl.col("text").str.extract(_KEY, 1),
        event_time_ms=pl.col("text").str.extract(_TIME, 2).cast(pl.Int64, strict=False),
    )


def shifted(lines: Sequence[bytes], delta_ms: int) -> list[bytes]:
    """The same lines with their event times moved; all other bytes stay, and so do lines without a time.

    Args:
        lines: NDJSON, without newlines.
        delta_ms: added to each event time.

    >>> shifted([b'{"event_time_ms": 7, "a": "x"}', b"no JSON"], 1000)
    [b'{"event_time_ms": 1007, "a": "x"}', b'no JSON']
    """
    readable = _readable(lines)
    moved = (
        pl.DataFrame({"text": pl.Series(readable, dtype=pl.Binary).cast(pl.String)})
        .select(
            text=pl.col("text"), to=(pl.col("text").str.extract(_TIME, 2).cast(pl.Int64) + delta_ms).cast(pl.String)
        )
        .select(
            text=pl.when(pl.col("to").is_not_null()).then(
                pl.col("text").str.replace(_TIME, pl.lit("${1}") + pl.col("to") + pl.lit("${3}"))
            )
        )["text"]
        .cast(pl.Binary)
        .to_list()
    )
    return [line if new is None else new for line, new in zip(lines, moved, strict=True)]


def _readable(lines: Sequence[bytes]) -> list[bytes]:
    """The lines, with those that are not UTF-8 emptied."""
    try:
        b"\n".join(lines).decode()
    except UnicodeDecodeError:
        return [line if _is_utf8(line) else b"" for line in lines]
    return list(lines)


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


class Pacer:
    """Says when events are due: the first one now, the others as far behind it as they once were, or faster.

    >>> from nodes.fakes import ManualClock
    >>> clock = ManualClock(50)
    >>> pacer = Pacer(60, clock)
    >>> pacer.reached_ms(1_000_000)
    1000000
    >>> clock.advance(10)
    >>> pacer.reached_ms(1_000_000), pacer.wait_ms(1_001_200)
    (1000600, 10)
    """

    def __init__(self, speed: float | None, clock_ms: Callable[[], int]) -> None:
        """`speed`: event seconds a second, None for no pace at all; `clock_ms`: monotonic, any origin."""
        self._speed, self._clock_ms = speed, clock_ms
        self._began: tuple[int, int] | None = None  # clock, event time

    def reached_ms(self, next_ms: int) -> int:
        """The event time up to which events are due now; the first call decides what is due at once: `next_ms`."""
        if self._speed is None:
            return _NEVER_MS
        now_ms = self._clock_ms()
        if self._began is None:
            self._began = now_ms, next_ms
        began_ms, first_ms = self._began
        return first_ms + int((now_ms - began_ms) * self._speed)

    def wait_ms(self, until_ms: int) -> int:
        """Milliseconds by the clock until `until_ms` is due; 0 if it is."""
        if self._speed is None:
            return 0
        return max(0, -int((self.reached_ms(until_ms) - until_ms) // self._speed))


_NEVER_MS = 2**62
