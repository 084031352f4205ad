"""Following topics without Beam: any cuts, order of delivery, watermark and crash; the cores are the real ones."""

import dataclasses
import random
from dataclasses import dataclass, field

import polars as pl

from contracts.app import App
from contracts.buckets import hash_expr
from contracts.events import FATES, Fate, Mark
from contracts.positions import Position
from contracts.segments import ORDER
from nodes.chunks import Chunk, ChunkCoder
from nodes.featurize import Featurizer
from nodes.featurize_chunks import example_columns
from nodes.join import Joiner, Settled
from nodes.join_clicks import ShardCore, _Shard, late_fates
from nodes.log_features import KEPT, LogFeatures, streaming_columns
from nodes.log_tail import LogTail, replay_from_ms
from nodes.positions import basis_of
from nodes.sample import _Sample
from nodes.slots import Slots
from tests.nodes.join_oracle import Event, frame

NEVER, END = -(2**62), 2**62
_CODER = ChunkCoder()
Topics = dict[str, list[Event]]  # origin -> events; an event's line is its offset


class Stages:
    """The stateless steps between join and tail."""

    def __init__(self, app: App) -> None:
        self._sample, self._featurizer = _Sample(app), Featurizer(app.features)
        self._columns = [*example_columns(app), *(pl.col(name).alias(KEPT + name) for name in streaming_columns(app))]

    def __call__(self, settled: Settled) -> tuple[pl.DataFrame, pl.DataFrame]:
        (sampled,) = self._sample.process(settled)
        return sampled.examples.select(self._columns).hstack(self._featurizer(sampled.examples)), sampled.fates


def chunk_of(origin: str, events: list[Event], newest_ms: int, app: App, disorder_ms: int) -> tuple[Chunk, int]:
    """What the source gives of the next events of a partition, and its newest event time behind them."""
    marked = []
    for event in events:
        late = event.at < newest_ms - disorder_ms
        newest_ms = max(newest_ms, event.at)
        marked.append(Event(event.stream, event.line, event.impression_id, event.at, event.payload, late))
    return Chunk(marked[0].stream, frame(marked, app).with_columns(_origin=pl.lit(origin))), newest_ms


@dataclass
class Disk:
    """What survives a crash."""

    log: list[pl.DataFrame] = field(default_factory=list)
    fates: list[pl.DataFrame] = field(default_factory=list)
    positions: dict[int, tuple[str, bytes]] = field(default_factory=dict)
    rows: int = 0

    def append(self, batch) -> None:
        assert batch.first_row <= self.rows, "a gap in the log"
        if batch.first_row < self.rows:
            stands = pl.concat(self.log).slice(batch.first_row, batch.frame.height)
            assert stands.equals(batch.frame.head(stands.height)), "other rows than before"
        if (new := batch.frame.slice(self.rows - batch.first_row)).height:
            self.log.append(new)
            self.rows += new.height

    def position(self) -> Position | None:
        rows = max((row for row in self.positions if row <= self.rows), default=None)
        return None if rows is None else Position.of(*self.positions[rows])

    def all_fates(self) -> pl.DataFrame:
        fates = pl.concat([pl.DataFrame(schema=FATES), *self.fates])
        keys = ["stream", "origin", "line"]
        assert fates.unique().filter(pl.len().over(keys) > 1).select(*keys, "fate").unique().is_unique().all()
        return fates.unique([*keys, "fate"]).sort(*keys)


class Source:
    """Reads partitions in any order, in any cuts, as the real one does."""

    def __init__(
        self, app: App, topics: Topics, draw: random.Random, position: Position | None = None, *, most: int = 12
    ) -> None:
        self.app, self.topics, self.draw, self.most, self.watermark_ms = app, topics, draw, most, NEVER
        self.disorder_ms = Joiner(app).disorder_ms
        self.standing = {origin: Mark(origin, 0, NEVER) for origin in topics}
        if position is not None:
            assert set(position.resume) == set(topics)
            self.standing |= position.resume

    def read(self) -> tuple[int, Mark, Chunk] | None:
        """Timestamp, mark behind it and chunk; the watermark stands where it stands after them. None: the end."""
        left = [origin for origin in self.topics if self._left(origin)]
        if not left:
            self.watermark_ms = END
            return None
        origin = self.draw.choice(left)
        mark = self.standing[origin]
        events = self.topics[origin][mark.offset : mark.offset + self.draw.randint(1, self.most)]
        chunk, newest_ms = chunk_of(origin, events, mark.newest_ms, self.app, self.disorder_ms)
        least_ms = chunk.frame.filter(~pl.col("_late"))["event_time_ms"].min()
        at_ms = max(self.watermark_ms, self.watermark_ms if least_ms is None else least_ms)
        self.standing[origin] = Mark(origin, mark.offset + len(events), newest_ms)
        holding = [at.newest_ms for name, at in self.standing.items() if self._left(name)]
        self.watermark_ms = max(self.watermark_ms, min(holding) - self.disorder_ms if holding else END)
        return at_ms, self.standing[origin], chunk

    def _left(self, origin: str) -> bool:
        return self.standing[origin].offset < len(self.topics[origin])


class Live:
    """One life of the process, from a position to a crash or to the end of the topics."""

    def __init__(self, app: App, topics: Topics, disk: Disk, slots: Slots, draw: random.Random) -> None:
        self.app, self.topics, self.disk, self.draw = app, topics, disk, draw
        self.stages, self.basis = Stages(app), basis_of(app, {"t": len(topics)})
        position = disk.position()
        self.slots = slots if position is None else dataclasses.replace(slots, since_ms=position.slot_ms_end)
        self.tail = LogTail(app, self.basis, self.slots, position)
        self.shards = [ShardCore(app) for _ in range(app.config.ingest.shards)]
        self.source = Source(app, topics, draw, position)
        for mark in self.source.standing.values():
            self.tail.take("marks", pl.DataFrame([mark], schema=list(Mark._fields), orient="row"), NEVER)
        self.position, self.shard = position, _Shard(app, live=True, position=position)
        if position is not None:
            self._prime(position)

    def _prime(self, position: Position) -> None:
        end_ms, joiner = replay_from_ms(self.app, position.slot_ms_end), Joiner(self.app)
        begin_ms = end_ms - joiner.dedupe_ms
        told = self.disk.all_fates().filter(
            pl.col("event_time_ms").is_between(begin_ms, end_ms, closed="left"),
            stream="impressions",
            fate=Fate.ACCEPTED.value,
        )
        self._to_shards(Chunk("accepted", told.select("id", "event_time_ms")), "id")

    def _to_shards(self, chunk: Chunk, by: str) -> None:
        number = hash_expr(pl.col(by)) % pl.lit(len(self.shards), pl.UInt64)
        for (key, *_), rows in chunk.frame.group_by(number.alias("_n")):
            self.shards[int(key)].apply(b"a" + _CODER.encode(Chunk(chunk.stream, rows.select(chunk.frame.columns))))

    def step(self) -> bool:
        """Read some events of some partition; False at the end of all."""
        if (read := self.source.read()) is None:
            return False
        at_ms, mark, chunk = read
        late, joined = self.shard._judged(chunk)
        self.tail.take("marks", pl.DataFrame([mark], schema=list(Mark._fields), orient="row"), at_ms)
        if late.height:
            self.tail.take("fates", late_fates(late, chunk.stream, self.app, self.position).fates, at_ms)
        self._to_shards(Chunk(chunk.stream, joined), "impression_id")
        return True

    def fire(self, most: int) -> None:
        """Fire timers in the order of their times, at most that many."""
        for _ in range(most):
            due = [(shard.next_slot_ms(self.slots), 0, n) for n, shard in enumerate(self.shards)]
            if (slot := self.tail.next_slot_ms) is not None:
                due.append((slot + 1, 1, 0))
            due = [(at, kind, n) for at, kind, n in due if at is not None and at <= self.source.watermark_ms]
            if not due:
                return
            at, kind, n = min(due)
            if kind == 0:
                settled = self.shards[n].apply(b"s" + (at - 1).to_bytes(8, "little", signed=True))
                if settled is not None and settled.fates.height + settled.examples.height:
                    rows, fates = self.stages(settled)
                    self.tail.take("rows", rows, at)
                    self.tail.take("fates", fates, at)
            else:
                self._release(at - 1)

    def _release(self, slot_ms_end: int) -> None:
        batches = list(self.tail.release(slot_ms_end))
        keep = len(batches) if self.draw.random() < 0.9 else self.draw.randint(0, len(batches))
        if self.draw.random() < 0.4:
            self.disk.fates.append(self.tail.unwritten.fates)
            position = self.tail.position()
            self.disk.positions[position.row] = (position.manifest(), position.state)
            self.tail.written()
        for number, batch in enumerate(batches):
            if number >= keep:
                raise CrashError
            self.disk.append(batch)
        if self.draw.random() < 0.1:
            self._through_snapshots()

    def _through_snapshots(self) -> None:
        """What a runner does that goes on from a checkpoint."""
        for number, shard in enumerate(self.shards):
            self.shards[number] = ShardCore(self.app)
            self.shards[number].restore(shard.snapshot())
        tail, self.tail = self.tail, LogTail(self.app, self.basis, self.slots)
        self.tail.restore(self.app, tail.snapshot())

    def run(self, steps: int | None) -> None:
        """Live for that many reads, then crash; None: to the end, and write what is left."""
        while steps is None or steps > 0:
            if not self.step():
                break
            self.fire(self.draw.choice([0, 1, 5, 1000]))
            steps = None if steps is None else steps - 1
        if steps is None or steps > 0:
            self.fire(10**6)
            self.disk.fates.append(self.tail.unwritten.fates)


class CrashError(Exception):
    """The process dies between two writes."""


def follow(
    app: App,
    topics: Topics,
    fine_ms: int,
    draw: random.Random,
    crashes: int,
    disk: Disk | None = None,
    doublings: int = 7,
) -> Disk:
    """Follow to the end through that many crashes, from what is on the disk; each run has longer slots of its own."""
    disk = disk or Disk()

    def slots() -> Slots:
        return Slots(fine_ms, draw.randint(0, doublings), fine_ms * draw.randint(-5, 100_000 // fine_ms))

    for _ in range(crashes):
        try:
            Live(app, topics, disk, slots(), draw).run(draw.randint(1, 60))
        except CrashError:
            continue
    while True:
        try:
            Live(app, topics, disk, slots(), draw).run(None)
        except CrashError:
            continue
        return disk


def expected(app: App, topics: Topics) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rows and fates of the same topics, all at once."""
    joiner = Joiner(app)
    for origin, events in topics.items():
        if events:
            chunk, _ = chunk_of(origin, events, NEVER, app, joiner.disorder_ms)
            joiner.add(*((chunk.frame, None) if chunk.stream == "impressions" else (None, chunk.frame)))
    rows, fates = Stages(app)(joiner.settle(None))
    batches = [batch.frame for batch in LogFeatures(app).push(rows.sort(ORDER))] if rows.height else []
    return pl.concat(batches) if batches else rows, fates.sort("stream", "origin", "line")


def topics_of(draw: random.Random, events: int, partitions: int, span_ms: int = 60_000) -> Topics:
    """Impressions and clicks over two topics: repeats, clicks early, in time and too late, and late events."""
    made = {f"{stream}:{n}": [] for stream in ("impressions", "clicks") for n in range(partitions)}
    shown = [(f"i{draw.randrange(max(1, events // 2))}", draw.randrange(span_ms)) for _ in range(events)]
    clicked = [(name, at + draw.randrange(-4_000, 14_000)) for name, at in shown if draw.random() < 0.4]
    for stream, rows in (("impressions", shown), ("clicks", clicked)):
        for name, at in sorted(rows, key=lambda row: row[1] + draw.randrange(0, 5_000)):
            origin = f"{stream}:{draw.randrange(partitions)}"
            made[origin].append(Event(stream, len(made[origin]), name, at, draw.randrange(2)))
    return made


def told(fates: pl.DataFrame) -> pl.DataFrame:
    """Fates, but for what is not known of the bytes of an impression before a restart."""
    known = ["same_payload", "other_payload", "payload_unknown"]
    return fates.with_columns(reason=pl.when(~pl.col("reason").is_in(known)).then("reason"))
