"""Kafka topics become checked chunks, dead letters and marks: `nodes.topic_reader.TopicReader` in Beam.

A raw splittable DoFn, not `apache_beam.io.unbounded_source`: its restriction is the places alone (a few bytes a
partition instead of the pickled source a bundle), it has three outputs, and it needs no bundle finalizer, without
which Flink cannot run the other one unless it checkpoints.
"""

import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import apache_beam as beam
import msgspec
import polars as pl
from apache_beam.io.watermark_estimators import ManualWatermarkEstimator
from apache_beam.metrics.metric import Metrics
from apache_beam.pvalue import PBegin, TaggedOutput
from apache_beam.transforms.window import TimestampedValue
from apache_beam.typehints.decorators import no_annotations
from apache_beam.utils.timestamp import MAX_TIMESTAMP, MIN_TIMESTAMP, Duration, Timestamp

from contracts.app import App
from contracts.events import Mark
from nodes import log_progress
from nodes.chunks import Chunk
from nodes.kafka_client import consumer
from nodes.read import Checked
from nodes.slots import Slots, slots_of
from nodes.topic_backlog import backlog_of
from nodes.topic_clock import END_MS, Standing
from nodes.topic_partitions import Consumer, Partition, TopicChunk
from nodes.topic_places import Places, PlacesProvider, Split, read_places, read_split, write
from nodes.topic_plan import Begin, Until, plan_topics
from nodes.topic_reader import TopicReader

_DEAD, _MARKS = "dead", "marks"
_LOCK = threading.Lock()
#: Readers that no bundle uses now, by run and element: Beam makes and drops DoFns and bundles, a consumer costs a
#: connection and what it has fetched ahead.
_PARKED: dict[tuple[str, bytes], tuple[TopicReader, Consumer]] = {}
#: Run -> origin -> where its reader stands, of all readers in this process.
_SIBLINGS: dict[str, dict[str, Standing]] = {}

_PLACES = beam.DoFn.RestrictionParam(PlacesProvider())
_WATERMARK = beam.DoFn.WatermarkEstimatorParam(ManualWatermarkEstimator.default_provider())


class _Reading:
    """What the bounded and the endless form share."""

    def __init__(self, app: App, run_id: str, slots: Slots | None = None) -> None:
        self._app, self._run_id, self._slots = app, run_id, slots

    def open(self, element: bytes, places: Places, watermark_ms: int | None) -> tuple[TopicReader, Consumer]:
        """The reader that the last bundle left, or a new one, standing at these places."""
        with _LOCK:
            parked = _PARKED.pop((self._run_id, element), None)
        if parked is None:
            split = read_split(element)
            client = consumer(split.brokers, self._app.config.kafka, auto_offset_reset="none")
            with _LOCK:
                siblings = _SIBLINGS.setdefault(self._run_id, {})
            reader = TopicReader(
                self._app,
                split.partitions,
                client,
                passed_ms=lambda: log_progress.get(self._run_id),
                siblings=siblings,
                slots=self._slots,
            )
            reader.seek(places.marks, watermark_ms)
            return reader, client
        if parked[0].places != places.marks:  # a bundle failed or was cut before what it had read
            parked[0].seek(places.marks, watermark_ms)
        return parked

    def park(self, element: bytes, reader: TopicReader, client: Consumer) -> None:
        with _LOCK:
            before = _PARKED.pop((self._run_id, element), None)
            _PARKED[self._run_id, element] = reader, client
        if before is not None:
            before[1].close()

    def outputs(self, chunk: TopicChunk, watermark_ms: int | None) -> Iterator[Any]:
        """The chunk, its dead letters and its marks, at its smallest event time and never below the watermark."""
        at_ms = chunk.at_ms if watermark_ms is None else max(watermark_ms, chunk.at_ms or watermark_ms)
        at = MIN_TIMESTAMP if at_ms is None else Timestamp(micros=at_ms * 1000)
        Metrics.counter("rocket", f"ctr_read_{chunk.stream}_total").inc(chunk.frame.height + chunk.dead.height)
        if chunk.gone:
            Metrics.counter("rocket", f"ctr_read_{chunk.stream}_gone_total").inc(chunk.gone)
        if chunk.dead.height:
            Metrics.counter("rocket", f"ctr_read_{chunk.stream}_dead_letters_total").inc(chunk.dead.height)
            yield TaggedOutput(_DEAD, TimestampedValue(chunk.dead, at))
        if chunk.frame.height:
            yield TimestampedValue(Chunk(chunk.stream, chunk.frame), at)
        for mark in chunk.marks:
            yield TaggedOutput(_MARKS, TimestampedValue(mark, at))


class _Follow(beam.DoFn):
    """Follows the partitions, a few chunks a bundle."""

    def __init__(self, app: App, run_id: str, slots: Slots) -> None:
        self._reading, self._live = _Reading(app, run_id, slots), app.config.live

    @beam.DoFn.unbounded_per_element()  # type: ignore[untyped-decorator]
    def process(self, element: bytes, tracker: Any = _PLACES, estimator: Any = _WATERMARK) -> Iterator[Any]:
        places = read_places(tracker.current_restriction())
        if places.done:
            return
        passed_ms = _to_ms(estimator.current_watermark())
        reader, client = self._reading.open(element, places, passed_ms)
        try:
            yield from self._bundle(reader, places, tracker, estimator, passed_ms)
        finally:
            self._reading.park(element, reader, client)

    def _bundle(
        self, reader: TopicReader, places: Places, tracker: Any, estimator: Any, passed_ms: int | None
    ) -> Iterator[Any]:
        num_chunks, until_s = 0, time.monotonic() + self._live.bundle_s
        if not places.begun:
            if not tracker.try_claim(write(Places(places.marks, begun=True))):
                return
            for mark in places.marks:
                yield TaggedOutput(_MARKS, TimestampedValue(mark, MIN_TIMESTAMP))
        while num_chunks < self._live.bundle_chunks and time.monotonic() < until_s:
            chunks = reader.read()
            # Claimed first, given after: a claim that is refused leaves what was read to the next bundle.
            if not tracker.try_claim(write(Places(reader.places, begun=True, done=reader.done))):
                return
            for chunk in chunks:
                yield from self._reading.outputs(chunk, passed_ms)
            passed_ms = _advance(estimator, reader.watermark_ms)
            if reader.done:
                return
            if not chunks:
                tracker.defer_remainder(Duration(seconds=self._live.poll_s))
                return
            num_chunks += len(chunks)
        tracker.defer_remainder()


class _ReadToEnd(beam.DoFn):
    """Reads bounded partitions in one go, for runners that know no event time (FnApiRunner)."""

    def __init__(self, app: App, run_id: str) -> None:
        self._reading = _Reading(app, run_id)

    def process(self, element: bytes) -> Iterator[Any]:
        start = read_split(element).start
        reader, client = self._reading.open(element, Places(start), None)
        try:
            yield from (TaggedOutput(_MARKS, mark) for mark in start)
            while not reader.done:
                for chunk in reader.read():
                    yield from self._reading.outputs(chunk, None)
        finally:
            client.close()


class ReadTopics(beam.PTransform[PBegin, Checked]):
    """Read topics of impressions and clicks; chunks carry event time, and the watermark is exact for each partition.

    A mark is given for each partition at its start and after each chunk: before `offset`, the newest event time was
    `newest_ms`. A chunk's timestamp is the smallest event time of its rows that are not late, never below the
    watermark.
    """

    def __init__(
        self,
        app: App,
        sources: Mapping[str, str],
        *,
        start: Mapping[str, Mark],
        begin: Begin = "earliest",
        until: Until = "never",
        splits: Literal["one", "partition"] = "one",
        streaming: bool = True,
        run_id: str | None = None,
    ) -> None:
        """Look the partitions up.

        Args:
            app: whose contracts the events keep.
            sources: "impressions" and "clicks" -> kafka:// URL.
            start: origin (topic:partition) -> where to go on.
            begin: "earliest", "latest" or epoch milliseconds, for topics that `start` does not name.
            until: "never", or "now": up to the offsets at which the topics end at this moment; origin -> offset: up to
                that.
            splits: "one" restriction over all partitions (Prism loses the watermark of several), or one a "partition"
                (Flink).
            streaming: False: read to the end in one go, where the runner has no event time; needs until="now".
            run_id: of `nodes.log_progress`, and of `close_readers`.

        Raises:
            ContractError: as `plan_topics`.
            StoreError: no broker answers.
        """
        super().__init__()
        if not streaming and until == "never":
            raise ValueError("topics without an end need a streaming runner")
        self._app, self._streaming = app, streaming
        self.run_id = run_id or uuid.uuid4().hex
        brokers, planned = plan_topics(app, sources, start=start, begin=begin, until=until)
        self.start = {mark.origin: mark for _, mark in planned}
        #: In which event time passes: longer ones up to where the topics end now.
        self.slots = slots_of(app, backlog_of(app, brokers, planned) if streaming else None)
        self.ends = {partition.origin: partition.end for partition, _ in planned if partition.end is not None}
        groups: Sequence[Sequence[tuple[Partition, Mark]]] = (
            [planned] if splits == "one" else [[part] for part in planned]
        )
        self._splits = [
            msgspec.json.encode(Split(brokers, tuple(p for p, _ in group), tuple(mark for _, mark in group)))
            for group in groups
        ]

    @no_annotations  # type: ignore[untyped-decorator]  # Beam checks single outputs only, and says so at each use
    def expand(self, begin: PBegin) -> Checked:
        read = _Follow(self._app, self.run_id, self.slots) if self._streaming else _ReadToEnd(self._app, self.run_id)
        splits = begin | "Name partitions" >> beam.Create(self._splits, reshuffle=False).with_output_types(bytes)
        found = splits | "Follow partitions" >> beam.ParDo(read).with_outputs(_DEAD, _MARKS, main="events")
        found.events.element_type, found[_DEAD].element_type = Chunk, pl.DataFrame
        found[_MARKS].element_type = Mark
        return Checked(found.events, found[_DEAD], found[_MARKS])


def close_readers(run_id: str) -> None:
    """Close what a run's bundles left in this process; its pipeline must be over."""
    with _LOCK:
        _SIBLINGS.pop(run_id, None)
        left = [_PARKED.pop(key) for key in list(_PARKED) if key[0] == run_id]
    for _, client in left:
        client.close()


def _to_ms(at: Timestamp | None) -> int | None:
    return None if at is None or at <= MIN_TIMESTAMP else at.micros // 1000


def _advance(estimator: Any, watermark_ms: int | None) -> int | None:
    """Move the watermark on; returns where it stands, epoch milliseconds."""
    now = estimator.current_watermark()
    if watermark_ms is not None:
        new = MAX_TIMESTAMP if watermark_ms >= END_MS else Timestamp(micros=watermark_ms * 1000)
        if now is None or new > now:
            estimator.set_watermark(new)
            now = new
    return _to_ms(now)
