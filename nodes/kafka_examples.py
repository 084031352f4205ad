"""The example log as a Kafka topic of one partition: a message is a segment, its headers say which rows it holds.

A writer takes the log over from the one before it: from then on the older one is fenced. Each append is a transaction,
so a segment is whole or never read.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

from kafka import KafkaProducer, errors

from contracts.errors import ContractError, CorruptError, RocketError, SchemaMismatchError, StoreError
from contracts.sections import Kafka
from contracts.segments import FeatureBatch, encode_segment
from nodes.kafka_client import close_producer, producer
from nodes.kafka_errors import speaking
from nodes.kafka_segments import Segment, SegmentTopic, segment_headers

_RETRY_MS = 10  # between two transactions of one writer the broker asks for a short wait
_HEADER_BYTES = 1024
_MARKER_S = 0.002
_CLOSE_S = 5.0


class KafkaExampleLog:
    """A topic of segments: one writer at a time, any number of readers, satisfying `contracts.stores.ExampleLog`.

    One object is for one thread. Where no broker answers for `request_timeout_s`, reading raises and can be repeated;
    writing raises after twice that, and the log must be opened anew: what was written then is found there.

    Args:
        url: kafka://brokers/topic.
        app: name of the app whose examples they are, noted in each segment.
        kafka: how the brokers are spoken to.

    Raises:
        StoreError: no broker answers, or the topic is missing.
        ContractError: the topic has more than one partition.
    """

    complete = None  #: a topic has no end; a finished `ExampleDirectory` says here what it holds

    def __init__(self, url: str, app: str, kafka: Kafka) -> None:
        self.topic = SegmentTopic(url, kafka)
        self.url = str(self.topic.url)
        self._app, self._kafka = app, kafka
        self._writer: KafkaProducer | None = None
        self._written = 0  # rows that stand as this writer knows it
        self._lost: RocketError | None = None  # why this writer may write no more
        self._next = (0, 0)  # where the last reading stopped: a row, and the offset to go on at

    def rows(self) -> int:
        """How many rows stand in it.

        Raises:
            StoreError: no broker answers.
        """
        last = self.topic.last()
        return max(last.next_row if last else 0, self._written)

    def read(self, first_row: int, schema_id: str | None = None) -> Iterator[FeatureBatch]:
        """Segments from the one that holds `first_row` to the end as it is now, in order; the first is cut.

        Args:
            first_row: a row number; that of the next row to come gives nothing. Its place is found by bisecting, or
                known where reading stopped before.
            schema_id: refuse another one; None takes any.

        Raises:
            StoreError: no broker answers.
            CorruptError: a message is no whole segment, or rows are missing before one.
            SchemaMismatchError: a segment was written for another feature table.
        """
        topic, row, end = self.topic, first_row, self.topic.end()
        known, offset = self._next
        begin: int | None = None
        if known != row or not offset:
            begin = topic.begin()
            offset = topic.find(row, begin, end)
        while offset < end:
            segments, offset = topic.next_segments(offset, end)
            for segment in segments:
                if segment.next_row <= row:
                    continue
                if segment.first_row > row:
                    if begin is None:
                        raise self._gap(row, segment)
                    offset, begin = begin, None  # bisecting was misled by rows that stand twice: look at everything
                    break
                batch, begin = topic.decoded(segment, schema_id), None
                cut, row = row - segment.first_row, segment.next_row
                self._next = (row, segment.offset + 1)
                yield FeatureBatch(batch.frame.slice(cut), segment.first_row + cut, batch.schema_id) if cut else batch

    def append(self, batch: FeatureBatch) -> int:
        """Add what of a batch does not stand there yet, however it was cut when it came before; gives how many rows.

        Rows that stand are compared by their ids. The rows are safe, and readers see them, when it returns.

        Args:
            batch: cut anywhere; its first row is at most `rows()`.

        Raises:
            ContractError: it leaves a gap, or the log holds other rows there.
            SchemaMismatchError: the log was written for another feature table.
            FencedError: another writer has taken the log over.
            StoreError: not acknowledged in time; open the log anew and append again.
        """
        if self._lost:
            raise self._lost
        if not batch.frame.height:
            return 0
        writer = self._writer or self._take_over(batch.schema_id)
        rows = self._written
        if batch.first_row > rows:
            raise ContractError(
                f"{self.url}: holds {rows} rows, but row {batch.first_row} comes next; follow the events from a "
                "position that it reaches"
            )
        self._compare(batch, min(rows, batch.next_row))
        new = batch.frame.slice(rows - batch.first_row)
        if new.height:
            self._write(writer, FeatureBatch(new, rows, batch.schema_id))
        return new.height

    def close(self) -> None:
        """End the connections, within some seconds even where no broker is there."""
        self.topic.close()
        if self._writer:
            close_producer(self._writer, _CLOSE_S)
            self._writer = None

    def __enter__(self) -> "KafkaExampleLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _take_over(self, schema_id: str) -> KafkaProducer:
        """Fence every older writer, settle what the last of them left open, and see what stands."""
        writer = producer(
            self.topic.url.brokers,
            self._kafka,
            transactional_id=f"rocket-examples-{self.topic.url.topic}",
            linger_ms=0,
            retry_backoff_ms=_RETRY_MS,
        )
        self._writer = writer
        self._bounded(writer.init_transactions)
        last = self.topic.last()
        if last and last.schema_id != schema_id:
            self._lost = SchemaMismatchError(
                f"{self.url}: written for schema_id {last.schema_id}, but the app has {schema_id}; ingest into another "
                "topic, or use the app that wrote it"
            )
            raise self._lost
        self._written = last.next_row if last else 0
        return writer

    def _write(self, writer: KafkaProducer, batch: FeatureBatch) -> None:
        pieces = list(self._pieces(batch))
        sent: list[Any] = []

        def transaction() -> None:
            writer.begin_transaction()
            try:
                for piece, data in pieces:
                    sent.append(writer.send(self.topic.url.topic, data, headers=segment_headers(piece), partition=0))
                writer.commit_transaction()
            except errors.KafkaError:
                with contextlib.suppress(errors.KafkaError):
                    writer.abort_transaction()
                for each in sent:  # what the broker said of a message tells more than that the commit failed
                    if each.failed():
                        raise each.exception from None
                raise

        self._bounded(transaction)
        self._written = batch.next_row
        self._await_marker(sent[-1].get(0).offset)

    def _await_marker(self, offset: int) -> None:
        """Wait until readers see what was written: the commit is safe before its marker is in the topic."""
        give_up = time.monotonic() + self._kafka.request_timeout_s
        while self.topic.end() <= offset and time.monotonic() < give_up:
            time.sleep(_MARKER_S)

    def _pieces(self, batch: FeatureBatch) -> Iterator[tuple[FeatureBatch, bytes]]:
        """The batch as segments that fit into a message each."""
        data = encode_segment(batch, self._app)
        if len(data) + _HEADER_BYTES <= self._kafka.max_message_bytes or batch.frame.height == 1:
            yield batch, data
            return
        half = batch.frame.height // 2
        yield from self._pieces(FeatureBatch(batch.frame.head(half), batch.first_row, batch.schema_id))
        yield from self._pieces(FeatureBatch(batch.frame.slice(half), batch.first_row + half, batch.schema_id))

    def _bounded(self, work: Callable[[], None]) -> None:
        """Do what may wait for a broker without end, and give it up after twice `request_timeout_s`."""
        failed: list[Exception] = []

        def run() -> None:
            try:
                work()
            except Exception as error:
                failed.append(error)  # raised below, by the thread that waits

        worker = threading.Thread(target=run, name="example-log-writer", daemon=True)
        worker.start()
        worker.join(2 * self._kafka.request_timeout_s)
        try:
            if worker.is_alive():
                raise StoreError(
                    f"{self.url}: no answer within {2 * self._kafka.request_timeout_s:g} s, so whether the last rows "
                    "were written is not known; start again: the log goes on where it stands"
                )
            with speaking(self.url):
                if failed:
                    raise failed[0]
        except RocketError as error:
            self._lost = error
            raise

    def _compare(self, batch: FeatureBatch, upto: int) -> None:
        """The batch's rows before `upto` are those that stand."""
        row = batch.first_row
        for stands in self.read(row, batch.schema_id):
            if row == upto:
                return
            row = min(stands.next_row, upto)
            here = batch.frame["example_id"].slice(stands.first_row - batch.first_row, row - stands.first_row)
            if not here.equals(stands.frame["example_id"].head(row - stands.first_row)):
                raise ContractError(
                    f"{self.url}: rows {stands.first_row} to {row - 1} are others than this input gives; write "
                    "into another topic, or begin this one anew"
                )
        if row < upto:
            raise StoreError(f"{self.url}: row {row} was written but cannot be read yet; check the broker")

    def _gap(self, row: int, after: Segment) -> RocketError:
        return CorruptError(
            f"{self.url}: has no rows {row} to {after.first_row - 1}, lost to retention or never written; give the "
            "topic retention.ms = -1 and ingest again"
        )
