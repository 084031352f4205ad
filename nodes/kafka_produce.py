"""Arrivals into topics: keyed, partitioned and stamped as a producer in production would, and acknowledged.

files ─▶ arrivals ─▶ pace ─▶ send ─▶ topics of impressions and clicks
"""

import contextlib
import threading
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any

import numpy as np
import polars as pl
from kafka import KafkaAdminClient, errors
from kafka.admin import ConfigResource, ConfigResourceType
from numpy.typing import NDArray

from contracts.sections import Kafka
from nodes.kafka_client import admin, close_producer, partitions_of_all, producer
from nodes.kafka_errors import speaking
from nodes.kafka_partition import partitions_for
from nodes.produce import Pacer, shifted

_LINGER_MS = 20
_BATCH_BYTES = 524_288
_UNACKED_ROWS = 16_384  # sent before the ones before them are acknowledged: the client's buffer has no bound of its own
_TICK_S = 0.02  # a paced stream leaves in batches of that length
_CLOSE_S = 5.0
_HALF_HOUR_MS = 1_800_000
_DAY_MS = 86_400_000
_STAMP_SETTINGS = ("retention.ms", "message.timestamp.after.max.ms")


class EventTopics:
    """The topics that events are sent to.

    A record's timestamp is its event time, unless the topic would refuse it, or delete it at once for its age: then it
    is the time of sending.

    Args:
        brokers: host:port of some of them.
        topics: one a file of the arrivals.
        kafka: how the brokers are spoken to.
        clock_ms: epoch milliseconds.
        headers: True: CloudEvents headers `ce_id`, `ce_type`, `ce_time` on each record, at half the speed.

    Raises:
        StoreError: no broker answers, or a topic is missing.
    """

    def __init__(
        self,
        brokers: Sequence[str],
        topics: Sequence[str],
        kafka: Kafka,
        clock_ms: Callable[[], int],
        *,
        headers: bool = False,
    ) -> None:
        self._where = f"kafka://{','.join(brokers)}"
        self._topics, self._headers, self._clock_ms = list(topics), headers, clock_ms
        self._partitions = partitions_of_all(brokers, topics, kafka)
        self._num_partitions = np.array([len(self._partitions[topic]) for topic in topics], np.int64)
        with contextlib.closing(admin(brokers, kafka)) as client:
            self._stamps = {topic: _accepted_age_ms(client, topic, self._where) for topic in self._partitions}
        self._keyless = 0
        self._unacked: tuple[list[Any], list[int]] = [], []  # futures, and how many of each file
        self._delivery_s = 2 * kafka.request_timeout_s + 1
        self._producer = producer(
            brokers, kafka, linger_ms=_LINGER_MS, batch_size=_BATCH_BYTES, max_in_flight_requests_per_connection=5
        )
        self.sent = dict.fromkeys(topics, 0)  #: acknowledged records of each topic

    def send(self, arrivals: pl.DataFrame) -> None:
        """Send lines in their order; at most some thousands are on their way when it returns.

        Args:
            arrivals: of `nodes.produce.ARRIVALS`.

        Raises:
            ContractError: the topic refuses a message for its size.
            StoreError: the broker refuses, or does not acknowledge in time.
        """
        for start in range(0, arrivals.height, _UNACKED_ROWS):
            self._send(arrivals.slice(start, _UNACKED_ROWS))

    def flush(self) -> None:
        """Wait until everything sent is acknowledged."""
        self._acknowledge()

    def close(self) -> None:
        """End the connection; what was not acknowledged is given up after some seconds."""
        close_producer(self._producer, _CLOSE_S)

    def __enter__(self) -> "EventTopics":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _send(self, rows: pl.DataFrame) -> None:
        files = rows["file"].to_numpy()
        keys = rows["key"].cast(pl.Binary).to_list()
        send, topics = self._producer.send, self._topics
        columns = (
            files.tolist(),
            rows["line"].to_list(),
            keys,
            self._headers_of(rows) if self._headers else [None] * rows.height,
            self._partition(files, keys).tolist(),
            self._stamped(rows, files),
        )
        with speaking(self._where):
            sent = [
                send(topics[file], line, key, headers, partition, stamp)
                for file, line, key, headers, partition, stamp in zip(*columns, strict=True)
            ]
        self._acknowledge()
        self._unacked = sent, np.bincount(files, minlength=len(topics)).tolist()

    def _partition(self, files: NDArray[np.uint32], keys: list[bytes | None]) -> NDArray[np.int64]:
        """By the hash of the key; lines without one go round."""
        of_topic = self._num_partitions[files]
        without = np.fromiter((key is None for key in keys), np.bool_, len(keys))
        turns = self._keyless + np.cumsum(without)
        self._keyless = int(turns[-1])
        return np.where(without, turns % of_topic, partitions_for([key or b"" for key in keys], of_topic))

    def _stamped(self, rows: pl.DataFrame, files: NDArray[np.uint32]) -> list[int | None]:
        now_ms = self._clock_ms()
        bounds = np.array([self._stamps[topic] for topic in self._topics], np.int64)[files]
        time = pl.col("event_time_ms")
        accepted = time.is_between(pl.lit(pl.Series(now_ms - bounds[:, 0])), pl.lit(pl.Series(now_ms + bounds[:, 1])))
        return rows.select(pl.when(accepted & (time >= 0)).then(time))["event_time_ms"].to_list()

    def _headers_of(self, rows: pl.DataFrame) -> list[list[tuple[str, bytes]]]:
        time = pl.from_epoch("event_time_ms", time_unit="ms").dt.strftime("%Y-%m-%dT%H:%M:%S%.3fZ")
        columns = rows.select("file", "key", time=time.fill_null("").cast(pl.Binary)).rows()
        types = [topic.encode() for topic in self._topics]
        return [
            [("ce_id", (key or "").encode()), ("ce_type", types[file]), ("ce_time", time)]
            for file, key, time in columns
        ]

    def _acknowledge(self) -> None:
        """Wait for what was sent, but for the rows at hand."""
        futures, counts = self._unacked
        with speaking(self._where):
            for each in futures:
                if not each.succeeded():
                    each.get(self._delivery_s)
        for topic, count in zip(self._topics, counts, strict=False):
            self.sent[topic] += count
        self._unacked = [], []


def replay(
    frames: Iterable[pl.DataFrame],
    topics: EventTopics,
    pacer: Pacer,
    stop: threading.Event,
    *,
    from_ms: int | None = None,
    on_progress: Callable[[int], None] = lambda _: None,
) -> int:
    """Send arrivals when they are due, until they end or `stop` is set; returns how many lines were sent.

    Args:
        frames: of `nodes.produce.arrivals`.
        topics: where they go; everything sent is acknowledged at the end.
        pacer: says when they are due.
        stop: nothing more is sent once it is set.
        from_ms: move all event times so that the first line arrives then; None: as they are.
        on_progress: told the lines sent so far.
    """
    done, delta_ms = 0, None
    for given in frames:
        if from_ms is not None and delta_ms is None:
            delta_ms = from_ms - int(given["arrival_ms"][0])
        frame = _moved(given, delta_ms) if delta_ms else given
        while frame.height and not stop.is_set():
            first_ms = int(frame["arrival_ms"][0])
            cut = int(frame["arrival_ms"].search_sorted(pacer.reached_ms(first_ms), side="right"))
            if not cut:
                stop.wait(max(pacer.wait_ms(first_ms) / 1000, _TICK_S))
                continue
            topics.send(frame.head(cut))
            frame, done = frame.slice(cut), done + cut
            on_progress(done)
        if stop.is_set():
            break
    topics.flush()
    return done


def _moved(rows: pl.DataFrame, delta_ms: int) -> pl.DataFrame:
    return rows.with_columns(
        pl.Series("line", shifted(rows["line"].to_list(), delta_ms), pl.Binary),
        pl.col("event_time_ms", "arrival_ms") + delta_ms,
    )


def _accepted_age_ms(client: KafkaAdminClient, topic: str, where: str) -> tuple[int, int]:
    """How far behind and ahead of now a record's timestamp may lie, half of what the topic takes and keeps."""
    resource = ConfigResource(ConfigResourceType.TOPIC, topic, list(_STAMP_SETTINGS))
    with speaking(where):
        try:
            found = client.describe_configs([resource], config_filter="all")["topic"][topic]
        except errors.AuthorizationError:
            return _DAY_MS, _HALF_HOUR_MS  # may write, but not look: what every topic takes
    keeps, ahead = (int(found[name]["value"]) if name in found else -1 for name in _STAMP_SETTINGS)
    return (_FOREVER_MS if keeps < 0 else keeps // 2), (_HALF_HOUR_MS if ahead < 0 else min(ahead // 2, _FOREVER_MS))


_FOREVER_MS = 2**52
