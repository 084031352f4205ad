"""The join in Beam: `nodes.join.Joiner`, one a shard of impression ids, its events kept as Arrow chunks."""

import struct
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
import polars as pl
from apache_beam.metrics.metric import Metrics
from apache_beam.pvalue import PCollection, TaggedOutput
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import TimerSpec, on_timer
from apache_beam.typehints import KV
from apache_beam.utils.timestamp import Timestamp

from contracts.app import App
from contracts.buckets import hash_expr
from contracts.positions import Position
from nodes.chunks import Chunk, ChunkCoder
from nodes.coders import from_bytes, to_bytes
from nodes.join import Joiner, Settled
from nodes.journaled import JOURNAL, SNAPSHOT, TOKEN, Held, Journaled
from nodes.log_tail import replay_from_ms
from nodes.slots import Slots

#: The stream of a chunk that tells what was accepted before events are read again: columns `id`, `event_time_ms`.
ACCEPTED = "accepted"
_CODER = ChunkCoder()
_TIME = struct.Struct("<q")
_ADD, _SETTLE = b"a", b"s"
_LATE = "late"


class _Shard(beam.DoFn):
    """Cuts a chunk by the hash of the impression id, so that an impression and its clicks meet.

    Live, what needs no shard has its fate at once: what its origin calls late, and after a restart what comes for the
    first time although the slot of its time was over before.
    """

    def __init__(self, app: App, *, live: bool, position: Position | None = None) -> None:
        self._app, self._shards, self._live, self._position = app, app.config.ingest.shards, live, position
        self._id = {"impressions": app.impressions.role("impression_id"), "clicks": app.clicks.role("impression_id")}
        self._id[ACCEPTED] = "id"
        self._at = {"impressions": app.impressions.role("event_time"), "clicks": app.clicks.role("event_time")}

    def process(self, chunk: Chunk) -> Iterator[Any]:
        rows = chunk.frame
        if self._live and chunk.stream != ACCEPTED:
            late, rows = self._judged(chunk)
            for settled in (late_fates(late, chunk.stream, self._app, self._position),) if late.height else ():
                yield from (TaggedOutput(_LATE, part) for part in _counted(settled))
        shard = hash_expr(pl.col(self._id[chunk.stream])) % pl.lit(self._shards, pl.UInt64)
        for (key, *_), part in rows.group_by(shard.alias("_shard")):
            yield int(key), _CODER.encode(Chunk(chunk.stream, part.select(rows.columns)))

    def _judged(self, chunk: Chunk) -> tuple[pl.DataFrame, pl.DataFrame]:
        """The rows that are late, and those that are to be joined."""
        rows, position = chunk.frame, self._position
        late, joined = pl.col("_late"), ~pl.col("_late")
        if position is not None:
            at = pl.col(self._at[chunk.stream])
            reached = pl.col("_origin").replace_strict(position.reached, default=2**62, return_dtype=pl.Int64)
            new = pl.col("_line") >= reached
            over = new & (at < position.slot_ms_end)
            decided = ~new & (at < replay_from_ms(self._app, position.slot_ms_end))
            late, joined = late | over, joined & ~over & ~decided
        return rows.filter(late), rows.filter(joined)


def late_fates(rows: pl.DataFrame, stream: str, app: App, position: Position | None = None) -> Settled:
    """The fates of rows that are late, by their origin's judgement or because `position` lies behind them."""
    joiner = Joiner(app)
    if position is not None:
        joiner.settle(position.slot_ms_end - 1)
    joiner.add(*((rows, None) if stream == "impressions" else (None, rows)))
    return joiner.settle(None)


class _SettleAll(beam.DoFn):
    """Joins a shard of bounded input at once."""

    def __init__(self, app: App) -> None:
        self._app = app

    def process(self, keyed: tuple[int, Iterable[bytes]]) -> Iterator[Settled]:
        joiner = Joiner(self._app)
        _add(joiner, [_CODER.decode(chunk) for chunk in keyed[1]])
        yield from _counted(joiner.settle(None))


class ShardCore:
    """A `Joiner` as the core of a journal: entries are chunks, and the times up to which it settles.

    Chunks are kept as they come, and added together when it settles.
    """

    def __init__(self, app: App) -> None:
        self.joiner = Joiner(app)
        self._chunks: list[Chunk] = []
        self._times = {"impressions": app.impressions.role("event_time"), "clicks": app.clicks.role("event_time")}
        self._next_ms: int | None = None  # the first time at which something may be decided
        self.armed_ms: int | None = None  # of the timer that is set, as far as this process knows

    def apply(self, entry: bytes) -> Settled | None:
        """Add a chunk, or settle."""
        if entry[:1] == _SETTLE:
            _add(self.joiner, self._chunks)
            self._chunks = []
            settled = self.joiner.settle(_TIME.unpack_from(entry, 1)[0])
            self._next_ms = self.joiner.next_ms
            return settled
        chunk = _CODER.decode(entry[1:])
        if chunk.stream == ACCEPTED:
            self.joiner.prime(chunk.frame["id"], chunk.frame["event_time_ms"])
        elif chunk.frame.height:
            self._chunks.append(chunk)
            at_ms = int(chunk.frame[self._times[chunk.stream]].min())  # type: ignore[arg-type]
            self._next_ms = at_ms if self._next_ms is None else min(at_ms, self._next_ms)
        return None

    def next_slot_ms(self, slots: Slots) -> int | None:
        """The end of the first slot in which something may be decided, or the last of what is remembered forgotten."""
        due_ms = self._next_ms if self._next_ms is not None else self.joiner.forgets_ms
        return None if due_ms is None else slots.end(due_ms)

    def snapshot(self) -> dict[str, bytes]:
        """The joiner's frames, and the chunks that it has not seen."""
        frames = {name: to_bytes(frame) for name, frame in self.joiner.state().items()}
        return frames | {f"chunk {n:09d}": _CODER.encode(chunk) for n, chunk in enumerate(self._chunks)}

    def restore(self, parts: dict[str, bytes]) -> None:
        """Go on from a snapshot."""
        chunks = [name for name in sorted(parts) if name.startswith("chunk ")]
        self.joiner.restore({name: from_bytes(parts[name]) for name in parts if name not in chunks})
        self._next_ms = self.joiner.next_ms
        for name in chunks:
            self.apply(_ADD + parts[name])


class _MakeShard:
    """Makes empty cores where the node runs."""

    def __init__(self, app: App) -> None:
        self._app = app

    def __call__(self) -> ShardCore:
        return ShardCore(self._app)


class _SettleSlots(beam.DoFn):
    """Settles a shard whenever the watermark passes the end of a slot in which something may be decided."""

    DUE = TimerSpec("due", TimeDomain.WATERMARK)

    def __init__(self, app: App, slots: Slots) -> None:
        self._slots, self._shards = slots, Journaled(_MakeShard(app))

    def process(
        self,
        keyed: tuple[int, bytes],
        snapshot: Any = beam.DoFn.StateParam(SNAPSHOT),
        journal: Any = beam.DoFn.StateParam(JOURNAL),
        token: Any = beam.DoFn.StateParam(TOKEN),
        due: Any = beam.DoFn.TimerParam(DUE),
    ) -> Iterator[Settled]:
        with self._shards.open(keyed[0], snapshot, journal, token) as held:
            held.apply(_ADD + keyed[1])
            self._arm(held, due)
        yield from ()

    @on_timer(DUE)
    def settle_slot(
        self,
        key: Any = beam.DoFn.KeyParam,
        at: Any = beam.DoFn.TimestampParam,
        snapshot: Any = beam.DoFn.StateParam(SNAPSHOT),
        journal: Any = beam.DoFn.StateParam(JOURNAL),
        token: Any = beam.DoFn.StateParam(TOKEN),
        due: Any = beam.DoFn.TimerParam(DUE),
    ) -> Iterator[Settled]:
        with self._shards.open(key, snapshot, journal, token) as held:
            held.core.armed_ms = None
            # The watermark stands at the slot's end: its last millisecond is over, the next one is not.
            settled = held.apply(_SETTLE + _TIME.pack(at.micros // 1000 - 1))
            self._arm(held, due)
        yield from _counted(settled)

    def _arm(self, held: Held[ShardCore], due: Any) -> None:
        wanted = held.core.next_slot_ms(self._slots)
        if wanted is not None and wanted != held.core.armed_ms:
            due.set(Timestamp(micros=wanted * 1000))
            held.core.armed_ms = wanted


def _add(joiner: Joiner, chunks: list[Chunk]) -> None:
    impressions = [chunk.frame for chunk in chunks if chunk.stream == "impressions"]
    clicks = [chunk.frame for chunk in chunks if chunk.stream == "clicks"]
    joiner.add(pl.concat(impressions) if impressions else None, pl.concat(clicks) if clicks else None)


def _counted(settled: Settled) -> Iterator[Settled]:
    for stream, fate, rows in settled.fates.group_by("stream", "fate").len().iter_rows():
        Metrics.counter("rocket", f"ctr_join_{stream}_{fate}_total").inc(rows)
    if settled.fates.height or settled.examples.height:
        yield settled


class JoinClicks(beam.PTransform[PCollection[Chunk], PCollection[Settled]]):
    """Give each impression the label of its click; an impression waits `labels.wait_s` of event time for it.

    Bounded input is grouped by shard and settled once. With `slots` it is settled whenever the watermark passes
    the end of one in which something is due; a chunk's timestamp is then its smallest event time that is not late, and
    what comes out carries the slot's end. A slot costs what happens in it, not what is remembered. State, a shard, in
    memory and behind it in Beam's: the chunks of one wait, and ids and times of one dedupe span. The cuts change
    nothing but which rows come out together.

    The bounded form sets no timer, because FnApiRunner loses timers of fused pipelines for some hash seeds.
    """

    def __init__(self, app: App, slots: Slots | None = None, position: Position | None = None) -> None:
        """Settle in slots, or bounded input at once.

        Args:
            app: its `labels` and `ingest` sections.
            slots: in which event time passes.
            position: where it goes on after a restart. Events that it does not need again are passed over; what they
                left behind comes as chunks of the stream `ACCEPTED`. An event that was not yet read there, though
                the slot of its time was over, is late.
        """
        super().__init__()
        self._app, self._slots, self._position = app, slots, position

    def expand(self, events: PCollection[Chunk]) -> PCollection[Settled]:
        if self._slots is None:
            sharded = events | "Shard by impression" >> beam.ParDo(_Shard(self._app, live=False))
            return sharded | "Gather shards" >> beam.GroupByKey() | "Settle shards" >> beam.ParDo(_SettleAll(self._app))
        shards = events | "Shard by impression" >> beam.ParDo(
            _Shard(self._app, live=True, position=self._position)
        ).with_outputs(_LATE, main="shards")
        late: PCollection[Settled] = shards[_LATE]
        late.element_type, shards.shards.element_type = Settled, KV[int, bytes]
        settled = shards.shards | "Settle slots" >> beam.ParDo(_SettleSlots(self._app, self._slots))
        return (settled, late) | "Settled and late" >> beam.Flatten()
