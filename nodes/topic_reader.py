"""Partitions of several topics become checked chunks, marks and one watermark: the core of the source, free of Beam.

Offsets are the reader's own (`assign` and `seek`, no group, nothing is committed): where it stands is `places`, and
whoever keeps them can go on from there.
"""

import logging
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import polars as pl
from kafka import TopicPartition
from kafka.errors import CorruptRecordError, KafkaError, OffsetOutOfRangeError

from contracts.app import App
from contracts.errors import StoreError
from contracts.events import Mark
from nodes.slots import Slots, slots_of
from nodes.source import BEFORE_ALL, EventReader
from nodes.topic_clock import Standing, is_idle, watermark_ms
from nodes.topic_ends import EndWatch
from nodes.topic_partitions import Consumer, Partition, TopicChunk, refuse_gone, refuse_grown

_POLLS = 3  # a chunk is filled by so many at most
_POLL_MS = 10  # how long one waits for the broker
_BEHIND = 4096  # records: from there on a chunk is not kept open
_END_TIMEOUT_MS = 1000
_GROWTH_S = 30.0  # between two looks for new partitions

_log = logging.getLogger(__name__)


class TopicReader:
    """Reads partitions in turn; what it gives for a partition depends on the partition alone, not on time or cuts.

    * Lateness is judged along each partition (`EventReader`), from the place it was begun at.
    * The watermark and who must wait for whom are `nodes.topic_clock`'s.
    * A broker that goes away is waited for: `read` gives nothing until it is back.

    State: a place a partition, and what was fetched ahead (some MiB a partition, by the client's settings).
    """

    def __init__(
        self,
        app: App,
        partitions: Sequence[Partition],
        consumer: Consumer,
        *,
        clock: Callable[[], float] = time.monotonic,
        passed_ms: Callable[[], int | None] = lambda: None,
        siblings: dict[str, Standing] | None = None,
        slots: Slots | None = None,
    ) -> None:
        """Assign the partitions; `seek` comes next.

        Args:
            app: whose contracts the events keep; `live`, `ingest` and `labels` settings.
            partitions: all of them, of one or more topics.
            consumer: read_committed, without a group, with `auto_offset_reset="none"`; closed by whoever made it.
            clock: seconds, never going back.
            passed_ms: up to which event time the example log is written; None: nobody says so here.
            siblings: origin -> standing of all partitions that are read in this process, kept up to date by their
                readers; what idles goes by the others' event time.
            slots: in which events settle; None: of `live.slot_s`. None is ahead by less than two of them.
        """
        self._app, self._live, self._clock, self._passed_ms = app, app.config.live, clock, passed_ms
        self._consumer = consumer
        self._partitions = {TopicPartition(p.topic, p.number): p for p in partitions}
        self._readers: dict[TopicPartition, EventReader] = {}
        self._standing: dict[TopicPartition, Standing] = {}
        self._all = {} if siblings is None else siblings
        self.gone: dict[str, int] = {}  #: stream -> offsets skipped, not yet told with a chunk
        self._fetched: dict[TopicPartition, deque[Any]] = {tp: deque() for tp in self._partitions}
        self._held: set[TopicPartition] = set()  # finished, or too far ahead
        self._paused: set[TopicPartition] = set()
        self._disorder_ms = round(app.config.ingest.disorder_s * 1000)
        self._slots = slots or slots_of(app)
        self._settles_ms = round((app.config.labels.wait_s + 2 * app.config.ingest.disorder_s) * 1000)
        self._watermark_ms: int | None = None
        self._first_ms: int | None = None  # of the watermarks
        self._chunk_s = -float("inf")
        self._ends = EndWatch(consumer, self._standing, self._live)
        self._grown_s = clock()
        self._waited: tuple[int | None, float] = (None, -float("inf"))  # what the log told, and since when
        consumer.assign(list(self._partitions))

    def seek(self, places: Iterable[Mark], watermark_ms: int | None) -> None:
        """Stand at these places, one a partition, the watermark being at `watermark_ms` already."""
        now, by_origin = self._clock(), {mark.origin: mark for mark in places}
        self._watermark_ms = watermark_ms
        for tp, partition in self._partitions.items():
            mark = by_origin[partition.origin]
            contract = self._app.impressions if partition.stream == "impressions" else self._app.clicks
            self._readers[tp] = EventReader(
                contract, self._app, stream=partition.stream, origin=partition.origin, newest_ms=mark.newest_ms
            )
            standing = Standing(mark.offset, mark.newest_ms, partition.end, quiet_since_s=now)
            self._standing[tp] = self._all[partition.origin] = standing
            self._fetched[tp].clear()
            self._consumer.seek(tp, mark.offset)
        self._pause(set())

    @property
    def places(self) -> tuple[Mark, ...]:
        """Where each partition stands, all that `read` gave being behind it."""
        return tuple(
            Mark(partition.origin, self._standing[tp].offset, self._standing[tp].newest_ms)
            for tp, partition in self._partitions.items()
        )

    @property
    def done(self) -> bool:
        """Each partition has been read to its end, and has one."""
        return all(standing.finished for standing in self._standing.values())

    @property
    def watermark_ms(self) -> int | None:
        """No event before it will come, but for those that count as late; None: any event may. Never goes back."""
        now, idle_s, own = self._clock(), self._live.idle_s, list(self._standing.values())
        idle = not self.done and all(is_idle(standing, now, idle_s) for standing in own)
        found = watermark_ms(list(self._all.values()) if idle else own, now, idle_s, self._disorder_ms)
        if found is not None and (self._watermark_ms is None or found > self._watermark_ms):
            self._watermark_ms = found
            self._first_ms = found if self._first_ms is None else self._first_ms
        return self._watermark_ms

    def read(self) -> list[TopicChunk]:
        """What has come since, at most `ingest.chunk_rows` records, a chunk a stream; empty where it is not yet time.

        Raises:
            ContractError: an offset is no longer in its topic, and `live.gone` is "stop"; or a topic has grown.
            StoreError: the broker refuses.
        """
        now = self._clock()
        self._look_for_growth(now)
        self._ends.look(now)
        self._hold_leaders(now)
        if self._log_is_behind(now):
            return []
        if now - self._chunk_s < self._live.linger_s and self._lag() < _BEHIND:
            return []
        self._fetch()
        chunks = self._chunks(self._take(), now)
        if chunks:
            self._chunk_s = now
        return chunks

    def _fetch(self) -> None:
        """Fill up what is fetched, of the partitions that may be read and have nothing left.

        All that the client has is taken from it at once: with a bound on records it keeps the rest, and forgets it when
        its partition is paused and resumed (kafka-python 3.0.12).
        """
        for _ in range(_POLLS):
            ready = sum(len(left) for tp, left in self._fetched.items() if tp not in self._held)
            if ready >= self._app.config.ingest.chunk_rows:
                return
            self._pause(self._held | {tp for tp, left in self._fetched.items() if left})
            try:
                polled = self._consumer.poll(timeout_ms=0 if ready else _POLL_MS, max_records=sys.maxsize)
            except OffsetOutOfRangeError as error:
                self._go_on_from_earliest(error)
                return
            except CorruptRecordError as error:  # the client's next poll would spin for ever
                places = ", ".join(f"{mark.origin} at {mark.offset}" for mark in self.places)
                raise StoreError(
                    f"kafka: a record is damaged, or has a header that is not UTF-8 ({error}; reading stands at "
                    f"{places}); delete the records up to and with it, and set live.gone=earliest"
                ) from error
            except KafkaError as error:
                if getattr(error, "retriable", False):
                    _log.warning("reading topics: %s; trying again", error)
                    return
                raise StoreError(f"kafka: the topics cannot be read ({error}); check the broker and its log") from error
            for tp, found in polled.items():
                self._fetched[tp].extend(found)
            if not polled:
                return

    def _take(self) -> dict[TopicPartition, list[Any]]:
        """The next records, those of the slowest partition first."""
        left, taken = self._app.config.ingest.chunk_rows, {}
        for tp in sorted(self._partitions, key=lambda tp: self._standing[tp].newest_ms):
            fetched, end = self._fetched[tp], self._standing[tp].end
            if tp in self._held or not fetched or left <= 0:
                continue
            found = [fetched.popleft() for _ in range(min(left, len(fetched)))]
            left -= len(found)
            if end is not None and found[-1].offset >= end:
                found = [record for record in found if record.offset < end]
            taken[tp] = found
        return taken

    def _pause(self, wanted: set[TopicPartition]) -> None:
        if wanted - self._paused:
            self._consumer.pause(*(wanted - self._paused))
        if self._paused - wanted:
            self._consumer.resume(*(self._paused - wanted))
        self._paused = wanted

    def _chunks(self, records: dict[TopicPartition, list[Any]], now: float) -> list[TopicChunk]:
        frames: dict[str, list[tuple[pl.DataFrame, pl.DataFrame, Mark]]] = {}
        for tp, partition in self._partitions.items():
            standing, found = self._standing[tp], records.get(tp)
            if found:
                reader = self._readers[tp]
                read = reader.read_records([record.value for record in found], [record.offset for record in found])
                standing.newest_ms, standing.quiet_since_s, standing.confirmed_s = reader.newest_ms, now, None
                standing.offset = found[-1].offset + 1
                mark = Mark(partition.origin, standing.offset, standing.newest_ms)
                frames.setdefault(partition.stream, []).append((read.frame, read.dead, mark))
            elif not standing.finished and not self._fetched[tp]:
                self._step_over_markers(tp, standing)
        return [self._chunk(stream, parts) for stream, parts in frames.items()]

    def _step_over_markers(self, tp: TopicPartition, standing: Standing) -> None:
        """Ends of transactions are offsets without a record: the client passes them in silence."""
        place = self._consumer.position(tp, timeout_ms=0)
        if place is not None and place > standing.offset:
            standing.offset = place if standing.end is None else min(place, standing.end)

    def _chunk(self, stream: str, parts: list[tuple[pl.DataFrame, pl.DataFrame, Mark]]) -> TopicChunk:
        frame = pl.concat([frame for frame, _, _ in parts])
        contract = self._app.impressions if stream == "impressions" else self._app.clicks
        at = frame.filter(~pl.col("_late"))[contract.role("event_time")].min()
        dead, marks = pl.concat([dead for _, dead, _ in parts]), tuple(mark for _, _, mark in parts)
        at_ms = at if isinstance(at, int) else None
        return TopicChunk(stream, frame, dead, marks, at_ms, self.gone.pop(stream, 0))

    def _lag(self) -> int:
        """Records known to wait in partitions that may be read."""
        ends = ((self._consumer.highwater(tp), self._standing[tp]) for tp in self._partitions if tp not in self._held)
        return sum(end - standing.offset for end, standing in ends if end is not None and not standing.finished)

    def _look_for_growth(self, now: float) -> None:
        if now - self._grown_s < _GROWTH_S:
            return
        self._grown_s = now
        for partition in {partition.topic: partition for partition in self._partitions.values()}.values():
            try:
                found = self._consumer.partitions_for_topic(partition.topic)
            except KafkaError:
                continue
            refuse_grown(partition, found)

    def _hold_leaders(self, now: float) -> None:
        """Leave out partitions that are finished, or too far ahead of the slowest."""
        everyone = list(self._all.values())
        slow = [standing for standing in everyone if not is_idle(standing, now, self._live.idle_s)]
        slowest_ms = min((standing.newest_ms for standing in slow), default=BEFORE_ALL)
        limit = slowest_ms + self._lead_ms(slowest_ms)
        leaders = {tp for tp, standing in self._standing.items() if slow and standing.newest_ms > limit}
        finished = {tp for tp, standing in self._standing.items() if standing.finished}
        self._held = finished | leaders

    def _lead_ms(self, at_ms: int) -> int:
        """How far one may be ahead of what stands at a moment: no less than two slots, for those settle whole."""
        return max(round(self._live.max_lead_s * 1000), 2 * self._slots.length(at_ms))

    def _log_is_behind(self, now: float) -> bool:
        """The example log is further behind than it may be; for one that stands still, only a chunk now and then."""
        passed, watermark = self._passed_ms(), self.watermark_ms
        if passed is None or watermark is None or self._first_ms is None:
            return False
        begin = max(passed, self._first_ms)
        if watermark - begin <= self._lead_ms(begin) + self._settles_ms + 4 * self._slots.length(begin):
            return False
        if passed != self._waited[0] or now - self._waited[1] >= self._live.idle_s:
            stands = passed == self._waited[0]
            self._waited = passed, now
            return not stands
        return True

    def _go_on_from_earliest(self, error: OffsetOutOfRangeError) -> None:
        """Of each partition that lost its offsets.

        Raises:
            ContractError: the setting is to stop instead.
        """
        lost = [tp for tp in error.args[0] if tp in self._standing]
        begins = self._consumer.beginning_offsets(lost, timeout_ms=_END_TIMEOUT_MS)
        ends = self._consumer.end_offsets(lost, timeout_ms=_END_TIMEOUT_MS)
        for tp in lost:
            partition, standing = self._partitions[tp], self._standing[tp]
            refuse_gone(partition.origin, standing.offset, begins[tp], ends[tp], self._live.gone)
            self.gone[partition.stream] = self.gone.get(partition.stream, 0) + begins[tp] - standing.offset
            standing.offset = begins[tp]
            self._consumer.seek(tp, begins[tp])
