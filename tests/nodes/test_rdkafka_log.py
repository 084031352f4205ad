"""What is librdkafka's own in a member of a group of scorers; what both clients promise stands in `test_kafka_log`."""

import contextlib
import time
from collections.abc import Iterator

import pytest
from confluent_kafka import KafkaError, TopicPartition
from kafka import errors

from contracts.errors import ContractError, StoreError
from contracts.sections import Kafka
from contracts.stores import Record
from nodes import kafka_logs
from nodes.kafka_client import producer
from nodes.kafka_log import KafkaLog
from nodes.kafka_logs import open_kafka_log
from nodes.rdkafka_errors import as_kafka
from nodes.rdkafka_log import RdKafkaLog
from tests.kafka_broker import KafkaBroker


@pytest.fixture
def log(kafka: KafkaBroker) -> Iterator[RdKafkaLog]:
    """Which has polled one request of partition 0, and has both partitions."""
    requests = kafka.create(partitions=2)
    writer = producer((kafka.brokers,), Kafka())
    writer.send(requests, b"a", partition=0)
    writer.close()
    with RdKafkaLog(kafka.url(requests), kafka.url(kafka.create()), kafka.name("g"), Kafka()) as made:
        until_s = time.monotonic() + 20
        while not made.poll(100, 10):
            assert time.monotonic() < until_s
        yield made


def committed(log: RdKafkaLog) -> list[int | None]:
    parts = [TopicPartition(log.requests.topic, part) for part in (0, 1)]
    return [part.offset for part in log._consumer.committed(parts, timeout=10)]


def test_a_commit_that_fails_while_the_group_moves_is_said_again_at_the_end(log: RdKafkaLog) -> None:
    log._commits.done = {0: 7, 1: 2}
    log.commit(wait=False)
    log._commits.done[0] = 8
    log._commits.told(KafkaError(KafkaError.ILLEGAL_GENERATION), [])
    log.commit()
    assert (log._commits.done, committed(log)) == ({}, [8, 2])


def ahead(kafka: KafkaBroker, log: RdKafkaLog) -> None:
    """Twenty requests more; the first is taken while a commit is waited for."""
    with contextlib.closing(producer((kafka.brokers,), Kafka())) as writer:
        for number in range(20):
            writer.send(log.requests.topic, b"%d" % number, partition=0)
    until_s = time.monotonic() + 20
    while not log._reader._ahead:
        log._reader.hear(0.05)
        assert time.monotonic() < until_s


def test_what_comes_while_a_commit_is_waited_for_is_for_the_next_poll(kafka: KafkaBroker, log: RdKafkaLog) -> None:
    ahead(kafka, log)
    log.commit()
    assert committed(log)[0] == 1, "what was not handed out was committed"
    found, until_s = list[bytes](), time.monotonic() + 20
    while len(found) < 20 and time.monotonic() < until_s:
        found += [each.value for each in log.poll(100, 7)]
        log.commit()
    assert found == [b"%d" % number for number in range(20)]
    assert committed(log)[0] == 21


def test_partitions_that_go_take_along_what_was_taken_ahead(kafka: KafkaBroker, log: RdKafkaLog) -> None:
    ahead(kafka, log)
    log._commits.done[1] = 4
    log._revoked(log._consumer, [TopicPartition(log.requests.topic, 0)])
    assert (log._reader._ahead, log._commits.done, log.counts["partitions_lost"]) == ([], {1: 4}, 1)


def test_a_refusal_for_good_is_said_in_a_sentence(log: RdKafkaLog) -> None:
    log._commits.told(KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED), [])
    with pytest.raises(StoreError, match="give it rights"):
        log.commit(wait=False)


def test_what_is_wrong_with_a_connection_is_told(log: RdKafkaLog) -> None:
    log._heard(KafkaError(KafkaError._SSL, "certificate expired"))
    assert str(log._late("no answer")).endswith("no answer; certificate expired")
    log.append([Record(None, b"an answer")])
    assert str(log._late("no answer")).endswith("no answer")
    log._heard(KafkaError(KafkaError._AUTHENTICATION, "wrong password"))
    with pytest.raises(StoreError, match="wrong password"):
        log.poll(10, 10)
    log.poll(10, 10)


def test_settings_that_librdkafka_does_not_take_are_brought_into_its_bounds(kafka: KafkaBroker) -> None:
    urls = kafka.url(kafka.create()), kafka.url(kafka.create())
    for settings in ({"request_timeout_s": 301}, {"max_message_bytes": 2_000_000_000}):
        with RdKafkaLog(*urls, kafka.name("g"), Kafka.model_validate(settings)) as opened:
            opened.append([Record(None, b"an answer")])


@pytest.mark.parametrize(
    ("code", "kind", "retriable"),
    [
        (KafkaError._ALL_BROKERS_DOWN, errors.KafkaConnectionError, True),
        (KafkaError._MSG_TIMED_OUT, errors.KafkaTimeoutError, None),
        (KafkaError.MSG_SIZE_TOO_LARGE, errors.MessageSizeTooLargeError, False),
        (KafkaError.FENCED_INSTANCE_ID, errors.FencedInstanceIdError, False),
        (KafkaError._AUTHENTICATION, errors.SaslAuthenticationFailedError, False),
        (KafkaError._PARTITION_EOF, errors.KafkaError, None),
    ],
)
def test_errors_are_those_that_the_sentences_know(code: int, kind: type[Exception], retriable: bool | None) -> None:  # noqa: FBT001
    found = as_kafka(KafkaError(code))
    assert type(found) is kind
    assert retriable is None or found.retriable is retriable


def test_settings_choose_the_client(kafka: KafkaBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    urls = kafka.url(kafka.create()), kafka.url(kafka.create())
    for name, kind in (("kafka-python", KafkaLog), ("librdkafka", RdKafkaLog)):
        with open_kafka_log(*urls, kafka.name("g"), Kafka.model_validate({"client": name})) as opened:
            assert type(opened) is kind
    monkeypatch.setattr(kafka_logs, "find_spec", lambda _: None)
    with pytest.raises(ContractError, match=r"install rocket-ctr\[fast\]"):
        open_kafka_log(*urls, "g", Kafka(client="librdkafka"))
