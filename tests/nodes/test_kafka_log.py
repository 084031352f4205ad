"""Requests from a group, answers acknowledged, and nothing lost: by a rebalance, a crash or a broker that is away."""

import time

import pytest
from kafka import TopicPartition
from kafka.structs import MemberState

from contracts.errors import ContractError, FencedError, StoreError
from contracts.sections import Kafka
from contracts.stores import Record
from nodes import kafka_log
from nodes.kafka_client import consumer, producer
from nodes.kafka_log import KafkaLog

SETTINGS = Kafka(request_timeout_s=10)


class Topics:
    """Two topics and a group of a test's own, and what it opened."""

    def __init__(self, broker, partitions: int) -> None:
        self.broker, self.group = broker, broker.name("group")
        self.requests = broker.create(partitions=partitions)
        self.responses = broker.create(partitions=2)
        self.logs: list[KafkaLog] = []

    def log(self, **over) -> KafkaLog:
        urls = self.broker.url(self.requests), self.broker.url(self.responses)
        self.logs.append(KafkaLog(*urls, self.group, SETTINGS, **over))
        return self.logs[-1]

    def ask(self, *values: bytes) -> None:
        writer = producer(self.broker.brokers, SETTINGS)
        for value in values:
            writer.send(self.requests, value, key=value, headers=[("kafka_correlationId", value)])
        writer.close()

    def read(self, topic: str) -> list:
        reader = consumer(self.broker.brokers, SETTINGS, auto_offset_reset="earliest")
        parts = [TopicPartition(topic, number) for number in range(2)]
        reader.assign(parts)
        reader.seek_to_beginning()
        ends, found = reader.end_offsets(parts), []
        while any(reader.position(part) < ends[part] for part in parts):
            found += [each for records in reader.poll(timeout_ms=100).values() for each in records]
        reader.close()
        return found


@pytest.fixture
def topics(kafka):
    made = Topics(kafka, partitions=2)
    yield made
    for log in made.logs:
        log.close()


def poll_until(log: KafkaLog, count: int, timeout_s: float = 20) -> list[Record]:
    found, until = [], time.monotonic() + timeout_s
    while len(found) < count and time.monotonic() < until:
        found += log.poll(50, 100)
    return found


def test_a_record_comes_with_all_it_has_and_its_answer_is_written(topics):
    topics.ask(b"a")
    log = topics.log()
    (record,) = poll_until(log, 1)
    assert (record.key, record.value, record.headers) == (b"a", b"a", (("kafka_correlationId", b"a"),))
    assert record.timestamp_ms > 1_700_000_000_000
    log.append([Record(record.key, b"answer", record.headers)])
    log.commit()
    (answer,) = topics.read(topics.responses)
    assert (answer.key, answer.value, answer.headers) == (b"a", b"answer", [("kafka_correlationId", b"a")])


def test_an_answer_goes_to_the_topic_that_is_asked_for_only_where_it_is_allowed(topics, kafka):
    own, foreign = kafka.create(partitions=2), kafka.create(partitions=2)
    log = topics.log(reply_topics=[own])
    to = [own, foreign, topics.responses, "\udcff"]
    asked = [name.encode(errors="surrogateescape") for name in to]
    log.append([Record(None, name, (("kafka_replyTopic", name),)) for name in asked])
    assert [each.value for each in topics.read(own)] == [own.encode()]
    assert topics.read(foreign) == []
    assert len(topics.read(topics.responses)) == 3
    assert log.counts["replies_refused"] == 2


def test_what_is_not_committed_comes_again_to_the_one_that_follows(topics):
    topics.ask(b"a", b"b", b"c")
    first = topics.log(member="scorer-0")
    seen = poll_until(first, 3)
    assert sorted(each.value for each in seen) == [b"a", b"b", b"c"]
    first.close()
    began = time.monotonic()
    second = topics.log(member="scorer-0")
    assert sorted(each.value for each in poll_until(second, 3)) == [b"a", b"b", b"c"]
    assert time.monotonic() - began < 3
    second.commit()
    second.close()
    topics.ask(b"d")
    assert [each.value for each in poll_until(topics.log(member="scorer-0"), 1)] == [b"d"]


def test_a_member_of_the_same_name_fences_the_one_before(topics):
    older = topics.log(member="scorer-0")
    topics.ask(b"a")
    poll_until(older, 1)
    newer = topics.log(member="scorer-0")
    assert [each.value for each in poll_until(newer, 1)] == [b"a"]
    with pytest.raises(FencedError, match="another writer has taken over"):  # noqa: PT012
        for _ in range(100):
            older.poll(50, 10)
            older.commit()


def test_a_rebalance_between_poll_and_commit_loses_nothing(topics):
    topics.ask(*[b"%d" % number for number in range(40)])
    first = topics.log()
    seen = poll_until(first, 40)
    second = topics.log()
    until = time.monotonic() + 20
    taken: list[Record] = []
    while not taken and time.monotonic() < until:  # both must poll for the partitions to move
        seen += first.poll(50, 100)
        taken += second.poll(50, 100)
    assert taken  # what the first had polled and not committed
    first.commit()
    second.commit()
    assert {each.value for each in [*seen, *taken]} == {b"%d" % number for number in range(40)}
    topics.ask(*[b"%d" % number for number in range(40, 80)])
    more: list[Record] = []
    until = time.monotonic() + 20
    while len({each.value for each in more} - {b"%d" % number for number in range(40)}) < 40:
        assert time.monotonic() < until
        more += [*first.poll(50, 100), *second.poll(50, 100)]
        first.commit()
        second.commit()


def test_a_join_that_the_client_forgot_is_made_again(topics, monkeypatch):
    monkeypatch.setattr(kafka_log, "_LOST_S", 0.5)
    log = topics.log(member="scorer-0")
    topics.ask(b"a")
    poll_until(log, 1)
    log.commit()
    coordinator = (
        log._consumer._coordinator
    )  # as kafka-python 3.0.12 leaves it when a poll times out between two requests
    coordinator.state = MemberState.REBALANCING
    coordinator._disable_heartbeat()
    log._consumer._subscription.assign_from_subscribed([])
    topics.ask(b"b")
    assert [each.value for each in poll_until(log, 1)] == [b"b"]
    assert log.counts["joined_again"] == 1


class NotUtf8(str):
    """A header's name as another client may write it."""

    def encode(self, *_):
        return b"\xff\xfe"


def test_a_message_that_the_client_cannot_read_is_passed_over_and_counted(topics):
    writer = producer(topics.broker.brokers, SETTINGS, linger_ms=200)
    for value, headers in ((b"a", []), (b"poison", [(NotUtf8("x"), b"")]), (b"in its batch", [])):
        writer.send(topics.requests, value, headers=headers, partition=0)
    writer.flush()
    writer.send(topics.requests, b"b", partition=0)
    writer.send(topics.requests, b"c", partition=1)
    writer.close()
    log = topics.log()
    assert sorted(each.value for each in poll_until(log, 3)) == [b"a", b"b", b"c"]
    assert log.counts["damaged"] == 2
    log.commit()


def test_a_tombstone_is_an_empty_request(topics):
    writer = producer(topics.broker.brokers, SETTINGS)
    writer.send(topics.requests, None, key=b"k")
    writer.close()
    assert poll_until(topics.log(), 1)[0].value == b""


def test_an_answer_beyond_the_message_size_is_refused_in_one_sentence(topics):
    log = topics.log()
    with pytest.raises(ContractError, match="a message is too large"):
        log.append([Record(None, bytes(SETTINGS.max_message_bytes + 1))])
    five_mb = 5_000_000  # the broker's own limit for this topic is lower
    with pytest.raises(ContractError, match=r"max\.message\.bytes of the topic"):
        log.append([Record(None, bytes(five_mb))])


def test_missing_topics_and_two_clusters_are_refused_at_the_start(topics, kafka):
    url = kafka.url
    with pytest.raises(StoreError, match="no such topic"):
        KafkaLog(url(topics.requests), url(kafka.name()), "g", SETTINGS)
    with pytest.raises(StoreError, match="no such topic"):
        topics.log(reply_topics=[kafka.name()])
    with pytest.raises(ContractError, match="answers go to the brokers"):
        KafkaLog(url(topics.requests), "kafka://other:1/t", "g", SETTINGS)


@pytest.mark.slow
def test_a_broker_that_is_killed_and_comes_back_loses_nothing(own_kafka):
    broker = own_kafka()
    topics = Topics(broker, partitions=2)
    log = topics.log(member="scorer-0")
    topics.ask(b"a")
    log.append([record._replace(value=b"to " + record.value) for record in poll_until(log, 1)])
    broker.kill()
    assert log.poll(200, 10) == []
    began = time.monotonic()
    log.commit()  # cannot be said now, and is said later
    assert time.monotonic() - began < 8
    broker.start()
    topics.ask(b"b")
    seen = poll_until(log, 1, timeout_s=30)
    assert b"b" in {record.value for record in seen}
    log.append([record._replace(value=b"to " + record.value) for record in seen])
    log.commit()
    log.close()
    assert {each.value for each in topics.read(topics.responses)} == {b"to a", b"to b"}
    topics.ask(b"c")
    again = topics.log(member="scorer-0")
    assert [each.value for each in poll_until(again, 1)] == [b"c"]
    again.close()
