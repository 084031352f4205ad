"""Records of the partitions that a member has, by librdkafka: in order, and past what cannot be read."""

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition
from kafka import TopicPartition as PartitionOfTopic
from kafka import errors

from contracts.sections import Kafka
from contracts.stores import Record
from nodes.kafka_damage import readable_from
from nodes.kafka_url import KafkaUrl
from nodes.rdkafka_errors import as_kafka, mends

_log = logging.getLogger(__name__)
_MOST_AHEAD = 1_000


class RdReader:
    """Reads with a consumer that others wait for, too: what comes meanwhile is for the next `take`.

    Args:
        consumer: a member of a group; whoever subscribes it calls `forget` for partitions that go.
        url: of the topic that it reads.
        kafka: how the brokers are spoken to.
        counts: `damaged` is counted up.
    """

    def __init__(self, consumer: Consumer, url: KafkaUrl, kafka: Kafka, counts: Counter[str]) -> None:
        self._consumer, self._url, self._kafka, self._counts = consumer, url, kafka, counts
        self._next: dict[int, int] = {}  # partition -> the offset after the last one handed out
        self._lost: set[int] = set()  # partitions that went since the first of the records at hand came
        self._ahead: list[Message] = []
        self._readable: tuple[int, int] | None = None  # partition and offset where damage ended last

    def take(self, max_wait_s: float, max_records: int) -> tuple[list[Record], dict[int, int]]:
        """The next records, none after `max_wait_s` without any; and partition -> the offset after the last of them.

        Raises:
            KafkaError: the broker refuses for good.
            KafkaException: as before.
            StoreError: behind damage, the brokers do not answer.
        """
        if not self._ahead:
            first = self._consumer.poll(max_wait_s)
            self._lost.clear()
            if first is not None:
                self._ahead = [first, *self._consumer.consume(max_records - 1, timeout=0)]
        found, self._ahead = self._ahead[:max_records], self._ahead[max_records:]
        return self._records(found)

    @property
    def full(self) -> bool:
        """Whether enough has come meanwhile."""
        return len(self._ahead) >= _MOST_AHEAD

    def hear(self, max_wait_s: float) -> None:
        """Let librdkafka tell what it has to.

        Raises:
            KafkaError: another process has our name.
        """
        found = self._consumer.consume(1, timeout=max_wait_s)  # it may call `forget`
        for each in found:
            error = each.error()
            if error is not None and error.code() == KafkaError._FATAL:  # noqa: SLF001  # a public name of theirs
                raise as_kafka(error)
        self._ahead += found

    def forget(self, parts: Iterable[int]) -> None:
        """These go to another member, which reads from where we committed."""
        gone = set(parts)
        self._next = {part: offset for part, offset in self._next.items() if part not in gone}
        self._lost |= gone
        self._drop(gone)

    def _records(self, found: Sequence[Message]) -> tuple[list[Record], dict[int, int]]:
        """Up to the first that is an error; that is judged when nothing is before it, and what follows is for later."""
        records, upto = list[Record](), dict[int, int]()
        for index, each in enumerate(found):
            if each.error() is not None:
                self._ahead = [*found[index if records else index + 1 :], *self._ahead]
                if not records:
                    self._judge(each)
                break
            part, offset, (_, at_ms) = each.partition() or 0, each.offset() or 0, each.timestamp()
            if self._is_past(part, offset):
                continue
            upto[part] = offset + 1
            try:  # a header's name that is no UTF-8 is said by one of the next calls, and in one of two ways
                headers: Any = each.headers() or ()
                named = tuple((name, value or b"") for name, value in headers)
                made = Record(each.key(), each.value() or b"", named, max(at_ms, 0), offset)
            except (UnicodeDecodeError, SystemError) as damage:
                self._passed(part, offset, offset + 1, damage)
                continue
            records.append(made)
        if self._readable is not None and self._readable[0] in upto:
            self._readable = None
        ours = {part: offset for part, offset in upto.items() if part not in self._lost}
        self._next |= ours
        return records, ours

    def _judge(self, message: Message) -> None:
        """Raise what is for good; pass over what will mend, or is damaged."""
        error: Any = message.error()
        known = as_kafka(error)
        if isinstance(known, errors.CorruptRecordError):
            try:
                self._skip_damage(message.partition() or 0, message.offset() or 0, known)
            except Exception:
                self._ahead.insert(0, message)  # it is where we are still
                raise
        elif not mends(error):
            raise known

    def _skip_damage(self, part: int, offset: int, why: errors.KafkaError) -> None:
        """Go on behind it: librdkafka reads a damaged batch again and again, or takes some of it for an offset."""
        at = self._next.get(part, offset)
        if self._readable is not None and self._is_past(part, offset):
            self._consumer.seek(TopicPartition(self._url.topic, *self._readable))
            self._drop({part})
            return
        if self._readable == (part, at):
            raise why  # though not to kafka-python
        after = readable_from(PartitionOfTopic(self._url.topic, part), at, self._url.brokers, self._kafka)
        self._consumer.seek(TopicPartition(self._url.topic, part, after))
        self._readable, self._next[part] = (part, after), after
        self._drop({part})  # what was taken for records since
        if after > at:
            self._passed(part, at, after, why)

    def _is_past(self, part: int, offset: int) -> bool:
        """Whether it lies before damage that was gone past: librdkafka may have begun anew just then."""
        return self._readable is not None and self._readable[0] == part and offset < self._readable[1]

    def _drop(self, parts: set[int]) -> None:
        self._ahead = [each for each in self._ahead if each.partition() not in parts]

    def _passed(self, part: int, first: int, after: int, why: Exception) -> None:
        self._counts["damaged"] += after - first
        _log.warning("%s: offsets %d to %d of partition %d cannot be read (%s) and are passed over",
                     self._url, first, after - 1, part, why)  # fmt: skip
