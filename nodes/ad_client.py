"""Who asks: sends ad requests to a topic and finds their answers on another, by correlation id."""

import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from uuid import uuid4

from kafka import TopicPartition

from contracts.errors import ContractError, StoreError
from contracts.sections import Kafka
from contracts.stores import Record
from nodes.kafka_client import close_producer, consumer, partitions_of_all, producer
from nodes.kafka_errors import speaking
from nodes.kafka_log import record_of
from nodes.kafka_url import parse_kafka_url
from nodes.reply_headers import CORRELATION_ID, REPLY_TOPIC, Headers

_POLL_MS = 100


class AdClient:
    """Asks scorers over Kafka; other clients may share the topic of answers.

    Args:
        requests: kafka://… URL of the topic of requests.
        responses: kafka://… URL of the topic that answers are asked to; on the same brokers.
        kafka: how the brokers are spoken to.

    Raises:
        ContractError: a URL is none, or the two name different brokers.
        StoreError: no broker answers, or a topic is missing.
    """

    def __init__(self, requests: str, responses: str, kafka: Kafka) -> None:
        self.requests, self.responses = parse_kafka_url(requests), parse_kafka_url(responses)
        if set(self.requests.brokers) != set(self.responses.brokers):
            raise ContractError(f"{responses}: answers come from the brokers that requests go to, {requests}")
        if self.requests.topic == self.responses.topic:
            raise ContractError(f"{requests}: requests and answers need two topics; name that of the answers, too")
        brokers = self.requests.brokers
        found = partitions_of_all(brokers, [self.requests.topic, self.responses.topic], kafka)
        parts = [TopicPartition(self.responses.topic, number) for number in found[self.responses.topic]]
        self._producer = producer(brokers, kafka, linger_ms=0)
        self._consumer = consumer(brokers, kafka)
        with speaking(str(self.responses)):
            self._consumer.assign(parts)
            for part, offset in self._consumer.end_offsets(parts).items():  # answers to come, not those of before
                self._consumer.seek(part, offset)

    def ask(self, request: bytes, *, timeout_s: float = 5.0, headers: Headers = ()) -> Record:
        """Send a request and wait for its answer.

        Args:
            request: JSON, as the app's contract says.
            timeout_s: from now on.
            headers: beside the correlation id and the reply topic.

        Raises:
            StoreError: no answer came in time, or the brokers refuse.
        """
        until_s = time.monotonic() + timeout_s
        (correlation_id,) = self.send([request], headers=headers)
        while time.monotonic() < until_s:
            for found, answer in self.answers(until_s - time.monotonic()):
                if found == correlation_id:
                    return answer
        raise StoreError(
            f"no answer on {self.responses} within {timeout_s:g} s; is a scorer running (rocket serve --requests "
            f"{self.requests})?"
        )

    def send(self, requests: Sequence[bytes], *, headers: Headers = (), keys: Sequence[bytes] = ()) -> list[bytes]:
        """Send requests and wait for nothing but that they are safe; returns their correlation ids.

        Args:
            requests: JSON, one each.
            headers: of each, beside its correlation id and the reply topic; one of these names wins.
            keys: one a request; its partition follows it. None: spread.
        """
        own = {name for name, _ in headers}
        ids = [uuid4().hex.encode() for _ in requests]
        with speaking(str(self.requests)):
            sent = [
                self._producer.send(
                    self.requests.topic,
                    request,
                    key=keys[place] if keys else None,
                    headers=[
                        pair
                        for pair in ((CORRELATION_ID, ids[place]), (REPLY_TOPIC, self.responses.topic.encode()))
                        if pair[0] not in own
                    ]
                    + list(headers),
                )
                for place, request in enumerate(requests)
            ]
            for each in sent:
                each.get()
        return ids

    def answers(self, max_wait_s: float) -> Iterator[tuple[bytes | None, Record]]:
        """Correlation id and answer of whatever comes next, to this client or to others; none after `max_wait_s`."""
        until_s = time.monotonic() + max_wait_s
        found: dict[TopicPartition, list[object]] = {}
        while not found and time.monotonic() < until_s:
            with speaking(str(self.responses)):
                found = self._consumer.poll(timeout_ms=min(_POLL_MS, max(0, round(max_wait_s * 1000))))
        for records in found.values():
            for each in records:
                answer = record_of(each)
                yield next((value for name, value in answer.headers if name == CORRELATION_ID), None), answer

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
