"""Who asks: sends ad requests to a topic and finds their answers on another, by correlation id."""

import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from uuid import uuid4

import msgspec
from kafka import TopicPartition

from contracts.errors import ContractError, StoreError
from contracts.sections import Kafka
from contracts.serving import UNREADABLE, AdResponse
from contracts.stores import Record
from nodes.kafka_client import close_producer, consumer, partitions_of_all, producer
from nodes.kafka_errors import speaking
from nodes.kafka_record import record_of
from nodes.kafka_url import parse_kafka_url
from nodes.reply_headers import CORRELATION_ID, REPLY_TOPIC, Headers, header_of

_POLL_MS = 100
_DECODE = msgspec.json.Decoder(AdResponse).decode
#: What the decoder may raise on bytes from outside.


def read_answer(data: bytes, where: str = "the topic of answers") -> AdResponse:
    """The answer in a record.

    Args:
        data: its value.
        where: it came from, for the error.

    Raises:
        ContractError: it is no answer.

    >>> read_answer(b'{"id":"r1","source":"prior"}').source
    'prior'
    """
    try:
        return _DECODE(data)
    except UNREADABLE as error:
        raise ContractError(f"{where}: what came is no answer ({error}); is that the topic of answers?") from error


class AdClient:
    """Asks scorers over Kafka; other clients may share the topic of answers.

    One at a time with `ask`. Many at once: `send` them, take `answers` as they come, in any order, and ask `overdue`
    now and then whose time is up. One thread may send while another takes the answers.

    Args:
        requests: kafka://… URL of the topic of requests.
        responses: kafka://… URL of the topic that answers are asked to; on the same brokers.
        kafka: how the brokers are spoken to.
        timeout_s: until an answer is given up, where a call says nothing else.

    Raises:
        ContractError: a URL is none, or the two name different brokers.
        StoreError: no broker answers, or a topic is missing.
    """

    def __init__(self, requests: str, responses: str, kafka: Kafka, *, timeout_s: float = 5.0) -> None:
        self.requests, self.responses = parse_kafka_url(requests), parse_kafka_url(responses)
        if set(self.requests.brokers) != set(self.responses.brokers):
            raise ContractError(f"{responses}: answers come from the brokers that requests go to, {requests}")
        if self.requests.topic == self.responses.topic:
            raise ContractError(f"{requests}: requests and answers need two topics; name that of the answers, too")
        self._timeout_s, self._patience_s = timeout_s, kafka.request_timeout_s
        self._due_s: dict[bytes, float] = {}  # correlation id -> when its answer is given up, monotonic
        brokers = self.requests.brokers
        found = partitions_of_all(brokers, [self.requests.topic, self.responses.topic], kafka)
        parts = [TopicPartition(self.responses.topic, number) for number in found[self.responses.topic]]
        self._producer = producer(brokers, kafka, linger_ms=0)
        self._consumer = consumer(brokers, kafka)
        with speaking(str(self.responses)):
            self._consumer.assign(parts)
            for part, offset in self._consumer.end_offsets(parts).items():  # answers to come, not those of before
                self._consumer.seek(part, offset)

    def ask(self, request: bytes, *, timeout_s: float | None = None, headers: Headers = ()) -> Record:
        """Send a request and wait for its answer.

        Args:
            request: JSON, as the app's contract says.
            timeout_s: from now on; None: the client's.
            headers: beside the correlation id and the reply topic.

        Raises:
            StoreError: no answer came in time, or the brokers refuse.
        """
        patience_s = self._timeout_s if timeout_s is None else timeout_s
        until_s = time.monotonic() + patience_s
        (correlation_id,) = self.send([request], headers=headers, timeout_s=patience_s)
        while time.monotonic() < until_s:
            for found, answer in self.answers(until_s - time.monotonic()):
                if found == correlation_id:
                    return answer
        self._due_s.pop(correlation_id, None)
        raise StoreError(
            f"no answer on {self.responses} within {patience_s:g} s; is a scorer running (rocket serve --requests "
            f"{self.requests})?"
        )

    def send(
        self,
        requests: Sequence[bytes],
        *,
        headers: Headers = (),
        keys: Sequence[bytes] = (),
        ids: Sequence[bytes] = (),
        at_ms: int | None = None,
        timeout_s: float | None = None,
        safe: bool = True,
    ) -> list[bytes]:
        """Send requests and wait for nothing but that they are safe; returns their correlation ids.

        Args:
            requests: JSON, one each.
            headers: of each, beside its correlation id; a reply topic here wins over the client's own.
            keys: one a request; its partition follows it. None: spread.
            ids: their correlation ids; none: new ones that nobody else has.
            at_ms: their timestamp, from which their `tmax` counts, epoch milliseconds. None: now.
            timeout_s: until `overdue` names those that have no answer; None: the client's.
            safe: False: do not wait even for that; `flush` does.

        Raises:
            StoreError: the brokers refuse, or do not answer.
        """
        named = list(ids) or [uuid4().hex.encode() for _ in requests]
        elsewhere = any(name == REPLY_TOPIC for name, _ in headers)
        common = [*headers] if elsewhere else [(REPLY_TOPIC, self.responses.topic.encode()), *headers]
        due_s = time.monotonic() + (self._timeout_s if timeout_s is None else timeout_s)
        self._due_s.update(dict.fromkeys(named, due_s))
        with speaking(str(self.requests)):
            sent = [
                self._producer.send(
                    self.requests.topic,
                    request,
                    key=keys[place] if keys else None,
                    headers=[(CORRELATION_ID, named[place]), *common],
                    timestamp_ms=at_ms,
                )
                for place, request in enumerate(requests)
            ]
            for each in sent if safe else ():
                each.get()
        return named

    def flush(self) -> None:
        """Wait until all that was sent is safe.

        Raises:
            StoreError: the brokers refuse, or do not answer.
        """
        with speaking(str(self.requests)):
            self._producer.flush(self._patience_s)

    def answers(self, max_wait_s: float) -> Iterator[tuple[bytes | None, Record]]:
        """Correlation id and answer of whatever comes next, to this client or to others; none after `max_wait_s`.

        An answer may come twice, and one that was given up may still come.
        """
        until_s = time.monotonic() + max_wait_s
        found: dict[TopicPartition, list[object]] = {}
        left_s = max_wait_s
        while True:
            with speaking(str(self.responses)):
                found = self._consumer.poll(timeout_ms=min(_POLL_MS, max(0, round(left_s * 1000))))
            left_s = until_s - time.monotonic()
            if found or left_s <= 0:
                break
        for records in found.values():
            for each in records:
                answer = record_of(each)
                correlation_id = header_of(answer, CORRELATION_ID)
                if correlation_id is not None:
                    self._due_s.pop(correlation_id, None)
                yield correlation_id, answer

    @property
    def waiting(self) -> int:
        """Requests sent that have neither been answered nor given up."""
        return len(self._due_s)

    def overdue(self) -> list[bytes]:
        """Correlation ids of the requests that waited for their whole timeout; each is named once, and given up."""
        now_s = time.monotonic()
        late = [name for name, due_s in list(self._due_s.items()) if due_s <= now_s]
        for name in late:
            self._due_s.pop(name, None)
        return late

    def close(self) -> None:
        """End the connections."""
        self._consumer.close(autocommit=False)
        close_producer(self._producer, 5)

    def __enter__(self) -> "AdClient":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
