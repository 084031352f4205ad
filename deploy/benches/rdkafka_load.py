"""A client for load, on librdkafka: what measures must not take the processor from what is measured.

On two cores `nodes.ad_client` takes more than half of one at 500 requests a second, this a tenth. It lingers as Kafka's
own producer does since version 4 (KIP-1030); a latency counts from when a request was due, so the lingering is in it.
"""

import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from contracts.errors import StoreError
from contracts.stores import Record
from nodes.kafka_url import parse_kafka_url
from nodes.reply_headers import CORRELATION_ID, REPLY_TOPIC, header_of

LINGER_MS = 5
_PATIENCE_S, _PAUSE_S = 10.0, 0.02
_MOST = 500  # answers that are taken at a time
_NOT_YET = {KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE, KafkaError.UNKNOWN_TOPIC_OR_PART}


class RdKafkaClient:
    """Sends requests and takes the answers that come from then on; other clients may share both topics.

    One thread may send while another takes the answers.

    Args:
        requests: kafka://… URL of the topic of requests.
        responses: kafka://… URL of the topic of answers, on the same brokers, which speak in plain text.
        linger_ms: how long a request waits for others to leave with.

    Raises:
        StoreError: no broker answers, or a topic is missing.
    """

    def __init__(self, requests: str, responses: str, *, linger_ms: int = LINGER_MS) -> None:
        self.requests, self.responses = parse_kafka_url(requests), parse_kafka_url(responses)
        self._headers = (REPLY_TOPIC, self.responses.topic.encode())
        self._failed: list[str] = []
        common = {
            "bootstrap.servers": ",".join(self.requests.brokers),
            "allow.auto.create.topics": False,
            "log_level": 0,
        }
        self._producer = Producer(common | {"enable.idempotence": True, "linger.ms": linger_ms})
        wanted = {"group.id": "nobody", "enable.auto.commit": False, "isolation.level": "read_committed"}
        self._consumer = Consumer(common | wanted)
        try:
            for url in (self.requests, self.responses):
                found = self._consumer.list_topics(url.topic, timeout=_PATIENCE_S).topics[url.topic]
                if found.error is not None:
                    raise StoreError(f"{url}: {found.error.str()}")
            parts = [TopicPartition(self.responses.topic, number) for number in found.partitions]
            for part in parts:  # answers to come, not those of before
                part.offset = self._end_of(part)
            self._consumer.assign(parts)
        except KafkaException as error:
            self.close()
            raise StoreError(f"{self.responses}: {error.args[0].str()}") from error
        except StoreError:
            self.close()
            raise

    def send(self, requests: Sequence[bytes], *, ids: Sequence[bytes], at_ms: int, safe: bool = True) -> None:
        """Send requests under their correlation ids.

        Args:
            requests: JSON, one each.
            ids: one each.
            at_ms: their timestamp, epoch milliseconds.
            safe: wait until brokers have them.

        Raises:
            StoreError: the brokers refused one, or one that was sent before, or do not answer.
        """
        topic, left = self.requests.topic, 0
        for request, name in zip(requests, ids, strict=True):
            headers: list[Any] = [(CORRELATION_ID, name), self._headers]
            try:
                self._producer.produce(topic, request, headers=headers, timestamp=at_ms, on_delivery=self._delivered)
            except (KafkaException, BufferError) as error:  # too large; too many on their way
                self._failed.append(str(error.args[0]))
                break
        if safe:
            left = self._producer.flush(_PATIENCE_S)
        else:
            self._producer.poll(0)  # news of those before
        if self._failed or left:
            why = self._failed[0] if self._failed else f"no answer within {_PATIENCE_S:g} s"
            raise StoreError(f"{self.requests}: a request was not taken: {why}")

    def answers(self, max_wait_s: float) -> Iterator[tuple[bytes | None, Record]]:
        """Correlation id and answer of whatever comes next; none after `max_wait_s`.

        Raises:
            StoreError: the brokers refuse.
        """
        first = self._consumer.poll(max_wait_s)
        if first is None:
            return
        for message in (first, *self._consumer.consume(_MOST, timeout=0)):
            answer = self._record(message)
            yield header_of(answer, CORRELATION_ID), answer

    def _end_of(self, part: TopicPartition) -> int:
        """The offset of the next answer; a broker that has just made a topic may not lead it yet."""
        until_s = time.monotonic() + _PATIENCE_S
        while True:
            try:
                return int(self._consumer.get_watermark_offsets(part, timeout=_PATIENCE_S)[1])
            except KafkaException as error:
                if error.args[0].code() not in _NOT_YET or time.monotonic() > until_s:
                    raise
                time.sleep(_PAUSE_S)

    def _record(self, message: Message) -> Record:
        error = message.error()
        if error is not None:
            raise StoreError(f"{self.responses}: {error.str()}")
        headers: Any = message.headers() or ()
        _, at_ms = message.timestamp()
        return Record(message.key(), message.value() or b"", tuple(headers), at_ms, message.offset() or 0)

    def _delivered(self, error: Any, message: Message) -> None:
        del message
        if error is not None:
            self._failed.append(error.str())

    def close(self) -> None:
        """End the connections; what has not left by then is given up."""
        self._consumer.close()
        self._producer.flush(_PATIENCE_S if not self._failed else 0)

    def __enter__(self) -> "RdKafkaClient":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
