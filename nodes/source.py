"""Events of one file or partition, read once from front to back: decoded, checked, and judged late or not.

Lateness is a property of the log, so it is decided here, before any runner sees a row: an event is late when its time
is more than `ingest.disorder_s` behind the largest plausible event time earlier in its own file or partition.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISDIR

import polars as pl

from contracts.app import App
from contracts.errors import ContractError
from contracts.events import DEAD_LETTERS
from contracts.odcs import DataContract
from contracts.rowcheck import reasons
from nodes.decode import decode
from nodes.lines import read_lines

BEFORE_ALL = -(2**62)  #: no event time seen yet: nothing is late
_TOMBSTONE = {"reason": "no_value", "detail": "the message has no value (a tombstone); send one JSON object a message"}


@dataclass(frozen=True, slots=True)
class Read:
    """What became of up to `ingest.chunk_rows` lines: each is a row of one of the two frames."""

    frame: pl.DataFrame  #: contract columns, then the ORIGIN columns; in line order
    dead: pl.DataFrame  #: DEAD_LETTERS columns; in line order


class EventReader:
    """Turns the lines of one origin, given in order, into checked chunks; how they are cut changes nothing.

    State: the largest plausible event time so far, one integer.
    """

    def __init__(
        self, contract: DataContract, app: App, *, stream: str, origin: str, newest_ms: int = BEFORE_ALL
    ) -> None:
        """Compile the checks.

        Args:
            contract: the stream's.
            app: its `ingest` section gives time bounds, disorder and the largest event.
            stream: "impressions" or "clicks".
            origin: the file or topic:partition, for dead letters and the ledger.
            newest_ms: the largest plausible event time before the first line that it will be given.

        Raises:
            ContractError: the contract has no event_time, or a rule that cannot be compiled.
        """
        self._contract, self._stream, self._origin = contract, stream, origin
        self._ingest = app.config.ingest
        self._disorder_ms = round(self._ingest.disorder_s * 1000)
        self._time = contract.role("event_time")
        if contract.schema_[self._time] != pl.Int64:
            raise ContractError(
                f"{contract.path}: the event_time column '{self._time}' must be int64 (epoch milliseconds)"
            )
        self._min_ms, self._max_ms = self._ingest.event_times_ms
        self._plausible = pl.col(self._time).is_between(self._min_ms, self._max_ms)
        self._reason = pl.when(self._plausible).then(reasons(contract)).otherwise(self._bad_time())
        self.newest_ms = newest_ms  #: the largest plausible event time so far

    def read_records(self, values: Sequence[bytes | None], offsets: Sequence[int]) -> Read:
        """The next records of a partition; offsets grow, with gaps where markers stand or compaction took some away.

        A record without a value (a tombstone) is a dead letter.

        Args:
            values: what the messages hold.
            offsets: where each stands in its partition: the event's line number.
        """
        read = self.read([value or b"" for value in values], first_line=0)
        places = pl.Series(offsets, dtype=pl.Int64)
        frame = read.frame.with_columns(_line=places.gather(read.frame["_line"]))
        dead = read.dead
        if dead.height:
            nothing = [value is None for value in values]
            gone = pl.Series(nothing, dtype=pl.Boolean).gather(dead["line"])
            dead = dead.with_columns(
                places.gather(dead["line"]).alias("line"),
                *(pl.when(gone).then(pl.lit(told)).otherwise(name).alias(name) for name, told in _TOMBSTONE.items()),
            )
        return Read(frame, dead)

    def read(self, lines: Sequence[bytes], *, first_line: int, whole_bytes: Mapping[int, int] | None = None) -> Read:
        """The next lines of the origin.

        Args:
            lines: raw bytes without newline.
            first_line: number of the first of them in the origin, from 0.
            whole_bytes: index in `lines` -> whole length, of lines already cut to more than `max_event_bytes`.
        """
        decoded = decode(
            lines,
            self._contract,
            stream=self._stream,
            origin=self._origin,
            first_line=first_line,
            max_event_bytes=self._ingest.max_event_bytes,
            whole_bytes=whole_bytes,
        )
        newest = pl.when(self._plausible).then(self._time).cum_max().forward_fill()
        newest_yet = pl.max_horizontal(newest, pl.lit(self.newest_ms, pl.Int64))  # itself too: it is not behind itself
        judged = decoded.frame.with_columns(
            (pl.col(self._time) < newest_yet - self._disorder_ms).alias("_late"),
            newest.alias("_newest"),
            self._reason.alias("_reason"),
        )
        if judged.height and (last := judged["_newest"][-1]) is not None:
            self.newest_ms = max(self.newest_ms, last)
        good = judged.filter(pl.col("_reason").is_null()).drop("_newest", "_reason")
        dead = decoded.dead
        if good.height < judged.height:
            dead = pl.concat([dead, self._breaches(judged, lines, first_line)]).sort("line")
        return Read(good, dead)

    def _breaches(self, judged: pl.DataFrame, lines: Sequence[bytes], first_line: int) -> pl.DataFrame:
        bad = judged.filter(pl.col("_reason").is_not_null())
        raw = [lines[line - first_line] for line in bad["_line"]]
        parts = pl.col("_reason").str.splitn(": ", 2).struct
        return bad.select(
            pl.lit(self._stream).alias("stream"),
            pl.col("_origin").alias("origin"),
            pl.col("_line").alias("line"),
            parts.field("field_0").alias("reason"),
            parts.field("field_1").alias("detail"),
            pl.Series("raw", raw, pl.Binary),
            pl.Series("raw_bytes", [len(line) for line in raw], pl.Int64),
        ).select(pl.col(name).cast(dtype) for name, dtype in DEAD_LETTERS.items())

    def _bad_time(self) -> pl.Expr:
        """The reason for a time outside the bounds, with a hint where it looks like another unit."""

        def inside(value: pl.Expr) -> pl.Expr:
            return value.is_between(self._min_ms, self._max_ms)

        time, ingest = pl.col(self._time), self._ingest
        told = (
            f"bad_time: {self._time} must be epoch milliseconds from {ingest.event_time_min:%Y-%m-%d} "
            f"to {ingest.event_time_max:%Y-%m-%d}"
        )
        return (
            pl.when(inside(time // 1000))
            .then(pl.lit(f"{told}; it looks like microseconds: divide by 1000"))
            .when(inside(time // 1_000_000))
            .then(pl.lit(f"{told}; it looks like nanoseconds: divide by 1000000"))
            .when(time.is_between(self._min_ms // 1000, self._max_ms // 1000))
            .then(pl.lit(f"{told}; it looks like seconds: multiply by 1000"))
            .otherwise(pl.lit(told))
        )


def read_events(path: Path, contract: DataContract, app: App, stream: str) -> Iterator[Read]:
    """The events of one file of JSON lines, `ingest.chunk_rows` lines at a time; an empty file gives none.

    Args:
        path: newline-delimited JSON; the last line may lack its newline.
        contract: the stream's.
        app: its `ingest` section.
        stream: "impressions" or "clicks".

    Raises:
        ContractError: there is no such file, or it cannot be read.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise ContractError(f"{path}: no file of {stream} there ({error.strerror}); check the path") from error
    if S_ISDIR(mode):
        raise ContractError(f"{path}: a folder, not a file of {stream}; name the file of JSON lines in it")
    reader = EventReader(contract, app, stream=stream, origin=str(path))
    ingest = app.config.ingest
    return (
        reader.read(block.lines, first_line=block.first_line, whole_bytes=block.whole_bytes)
        for block in read_lines(path, max_lines=ingest.chunk_rows, max_line_bytes=ingest.max_event_bytes)
    )
