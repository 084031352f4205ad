"""Requests from a group, answers acknowledged, and nothing lost: by a rebalance, a crash or a broker that is away."""

import time

import pytest
from confluent_kafka import Producer
from kafka.structs import MemberState

from contracts.errors import ContractError, FencedError, StoreError
from contracts.stores import Record
from nodes import kafka_log
from nodes.kafka_client import producer
from nodes.kafka_log import KafkaLog
from tests.nodes.scorer_topics import KINDS, SETTINGS, Topics, poll_until


@pytest.fixture(params=KINDS)
def topics(kafka, request):
    made = Topics(kafka, partitions=2, client=request.param)
    yield made
    for log in made.logs:
        log.close()


def test_a_record_comes_with_all_it_has_and_its_answer_is_written(topics):
    topics.ask(b"a")
    log = topics.log()
    (record,) = poll_until(log, 1)
    assert (record.key, record.value, record.headers) == (b"a", b"a", (("kafka_correlationId", b"a"),))
    assert record.timestamp_ms > 1_700_000_000_000
    log.append([Record(record.key, b"answer", record.headers)])
    log.commit()
    (answer,) = topics.broker.read(topics.responses)
    assert (answer.key, answer.value, answer.headers) == (b"a", b"answer", [("kafka_correlationId", b"a")])


def test_an_answer_goes_to_the_topic_that_is_asked_for_only_where_it_is_allowed(topics, kafka):
    own, foreign = kafka.create(partitions=2), kafka.create(partitions=2)
    log = topics.log(reply_topics=[own])
    to = [own, foreign, topics.responses, "\udcff"]
    asked = [name.encode(errors="surrogateescape") for name in to]
    log.append([Record(None, name, (("kafka_replyTopic", name),)) for name in asked])
    assert [each.value for each in topics.broker.read(own)] == [own.encode()]
    assert topics.broker.read(foreign) == []
    assert len(topics.broker.read(topics.responses)) == 3
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


def test_a_commit_that_nobody_waits_for_arrives(topics):
    topics.ask(b"a")
    first = topics.log(member="scorer-0")
    poll_until(first, 1)
    first.commit(wait=False)
    for _ in range(20):  # polls bring the news
        assert first.poll(50, 10) == []
    first.close()
    topics.ask(b"b")
    assert [each.value for each in poll_until(topics.log(member="scorer-0"), 1)] == [b"b"]


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
        first.commit(wait=False)  # to wait would be for the other, which polls afterwards
        second.commit(wait=False)
    assert (first.counts["joined_again"], second.counts["joined_again"]) == (0, 0), "a join was forgotten for seconds"


@pytest.mark.parametrize("topics", ["kafka-python"], indirect=True)
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


@pytest.mark.parametrize("topics", ["kafka-python"], indirect=True)
def test_a_join_that_ends_between_two_polls_is_not_begun_anew(topics):
    first = topics.log()
    topics.ask(b"a")
    poll_until(first, 1)
    second = topics.log()
    coordinator, until = first._consumer._coordinator, time.monotonic() + 20
    while coordinator._join_task is None or not coordinator._join_task.is_done:
        assert time.monotonic() < until
        if coordinator._join_task is None:
            first.poll(1, 10)
        second.poll(1, 10)
    generation = coordinator._generation.generation_id
    first.poll(200, 10)
    assert (coordinator.state, coordinator._generation.generation_id) == (MemberState.STABLE, generation)


@pytest.mark.parametrize("topics", ["kafka-python"], indirect=True)
def test_who_has_just_joined_says_how_far_it_is_without_waiting_behind_a_fetch(topics, monkeypatch):
    topics.ask(b"a", b"b", b"c")
    log, until = topics.log(), time.monotonic() + 20
    while not log.poll(100, 1):
        assert time.monotonic() < until
    with monkeypatch.context() as patched:
        patched.setattr(log._consumer, "end_offsets", lambda *_, **__: pytest.fail("asked behind the fetch"))
        patched.setattr(kafka_log, "NEWS_S", 60.0)
        assert log.standing() == (2, 3)
    log._consumer.unsubscribe()
    assert log.standing().partitions == 0, "what it had is gone"


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
    whole = isinstance(log, KafkaLog)  # a batch with damage is passed over whole; librdkafka passes over the message
    good = [b"a", b"b", b"c"] if whole else [b"a", b"b", b"c", b"in its batch"]
    assert sorted(each.value for each in poll_until(log, len(good))) == good
    assert log.counts["damaged"] == (2 if whole else 1)
    log.commit()


def test_damage_on_the_broker_s_disk_is_passed_over_and_counted(topics):
    for value in (b"a", b"poison" * 20, b"b"):
        writer = producer(topics.broker.brokers, SETTINGS)
        writer.send(topics.requests, value, partition=0)
        writer.close()
    log = topics.broker.server.folder / "data" / f"{topics.requests}-0" / f"{0:020}.log"
    at = log.read_bytes().index(b"poison")
    with log.open("r+b") as file:
        file.seek(at + 5)
        file.write(b"X")
    reader = topics.log()
    found = poll_until(reader, 2)
    assert ([each.value for each in found], reader.counts["damaged"]) == ([b"a", b"b"], 1)
    reader.commit()
    topics.ask(b"c")
    assert [each.value for each in poll_until(reader, 1)] == [b"c"]


def test_a_tombstone_and_a_header_without_a_value_are_empty(topics):
    writer = Producer({"bootstrap.servers": topics.broker.brokers})
    writer.produce(topics.requests, None, b"k", headers=[("x", None)])
    writer.flush()
    (record,) = poll_until(topics.log(), 1)
    assert (record.value, record.headers) == (b"", (("x", b""),))


def test_a_member_s_end_does_not_push_out_who_has_taken_its_name(topics):
    older = topics.log(member="scorer-0")
    topics.ask(b"a")
    poll_until(older, 1)
    newer = topics.log(member="scorer-0")
    poll_until(newer, 1)
    older.close()
    newer.commit()
    topics.ask(b"b")
    assert [each.value for each in poll_until(newer, 1)] == [b"b"]
    newer.commit()
    assert newer.counts["commits_failed"] == 0


def test_answers_of_one_key_stand_in_one_partition_whatever_the_client(topics):
    keys = [b"%d" % number for number in range(30)]
    topics.log().append([Record(key, key) for key in keys])
    writer = producer(topics.broker.brokers, SETTINGS)
    for key in keys:
        writer.send(topics.responses, key, key=key)
    writer.close()
    assert len({(each.key, each.partition) for each in topics.broker.read(topics.responses)}) == 30


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
