"""The tail of following topics in Beam: one key, behind which everything comes together and goes on in log order."""

import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import apache_beam as beam
import polars as pl
from apache_beam.metrics.metric import Metrics
from apache_beam.pvalue import PCollection
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import TimerSpec, on_timer
from apache_beam.utils.timestamp import Timestamp

from contracts.app import App
from contracts.events import Mark
from contracts.positions import Basis, Position
from contracts.segments import FeatureBatch
from nodes import log_progress
from nodes.chunks import Chunk, ChunkCoder
from nodes.journaled import JOURNAL, SNAPSHOT, TOKEN, Held, Journaled
from nodes.log_tail import LogTail
from nodes.positions import position_file, read_position, write_position
from nodes.slots import Slots, slots_of
from nodes.write import write_part

_CODER = ChunkCoder()
_TIME = struct.Struct("<q")
_TAKE, _RELEASE, _WRITTEN = b"t", b"r", b"w"
_POSITION_SHARE = 0.1  # of the time may go into positions, however large their state


def gather(
    rows: PCollection[pl.DataFrame],
    fates: PCollection[pl.DataFrame],
    dead: PCollection[pl.DataFrame],
    marks: PCollection[Mark] | None,
) -> PCollection[Chunk]:
    """Everything that `FollowLog` needs as chunks of one kind each.

    Args:
        rows: what `Featurize` gives.
        fates: those that the settled rows came with.
        dead: DEAD_LETTERS of the source.
        marks: of the source; None where nobody will resume.
    """
    ways = [
        rows | "Name rows" >> beam.Map(_named, "rows").with_output_types(Chunk),
        fates | "Name fates" >> beam.Map(_named, "fates").with_output_types(Chunk),
        dead | "Name dead letters" >> beam.Map(_named, "dead").with_output_types(Chunk),
    ]
    if marks is not None:
        ways.append(marks | "Name marks" >> beam.Map(_marked).with_output_types(Chunk))
    return ways | "All ways" >> beam.Flatten()


def _named(frame: pl.DataFrame, kind: str) -> Chunk:
    return Chunk(kind, frame)


def _marked(mark: Mark) -> Chunk:
    return Chunk("marks", pl.DataFrame([mark], schema=list(Mark._fields), orient="row"))


def _to_one(chunk: Chunk) -> tuple[int, bytes]:
    return 0, _CODER.encode(chunk)


class _Tail:
    """A `LogTail` as the core of a journal: entries are a kind, a time, and a chunk's bytes."""

    def __init__(self, app: App, basis: Basis, slots: Slots, position: Position | None) -> None:
        self._app = app
        self.tail = LogTail(app, basis, slots, position)
        self.armed_ms: int | None = None  # of the timer that is set, as far as this process knows
        self.wrote_s: tuple[float, float] | None = None  # when positions were last written, and how long it took
        self.arrived = False  # something came since the last release

    def apply(self, entry: bytes) -> list[FeatureBatch]:
        kind, at_ms = entry[:1], _TIME.unpack_from(entry, 1)[0]
        if kind == _TAKE:
            chunk = _CODER.decode(entry[1 + _TIME.size :])
            self.tail.take(chunk.stream, chunk.frame, at_ms)
            self.arrived = True
        elif kind == _RELEASE:
            return list(self.tail.release(at_ms))
        else:
            self.tail.written()
        return []

    def snapshot(self) -> dict[str, bytes]:
        return self.tail.snapshot()

    def restore(self, parts: dict[str, bytes]) -> None:
        self.tail.restore(self._app, parts)


class _MakeTail:
    """Makes tails where the node runs; a position travels as its file's name, for its state may be large."""

    def __init__(self, app: App, basis: Basis, slots: Slots, position: str | None) -> None:
        self._app, self._basis, self._slots, self._position = app, basis, slots, position

    def __call__(self) -> _Tail:
        position = None if self._position is None else read_position(Path(self._position))
        return _Tail(self._app, self._basis, self._slots, position)


class _Follow(beam.DoFn):
    DUE = TimerSpec("due", TimeDomain.WATERMARK)

    def __init__(
        self, tails: Journaled[_Tail], folder: str, every_s: float, run_id: str, *, positions: bool, clock: Any
    ) -> None:
        self._tails, self._folder, self._run_id = tails, folder, run_id
        self._every_s, self._positions, self._clock = every_s, positions, clock

    def process(
        self,
        keyed: tuple[int, bytes],
        at: Any = beam.DoFn.TimestampParam,
        snapshot: Any = beam.DoFn.StateParam(SNAPSHOT),
        journal: Any = beam.DoFn.StateParam(JOURNAL),
        token: Any = beam.DoFn.StateParam(TOKEN),
        due: Any = beam.DoFn.TimerParam(DUE),
    ) -> Iterator[FeatureBatch]:
        with self._tails.open(keyed[0], snapshot, journal, token) as held:
            held.apply(_TAKE + _TIME.pack(at.micros // 1000) + keyed[1])
            self._arm(held, due)
        yield from ()

    @on_timer(DUE)
    def release(
        self,
        key: Any = beam.DoFn.KeyParam,
        at: Any = beam.DoFn.TimestampParam,
        snapshot: Any = beam.DoFn.StateParam(SNAPSHOT),
        journal: Any = beam.DoFn.StateParam(JOURNAL),
        token: Any = beam.DoFn.StateParam(TOKEN),
        due: Any = beam.DoFn.TimerParam(DUE),
    ) -> Iterator[FeatureBatch]:
        with self._tails.open(key, snapshot, journal, token) as held:
            core = held.core
            core.armed_ms = None
            # The timer stands a millisecond after a slot's end, behind all that the join gives at that end.
            slot_ms_end = core.tail.slots.last_end(at.micros // 1000 - 1)
            batches = held.apply(_RELEASE + _TIME.pack(slot_ms_end))
            if self._is_time(core):
                self._write(core)
                held.apply(_WRITTEN + _TIME.pack(slot_ms_end))
            core.arrived = False
            self._arm(held, due)
        log_progress.set(self._run_id, slot_ms_end)
        for batch in batches:
            Metrics.counter("rocket", "ctr_follow_rows_total").inc(batch.frame.height)
            yield batch

    def _is_time(self, core: _Tail) -> bool:
        """Every `position_every_s`, seldom enough for large states, and at once where nothing comes any more."""
        if not core.tail.dirty:
            return False
        if core.wrote_s is None:
            core.wrote_s = self._clock(), 0.0
        at_s, took_s = core.wrote_s
        return not core.arrived or self._clock() - at_s >= max(self._every_s, took_s / _POSITION_SHARE)

    def _write(self, core: _Tail) -> None:
        begun_s, folder = self._clock(), Path(self._folder)
        left = core.tail.unwritten
        newest_ms = left.fates.select(pl.col("event_time_ms").max().fill_null(0)).item()
        # The name tells the newest event time in it: who looks for late times need not open the others.
        write_part(folder / "fates", left.fates, f"part-{newest_ms:015d}")
        write_part(folder / "dead_letters", left.dead)
        if self._positions:
            write_position(folder / "positions", core.tail.position())
            Metrics.counter("rocket", "ctr_follow_positions_total").inc()
        core.wrote_s = self._clock(), self._clock() - begun_s

    def _arm(self, held: Held[_Tail], due: Any) -> None:
        """Set the timer for the next slot in which something came; or later, to write what is left to be written."""
        tail = held.core.tail
        wanted = tail.next_slot_ms
        if wanted is None and tail.dirty:
            wanted = tail.slots.end(tail.slot_ms_end + round(self._every_s * 1000) - 1)
        if wanted is not None and wanted != held.core.armed_ms:
            due.set(Timestamp(micros=(wanted + 1) * 1000))
            held.core.armed_ms = wanted


class FollowLog(beam.PTransform[PCollection[Chunk], PCollection[FeatureBatch]]):
    """Turn what live ingest decides (`gather`) into the example log: batches in order, numbered, one writer.

    Fates and dead letters go to `folder`/fates and `folder`/dead_letters as Parquet parts, and after them, every
    `live.position_every_s`, a position to `folder`/positions. Parts may hold an event's row twice after a restart:
    read them by `nodes.ledger.read_fates`.

    State, in one worker's memory and behind it in Beam's: the rows between two slots and that of the streaming
    features. Time moves by slots, the same as the join's.
    """

    def __init__(
        self,
        app: App,
        folder: Path,
        position: Position | None,
        *,
        basis: Basis,
        run_id: str = "",
        slots: Slots | None = None,
        positions: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Go on from `position`, or begin at row 0.

        Args:
            app: whose rows they are; its `live` section gives slot and interval.
            folder: of the run; the log itself is written by whoever takes the batches.
            position: what `nodes.positions.newest` found in `folder`/positions.
            basis: what `nodes.positions.basis_of` gives.
            run_id: what `nodes.log_progress` tells the progress under.
            slots: in which event time passes; None: of `live.slot_s`.
            positions: False where the input ends: an end settles what a longer input would have let wait.
            clock: seconds that never go back.
        """
        super().__init__()
        #: What `JoinClicks` is given; its state, which may be large, stays on the disk.
        self.position = None if position is None else replace(position, state=b"")
        slots = slots or slots_of(app)
        #: Those of the join too.
        self.slots = slots if position is None else replace(slots, since_ms=position.slot_ms_end)
        self._every_s = app.config.live.position_every_s
        at = None if position is None else str(position_file(folder / "positions", position.row))
        # The file is gone after a while: so the first snapshot holds what it gave.
        self._tails = Journaled(_MakeTail(app, basis, self.slots, at), snapshot_first=position is not None)
        self._folder, self._run_id, self._positions, self._clock = str(folder), run_id, positions, clock

    def expand(self, chunks: PCollection[Chunk]) -> PCollection[FeatureBatch]:
        follow = _Follow(
            self._tails, self._folder, self._every_s, self._run_id, positions=self._positions, clock=self._clock
        )
        return chunks | "Key as one" >> beam.Map(_to_one) | "Follow the log" >> beam.ParDo(follow)
