"""The tail of following topics, free of Beam: what the slots settled becomes the example log, fates and positions.

Nothing here looks at arrival or at a clock. So going on from any position gives the same log: what was decided up to
its slot is dropped, what comes after is decided anew from the same events.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl

from contracts.app import App
from contracts.errors import CorruptError
from contracts.events import DEAD_LETTERS, FATES, Fate, Mark
from contracts.positions import Basis, Position
from contracts.segments import ORDER, FeatureBatch
from nodes.coders import from_bytes, to_bytes
from nodes.fates import dead_fates
from nodes.join import Joiner
from nodes.log_features import LogFeatures
from nodes.order import LogOrder
from nodes.positions import ResumeMarks
from nodes.slots import Slots

_NEVER = -(2**62)
_MARKS = {"origin": pl.String(), "offset": pl.Int64(), "newest_ms": pl.Int64()}


def replay_from_ms(app: App, slot_ms_end: int) -> int:
    """The event time before which nothing is needed again, to go on behind the slots up to `slot_ms_end`.

    A row to come has its place in the log at or after `slot_ms_end` - `settle_after_ms`; in the mode `wait` that is its
    impression's time, in others the impression may be `remember_ms` older. Its clicks may be stamped
    `disorder_ms` before the impression.
    """
    joiner = Joiner(app)
    remembered_ms = 0 if app.config.labels.mode == "wait" else joiner.remember_ms
    return slot_ms_end - joiner.settle_after_ms - remembered_ms - joiner.disorder_ms


@dataclass(frozen=True, slots=True)
class Unwritten:
    """What a position needs to find written."""

    fates: pl.DataFrame  #: FATES rows; one event may have the same row twice
    dead: pl.DataFrame  #: DEAD_LETTERS rows


class LogTail:
    """Puts settled rows into log order slot by slot, numbers them and adds their streaming features.

    State: the rows, fates and marks that came and are not yet done with, and that of the streaming features.
    """

    def __init__(self, app: App, basis: Basis, slots: Slots, position: Position | None = None) -> None:
        """Begin at `position`, or at row 0.

        Args:
            app: whose rows they are.
            basis: what decides rows, to be written with each position.
            slots: the join's.
            position: its `slot_ms_end` is the end of a slot; else what it decided would be decided anew.
        """
        if position is not None and slots.last_end(position.slot_ms_end) != position.slot_ms_end:
            raise ValueError(f"no slot ends at {position.slot_ms_end}, where the position's does: {slots}")
        self._basis, self.slots = basis, slots
        self._lag_ms = Joiner(app).settle_after_ms  # from a row's place in the log to the slot that settles it
        self._replay_ms = -replay_from_ms(app, 0)
        ingest = app.config.ingest
        self._part_rows = ingest.segment_rows * max(1, ingest.chunk_rows // ingest.segment_rows)
        self._decided_ms = position.slot_ms_end if position else _NEVER  # fates of slots up to it are written
        self.slot_ms_end = self._decided_ms  #: all slots up to it are done with
        self._last = position.last if position else None
        self._features = LogFeatures(app, position.row if position else 0, position.state if position else None)
        self._order = LogOrder(list(ORDER), self._features.next_row)
        self._marks = ResumeMarks(slots.fine_ms, position.resume if position else None)
        self._reached = dict(position.reached) if position else {}  # what was read when the last slot ended
        self._reaching: list[tuple[int, str, int]] = []  # time, origin and offset of marks of later slots
        self._due: set[int] = set()  # ends of slots in which something came
        self._fates: list[pl.DataFrame] = []
        self._dead: list[pl.DataFrame] = []
        self.positioned_ms = self.slot_ms_end  #: the slot of the last position

    def take(self, kind: str, frame: pl.DataFrame, at_ms: int) -> None:
        """Take what came at a moment of event time.

        Args:
            kind: rows (featurised, settled in the slot that ends at `at_ms`), fates (decided in it, or
                late when read), dead (DEAD_LETTERS), marks (`Mark` columns).
            frame: what of it.
            at_ms: its Beam timestamp.

        Raises:
            CorruptError: rows that belong before others that were released.
        """
        if kind == "marks":
            marks = [Mark(*row) for row in frame.select(*_MARKS).iter_rows()]
            self._marks.add(marks)
            self._reaching += [(at_ms, mark.origin, mark.offset) for mark in marks]
            return
        if kind == "rows":
            frame = frame.filter(pl.col(ORDER[0]) > self._due_ms(self._decided_ms))
            if frame.height and frame[ORDER[0]].min() <= self._due_ms(self.slot_ms_end):  # type: ignore[operator]
                raise CorruptError(
                    f"the example log: rows of slot {at_ms} came after slot {self.slot_ms_end} was written; start "
                    "again from the last position, and report this"
                )
            self._order.add(frame)
        elif kind == "fates":
            # What is late was so when it was read: such fates come again, unchanged, or for the first time.
            own = (pl.col("fate") == Fate.LATE.value) & pl.col("reason").is_in(["behind_disorder", "behind_watermark"])
            frame = frame if at_ms > self._decided_ms else frame.filter(own)
            self._fates.append(frame)
        else:
            self._dead.append(frame)
            self._fates.append(dead_fates(frame))
        if frame.height:
            self._due.add(max(self.slots.end(at_ms - 1), self.slot_ms_end, 0))

    def release(self, slot_ms_end: int) -> Iterator[FeatureBatch]:
        """The rows that the slots up to this one settled, in log order; all that they decided has come.

        Must be taken to its end before anything else comes.
        """
        self.slot_ms_end = max(slot_ms_end, self.slot_ms_end)
        self._due = {end for end in self._due if end > self.slot_ms_end}
        for at_ms, origin, offset in self._reaching:
            if at_ms <= self.slot_ms_end:
                self._reached[origin] = max(offset, self._reached.get(origin, 0))
        self._reaching = [mark for mark in self._reaching if mark[0] > self.slot_ms_end]
        for _, rows in self._order.release(self._due_ms(self.slot_ms_end), self._part_rows):
            self._last = rows.select(pl.last(*ORDER[:2])).row(0)
            yield from self._features.push(rows)

    @property
    def next_slot_ms(self) -> int | None:
        """The end of the first slot in which something came that `release` has not seen."""
        return min(self._due, default=None)

    @property
    def rows(self) -> int:
        """The number of the next row."""
        return self._features.next_row

    @property
    def dirty(self) -> bool:
        """Something was decided that no position covers."""
        return bool(self._fates or self._dead or self.slot_ms_end != self.positioned_ms)

    @property
    def unwritten(self) -> Unwritten:
        """Fates and dead letters since the last `written`."""
        return Unwritten(
            pl.concat([pl.DataFrame(schema=FATES), *self._fates]),
            pl.concat([pl.DataFrame(schema=DEAD_LETTERS), *self._dead]),
        )

    def position(self) -> Position:
        """Where it stands now; to be written after what is `unwritten`."""
        resume = self._marks.before(self.slot_ms_end - self._replay_ms)
        state = self._features.state()
        return Position(self.rows, self.slot_ms_end, self._last, resume, dict(self._reached), self._basis, state)

    def written(self) -> None:
        """All fates and dead letters that came so far are on the disk, and a position, if there shall be any."""
        self._fates.clear()
        self._dead.clear()
        self.positioned_ms = self.slot_ms_end

    def _due_ms(self, slot_ms_end: int) -> int:
        """The last place in the log that the slots up to this one settle."""
        return slot_ms_end - 1 - self._lag_ms

    def snapshot(self) -> dict[str, bytes]:
        """Everything that it remembers, to be given to `restore` of one made alike."""
        told = {
            "decided_ms": self._decided_ms,
            "slot_ms_end": self.slot_ms_end,
            "positioned_ms": self.positioned_ms,
            "row": self.rows,
            "last": self._last,
            "reached": self._reached,
            "reaching": self._reaching,
            "slots": sorted(self._due),
        }
        marks = pl.DataFrame(self._marks.all(), schema=_MARKS, orient="row")
        left, held = self.unwritten, self._order.held()
        parts = {"told": json.dumps(told).encode(), "marks": to_bytes(marks), "features": self._features.state()}
        parts |= {"fates": to_bytes(left.fates), "dead": to_bytes(left.dead)}
        return parts if held is None else parts | {"held": to_bytes(held)}

    def restore(self, app: App, parts: dict[str, bytes]) -> None:
        """Go on from a snapshot."""
        told = json.loads(parts["told"])
        self._decided_ms, self.slot_ms_end = told["decided_ms"], told["slot_ms_end"]
        self.positioned_ms, self._due = told["positioned_ms"], set(told["slots"])
        self._reached = told["reached"]
        self._reaching = [(at_ms, origin, offset) for at_ms, origin, offset in told["reaching"]]
        self._last = None if told["last"] is None else (told["last"][0], told["last"][1])
        self._features = LogFeatures(app, told["row"], parts["features"])
        self._order = LogOrder(list(ORDER), told["row"])
        if "held" in parts:
            self._order.add(from_bytes(parts["held"]))
        self._marks = ResumeMarks(self.slots.fine_ms)
        self._marks.add(Mark(*row) for row in from_bytes(parts["marks"]).iter_rows())
        self._fates, self._dead = [from_bytes(parts["fates"])], [from_bytes(parts["dead"])]
        self._fates = [frame for frame in self._fates if frame.height]
        self._dead = [frame for frame in self._dead if frame.height]
