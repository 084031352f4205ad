"""Segments of an example log in a topic of one partition: found by row number, and read in order."""

import time
from typing import Any, NamedTuple

from kafka import KafkaConsumer, TopicPartition

from contracts.errors import ContractError, CorruptError, StoreError
from contracts.sections import Kafka
from contracts.segments import FeatureBatch, decode_segment
from nodes.kafka_client import consumer, partitions_of
from nodes.kafka_errors import speaking
from nodes.kafka_url import parse_kafka_url

_FIRST_ROW, _ROWS, _SCHEMA = "rocket.first_row", "rocket.rows", "rocket.schema_id"
_POLL_MS = 20
_POLL_SEGMENTS = 16
_CLOSE_S = 5.0


class Segment(NamedTuple):
    """A message, with what its headers say."""

    offset: int
    first_row: int
    rows: int
    schema_id: str
    value: bytes

    @property
    def next_row(self) -> int:
        """The row number after the last row."""
        return self.first_row + self.rows


def segment_headers(batch: FeatureBatch) -> list[tuple[str, bytes]]:
    """What a message says beside its segment, so that a place is found without decoding.

    >>> import polars as pl
    >>> segment_headers(FeatureBatch(pl.DataFrame({"example_id": [7, 8]}), 40, "s"))
    [('rocket.first_row', b'40'), ('rocket.rows', b'2'), ('rocket.schema_id', b's')]
    """
    return [
        (_FIRST_ROW, str(batch.first_row).encode()),
        (_ROWS, str(batch.frame.height).encode()),
        (_SCHEMA, batch.schema_id.encode()),
    ]


class SegmentTopic:
    """A reader with two places in a topic: one that reads on, and one that looks things up.

    Args:
        url: kafka://brokers/topic.
        kafka: how the brokers are spoken to.

    Raises:
        StoreError: no broker answers, or the topic is missing.
        ContractError: the topic has more than one partition.
    """

    def __init__(self, url: str, kafka: Kafka) -> None:
        self.url, self._kafka = parse_kafka_url(url), kafka
        found = partitions_of(self.url.brokers, self.url.topic, kafka)
        if len(found) != 1:
            raise ContractError(
                f"{url}: has {len(found)} partitions, but an example log has one, as its order is the order of "
                "training; create the topic with one partition"
            )
        self._part = TopicPartition(self.url.topic, 0)
        self._reader = self._consumer(max_poll_records=_POLL_SEGMENTS)
        self._finder = self._consumer(max_partition_fetch_bytes=1, max_poll_records=1)  # a fetch brings one message
        self._tail: tuple[int, Segment | None] = (0, None)  # end offset, the last segment before it
        self.polls = 0  #: that were needed so far

    def begin(self) -> int:
        """The first offset that the topic still holds."""
        with speaking(str(self.url)):
            return int(self._finder.beginning_offsets([self._part])[self._part])

    def end(self) -> int:
        """The offset after the last settled transaction."""
        with speaking(str(self.url)):
            return int(self._finder.end_offsets([self._part])[self._part])

    def next_segments(self, offset: int, end: int) -> tuple[list[Segment], int]:
        """Segments from `offset` on, and the offset to go on at; none where there is none before `end`.

        Raises:
            StoreError: nothing comes for `request_timeout_s`.
            CorruptError: a message is no segment.
        """
        return self._fetch(self._reader, offset, end)

    def last(self) -> Segment | None:
        """The last segment, looked for from the end: markers of transactions and what was given up lie between."""
        end = self.end()
        if self._tail[0] != end:
            begin, back, found = self.begin(), 2, None
            while found is None and back // 4 < end - begin:
                offset = max(end - back, begin)
                while offset < end:
                    segments, offset = self._fetch(self._finder, offset, end)
                    found = segments[-1] if segments else found
                back *= 4
            self._tail = end, found
        return self._tail[1]

    def find(self, row: int, begin: int, end: int) -> int:
        """An offset between `begin` and `end` from which on `row` is found: a look-up for each halving of the range."""
        low, high = begin, end
        while high - low > 1:  # the segment at `low` begins at or before the row, the one at `high` behind it
            middle = (low + high) // 2
            segments, _ = self._fetch(self._finder, middle, end)
            if not segments or segments[0].first_row > row:
                high = middle
            elif segments[0].next_row > row:
                return segments[0].offset
            else:
                low = max(segments[0].offset, middle)
        return low

    def decoded(self, segment: Segment, schema_id: str | None) -> FeatureBatch:
        """The rows of a segment.

        Raises:
            CorruptError: it is not whole, or not what its headers say.
            SchemaMismatchError: it was written for another feature table.
        """
        where = f"{self.url} offset {segment.offset}"
        batch = decode_segment(segment.value, schema_id, where=where)
        if (batch.first_row, batch.frame.height) != (segment.first_row, segment.rows):
            raise CorruptError(f"{where}: its headers name other rows than it holds; begin the topic anew")
        return batch

    def close(self) -> None:
        """End the connections, within some seconds even where no broker is there."""
        for reader in (self._reader, self._finder):
            reader.close(autocommit=False, timeout_ms=round(_CLOSE_S * 1000))

    def _consumer(self, **over: Any) -> KafkaConsumer:
        # a fetch that waits at the end of the topic holds up the one after a seek
        made = consumer(self.url.brokers, self._kafka, fetch_max_wait_ms=_POLL_MS, **over)
        made.assign([self._part])
        made.seek(self._part, 0)
        return made

    def _fetch(self, reader: KafkaConsumer, offset: int, end: int) -> tuple[list[Segment], int]:
        give_up = time.monotonic() + self._kafka.request_timeout_s
        with speaking(str(self.url)):
            if self._position(reader) != offset:
                reader.seek(self._part, offset)
            while (at := self._position(reader)) < end:
                self.polls += 1
                found = reader.poll(timeout_ms=_POLL_MS).get(self._part, [])
                if found:
                    return [self._segment(each) for each in found if each.offset < end], found[-1].offset + 1
                if at == self._position(reader) and time.monotonic() > give_up:
                    raise StoreError(
                        f"{self.url}: nothing came for {self._kafka.request_timeout_s:g} s; check the broker"
                    )
        return [], end

    def _position(self, reader: KafkaConsumer) -> int:
        return int(reader.position(self._part))

    def _segment(self, found: Any) -> Segment:
        try:
            said = {name: value.decode() for name, value in found.headers}
            first_row, rows = int(said[_FIRST_ROW]), int(said[_ROWS])
            return Segment(found.offset, first_row, rows, said[_SCHEMA], found.value or b"")
        except (KeyError, ValueError, AttributeError) as error:
            raise CorruptError(
                f"{self.url} offset {found.offset}: is no segment of an example log; give the log a topic of its own"
            ) from error
