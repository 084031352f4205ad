"""Records into a topic, from a Beam flow: one producer a process, acknowledged before a bundle is done."""

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import apache_beam as beam
import msgspec
from apache_beam.coders import Coder
from apache_beam.coders.typecoders import registry
from apache_beam.metrics.metric import Metrics
from apache_beam.pvalue import PCollection
from apache_beam.transforms.window import GlobalWindows
from apache_beam.utils.windowed_value import WindowedValue
from kafka import KafkaProducer

from contracts.sections import Kafka
from contracts.stores import Record
from nodes.kafka_client import close_producer, partitions_of, producer
from nodes.kafka_errors import speaking
from nodes.kafka_url import parse_kafka_url

_UNACKED = 4096
_lock = threading.Lock()
_producers: dict[tuple[str, str], KafkaProducer] = {}  # of this process: DoFns come and go with each bundle


class RecordCoder(Coder):
    """A record as MessagePack.

    >>> record = Record(b"k", b"v", (("a", b"1"),), 7, 8)
    >>> RecordCoder().decode(RecordCoder().encode(record)) == record
    True
    """

    def encode(self, value: Record) -> bytes:
        """MessagePack bytes."""
        return _encoder.encode(value)

    def decode(self, encoded: bytes) -> Record:
        """The record back."""
        return _decoder.decode(encoded)

    def is_deterministic(self) -> bool:
        """The same record gives the same bytes."""
        return True


_encoder, _decoder = msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder(Record)
registry.register_coder(Record, RecordCoder)


class RecordWriter:
    """Sends records to one topic and knows which are not acknowledged yet; the producer is shared in the process.

    Args:
        url: kafka://brokers/topic.
        kafka: how the brokers are spoken to.

    Raises:
        StoreError: no broker answers, or the topic is missing.
    """

    def __init__(self, url: str, kafka: Kafka) -> None:
        self._url, self._topic = url, parse_kafka_url(url).topic
        self._producer = _shared_producer(url, kafka)
        self._delivery_s = 2 * kafka.request_timeout_s + 1
        self._unacked: list[Any] = []

    def write(self, records: Sequence[Record]) -> None:
        """Send; a record's timestamp is the time of sending where it has none.

        Raises:
            ContractError: a record is larger than `max_message_bytes`.
            StoreError: the broker refuses, or does not acknowledge in time.
        """
        with speaking(self._url):
            self._unacked += [
                self._producer.send(
                    self._topic, each.value, each.key, list(each.headers), timestamp_ms=each.timestamp_ms or None
                )
                for each in records
            ]
        if len(self._unacked) >= _UNACKED:
            self.flush()

    def flush(self) -> None:
        """Wait until everything sent is acknowledged; raises as `write`."""
        sent, self._unacked = self._unacked, []
        with speaking(self._url):
            for each in sent:
                each.get(self._delivery_s)


class _Write(beam.DoFn):
    def __init__(self, url: str, kafka: Kafka) -> None:
        self._url, self._kafka = url, kafka
        self._writer: RecordWriter | None = None
        self._count = 0

    def start_bundle(self) -> None:
        self._count = 0

    def process(self, record: Record) -> Iterator[int]:
        if self._writer is None:
            self._writer = RecordWriter(self._url, self._kafka)
        self._writer.write([record])
        self._count += 1
        yield from ()

    def finish_bundle(self) -> Iterator[WindowedValue]:
        if self._writer and self._count:
            self._writer.flush()
            Metrics.counter("rocket", "ctr_kafka_sink_records_total").inc(self._count)
            yield GlobalWindows.windowed_value_at_end_of_window(self._count)


class WriteRecords(beam.PTransform[PCollection[Record], PCollection[int]]):
    """Write records to a topic, at least once: a bundle that fails after sending is sent again.

    A bundle is done when the broker has acknowledged all of it. What comes out is the number of records a bundle. Costs
    some 20 us a record.
    """

    def __init__(self, url: str, kafka: Kafka) -> None:
        super().__init__()
        self._url, self._kafka = url, kafka

    def expand(self, records: PCollection[Record]) -> PCollection[int]:
        return records | "Write records" >> beam.ParDo(_Write(self._url, self._kafka)).with_output_types(int)


def _shared_producer(url: str, kafka: Kafka) -> KafkaProducer:
    where = parse_kafka_url(url)
    # the topic too: that it exists is looked at once
    key = url, kafka.model_dump_json()
    with _lock:
        if key not in _producers:
            partitions_of(where.brokers, where.topic, kafka)
            _producers[key] = producer(where.brokers, kafka)
        return _producers[key]


def close_producers() -> None:
    """End the connections of this process; a writer made later opens its own again."""
    with _lock:
        for each in _producers.values():
            close_producer(each, 5)
        _producers.clear()
