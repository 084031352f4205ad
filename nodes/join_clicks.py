"""The join in Beam: `nodes.join.Joiner`, one a shard of impression ids, its events kept as Arrow chunks."""

from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
import polars as pl
from apache_beam.coders import BytesCoder, VarIntCoder
from apache_beam.metrics.metric import Metrics
from apache_beam.pvalue import PCollection
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import BagStateSpec, ReadModifyWriteStateSpec, TimerSpec, on_timer
from apache_beam.utils.timestamp import Timestamp

from contracts.app import App
from contracts.buckets import hash_expr
from nodes.chunks import Chunk, ChunkCoder
from nodes.coders import from_bytes, to_bytes
from nodes.join import Joiner, Settled

_CODER = ChunkCoder()


class _Shard(beam.DoFn):
    """Cuts a chunk by the hash of the impression id, so that an impression and its clicks meet."""

    def __init__(self, app: App) -> None:
        self._shards = app.config.ingest.shards
        self._id = {"impressions": app.impressions.role("impression_id"), "clicks": app.clicks.role("impression_id")}

    def process(self, chunk: Chunk) -> Iterator[tuple[int, bytes]]:
        shard = hash_expr(pl.col(self._id[chunk.stream])) % pl.lit(self._shards, pl.UInt64)
        for (key, *_), rows in chunk.frame.group_by(shard.alias("_shard")):
            yield int(key), _CODER.encode(Chunk(chunk.stream, rows.select(chunk.frame.columns)))


class _SettleAll(beam.DoFn):
    """Joins a shard of bounded input at once."""

    def __init__(self, app: App) -> None:
        self._app = app

    def process(self, keyed: tuple[int, Iterable[bytes]]) -> Iterator[Settled]:
        joiner = Joiner(self._app)
        _add(joiner, keyed[1])
        yield from _counted(joiner.settle(None))


class _SettleSlots(beam.DoFn):
    """Adds up a shard's chunks, and settles whenever the watermark passes the end of a slot."""

    EVENTS = BagStateSpec("events", BytesCoder())  # chunks since the last settle
    REMEMBERED = BagStateSpec("remembered", BytesCoder())  # the Joiner's state, a frame each behind its name
    SLOT = ReadModifyWriteStateSpec("slot", VarIntCoder())  # the slot whose timer is set
    DUE = TimerSpec("due", TimeDomain.WATERMARK)

    def __init__(self, app: App, slot_ms: int) -> None:
        self._app, self._slot_ms = app, slot_ms

    def process(
        self,
        keyed: tuple[int, bytes],
        at: Any = beam.DoFn.TimestampParam,
        events: Any = beam.DoFn.StateParam(EVENTS),
        slot: Any = beam.DoFn.StateParam(SLOT),
        due: Any = beam.DoFn.TimerParam(DUE),
    ) -> Iterator[Settled]:
        events.add(keyed[1])
        if slot.read() is None:
            self._set(at.micros // 1000 // self._slot_ms + 1, slot, due)
        yield from ()

    @on_timer(DUE)
    def settle_slot(
        self,
        events: Any = beam.DoFn.StateParam(EVENTS),
        remembered: Any = beam.DoFn.StateParam(REMEMBERED),
        slot: Any = beam.DoFn.StateParam(SLOT),
        due: Any = beam.DoFn.TimerParam(DUE),
    ) -> Iterator[Settled]:
        joiner = Joiner(self._app)
        state = dict(part.split(b"\n", 1) for part in remembered.read())
        if state:
            joiner.restore({name.decode(): from_bytes(frame) for name, frame in state.items()})
        _add(joiner, events.read())
        # The watermark stands at the slot's end: its last millisecond is over, the next one is not.
        settled = joiner.settle(slot.read() * self._slot_ms - 1)
        events.clear()
        remembered.clear()
        for name, frame in joiner.state().items():
            remembered.add(name.encode() + b"\n" + to_bytes(frame))
        if joiner.idle:
            slot.clear()
        else:
            self._set(slot.read() + 1, slot, due)
        yield from _counted(settled)

    def _set(self, number: int, slot: Any, due: Any) -> None:
        slot.write(number)
        due.set(Timestamp(micros=number * self._slot_ms * 1000))


def _add(joiner: Joiner, encoded: Iterable[bytes]) -> None:
    chunks = [_CODER.decode(chunk) for chunk in encoded]
    impressions = [chunk.frame for chunk in chunks if chunk.stream == "impressions"]
    clicks = [chunk.frame for chunk in chunks if chunk.stream == "clicks"]
    joiner.add(pl.concat(impressions) if impressions else None, pl.concat(clicks) if clicks else None)


def _counted(settled: Settled) -> Iterator[Settled]:
    for stream, fate, rows in settled.fates.group_by("stream", "fate").len().iter_rows():
        Metrics.counter("rocket", f"ctr_join_{stream}_{fate}_total").inc(rows)
    if settled.fates.height:
        yield settled


class JoinClicks(beam.PTransform[PCollection[Chunk], PCollection[Settled]]):
    """Give each impression the label of its click; an impression waits `labels.wait_s` of event time for it.

    Bounded input is grouped by shard and settled once. With `slot_ms` it is settled whenever the watermark passes a
    multiple of it; a chunk's timestamp is then its smallest event time. State, a shard: the chunks of one wait, and ids
    and times of one dedupe span. The cuts change nothing but which rows come out together.

    The bounded form sets no timer, because FnApiRunner loses timers of fused pipelines for some hash seeds.
    """

    def __init__(self, app: App, slot_ms: int | None = None) -> None:
        super().__init__()
        self._app, self._slot_ms = app, slot_ms

    def expand(self, events: PCollection[Chunk]) -> PCollection[Settled]:
        sharded = events | "Shard by impression" >> beam.ParDo(_Shard(self._app))
        if self._slot_ms is not None:
            return sharded | "Settle slots" >> beam.ParDo(_SettleSlots(self._app, self._slot_ms))
        return sharded | "Gather shards" >> beam.GroupByKey() | "Settle shards" >> beam.ParDo(_SettleAll(self._app))
