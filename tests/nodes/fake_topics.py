"""Topics in memory behind the calls that the source makes of a Kafka client, and a clock that is moved by hand."""

import json
from dataclasses import dataclass

from kafka import TopicPartition
from kafka.errors import KafkaTimeoutError, OffsetOutOfRangeError

from contracts.events import Mark
from nodes.source import BEFORE_ALL
from nodes.topic_partitions import Partition

START_MS = 1_700_000_000_000


@dataclass
class Seconds:
    """A monotonic clock."""

    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class Message:
    """What the reader looks at of a record."""

    offset: int
    value: bytes | None


class FakeConsumer:
    """Each partition is a list of (offset, value); a value of `MARKER` is an offset without a record."""

    MARKER = object()

    def __init__(self, **logs: int) -> None:
        self.logs: dict[TopicPartition, list[tuple[int, object]]] = {}
        self.first: dict[TopicPartition, int] = {}
        self._at: dict[TopicPartition, int] = {}
        self._seen: dict[TopicPartition, int] = {}
        self.paused: set[TopicPartition] = set()
        self.slow: set[TopicPartition] = set()  # has more than it gives
        self.away = False
        self.polls = 0

    def add(self, tp: TopicPartition, *values: object, gap: int = 0) -> None:
        log = self.logs.setdefault(tp, [])
        for value in values:
            log.append((self.end(tp) + gap, value))

    def end(self, tp: TopicPartition) -> int:
        log = self.logs.get(tp)
        return log[-1][0] + 1 if log else self.first.get(tp, 0)

    def assign(self, partitions) -> None:
        self._at = dict.fromkeys(partitions, 0)

    def seek(self, partition, offset) -> None:
        self._at[partition] = offset

    def poll(self, timeout_ms, max_records):
        self.polls += 1
        if self.away:
            return {}
        found = {}
        for tp, at in self._at.items():
            if tp in self.paused | self.slow:
                continue
            self._seen[tp] = self.end(tp)
            if at < self.first.get(tp, 0):
                raise OffsetOutOfRangeError({tp: at})
            for offset, value in self.logs.get(tp, ()):
                if offset < at or max_records <= 0:
                    continue
                if value is not self.MARKER:
                    found.setdefault(tp, []).append(Message(offset, value))
                    max_records -= 1
                self._at[tp] = offset + 1
        return found

    def position(self, partition, timeout_ms):
        return self._at[partition]

    def highwater(self, partition):
        return self._seen.get(partition)

    def beginning_offsets(self, partitions, timeout_ms):
        return {tp: self.first.get(tp, 0) for tp in partitions}

    def end_offsets(self, partitions, timeout_ms):
        if self.away:
            raise KafkaTimeoutError
        return {tp: self.end(tp) for tp in partitions}

    def partitions_for_topic(self, topic):
        return {tp.partition for tp in self.logs if tp.topic == topic}

    def pause(self, *partitions) -> None:
        self.paused |= set(partitions)

    def resume(self, *partitions) -> None:
        self.paused -= set(partitions)

    def close(self) -> None:
        pass


def click(name: str, at_s: float) -> bytes:
    at_ms = START_MS + round(at_s * 1000)
    return json.dumps({"click_id": name, "impression_id": "i", "event_time_ms": at_ms}).encode()


def parts(count: int, end: int | None = None) -> list[Partition]:
    return [Partition("clicks", "c", number, end) for number in range(count)]


def at_start(partitions) -> list[Mark]:
    return [Mark(partition.origin, 0, BEFORE_ALL) for partition in partitions]
