"""The client for load against a real Kafka: what was asked comes back under its id, and refusals are said."""

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException

from contracts.errors import StoreError
from contracts.sections import Kafka
from deploy.benches import rdkafka_load
from deploy.benches.rdkafka_load import RdKafkaClient
from deploy.live.open_loop import load
from nodes.kafka_log import KafkaLog
from tests.kafka_broker import KafkaBroker

AT_MS = 1_700_000_000_123


@pytest.fixture
def urls(kafka: KafkaBroker) -> tuple[str, str]:
    return kafka.url(kafka.create(partitions=2)), kafka.url(kafka.create(partitions=2))


@contextlib.contextmanager
def answering(urls: tuple[str, str]) -> Iterator[None]:
    """A service that sends each request back twice, while the block runs."""
    stop = threading.Event()

    def answer() -> None:
        with KafkaLog(*urls, "answering", Kafka()) as log:
            while not stop.is_set():
                log.append([each for each in log.poll(50, 100) for _ in range(2)])

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_what_is_asked_comes_back_under_its_id_to_all_who_were_there_then(urls: tuple[str, str]) -> None:
    with answering(urls), RdKafkaClient(*urls, linger_ms=0) as first:
        first.send([b"q0", b"q1"], ids=[b"a", b"b"], at_ms=AT_MS)
        until_s, came = time.monotonic() + 20, list(first.answers(20))
        while len(came) < 4 and time.monotonic() < until_s:
            came += first.answers(1)
        with RdKafkaClient(*urls) as second:
            second.send([b"q2"], ids=[b"c"], at_ms=AT_MS)
            found = list(second.answers(20))
    assert {name: record.value for name, record in came} == {b"a": b"q0", b"b": b"q1"}
    assert {name: record.value for name, record in found} == {b"c": b"q2"}, "answers of before came again"
    assert {record.timestamp_ms for _, record in came} == {AT_MS}


def test_load_counts_each_answer_once(urls: tuple[str, str]) -> None:
    with answering(urls), RdKafkaClient(*urls) as client:
        found = load(client, [b"%d" % number for number in range(50)], 200, name="x")
    assert (found.unanswered, found.latency_ms.size) == (0, 50)
    assert sorted(int(record.value) for record, _ in found.answers) == list(range(50))
    assert found.latency_ms.min() > 0


def test_a_missing_topic_and_a_request_that_is_too_large_are_said(urls: tuple[str, str], kafka: KafkaBroker) -> None:
    with pytest.raises(StoreError, match="Unknown topic"):
        RdKafkaClient(urls[0], kafka.url(kafka.name()))
    with RdKafkaClient(*urls) as client, pytest.raises(StoreError, match="large"):
        client.send([bytes(3_000_000)], ids=[b"a"], at_ms=AT_MS)


@pytest.mark.parametrize("code", [KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.TOPIC_AUTHORIZATION_FAILED])
def test_a_new_partition_is_waited_for_until_it_has_a_leader(
    urls: tuple[str, str], monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    fails = iter([True, True])

    class Slow(Consumer):
        def get_watermark_offsets(self, *args: Any, **more: Any) -> Any:
            if next(fails, False):
                raise KafkaException(KafkaError(code))
            return super().get_watermark_offsets(*args, **more)

    monkeypatch.setattr(rdkafka_load, "Consumer", Slow)
    if code == KafkaError.TOPIC_AUTHORIZATION_FAILED:
        with pytest.raises(StoreError, match="authorization failed"):
            RdKafkaClient(*urls)
        return
    with answering(urls), RdKafkaClient(*urls) as client:
        client.send([b"q"], ids=[b"a"], at_ms=AT_MS)
        assert next(name for name, _ in client.answers(20)) == b"a"


def test_a_broker_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rdkafka_load, "_PATIENCE_S", 1.0)
    with pytest.raises(StoreError, match=r"kafka://127.0.0.1:1/responses: "):
        RdKafkaClient("kafka://127.0.0.1:1/requests", "kafka://127.0.0.1:1/responses")
