"""Lines in topics: every one of them, keyed, stamped so that the topic keeps it; and records from a Beam flow."""

import json
import threading
import time

import apache_beam as beam
import polars as pl
import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from contracts.errors import ContractError, StoreError
from contracts.sections import Kafka
from contracts.stores import Record
from nodes.clock import now_ms
from nodes.fakes import ManualClock
from nodes.kafka_partition import partitions_for
from nodes.kafka_produce import EventTopics, replay
from nodes.kafka_sink import RecordWriter, WriteRecords, close_producers
from nodes.produce import Pacer, parse
from nodes.testing import check_node

SETTINGS = Kafka(request_timeout_s=10)


def frame(lines: list[bytes], file: int = 0) -> pl.DataFrame:
    arrival = pl.col("event_time_ms").forward_fill().backward_fill().cum_max().fill_null(0)
    return parse(lines).with_columns(file=pl.lit(file, pl.UInt32), arrival_ms=arrival)


def event(at_ms: int, name: str) -> bytes:
    return json.dumps({"impression_id": name, "event_time_ms": at_ms}).encode()


def test_every_line_arrives_as_it_is_under_its_key(kafka):
    shown, clicked = kafka.create(partitions=4), kafka.create(partitions=4)
    now = now_ms()
    lines = [event(now + number, f"i{number % 50}") for number in range(500)]
    bad = [b"\xff", b"{", b""]
    with EventTopics([kafka.brokers], [shown, clicked], SETTINGS, now_ms) as topics:
        replay([frame([*lines, *bad]), frame(lines, 1)], topics, Pacer(None, now_ms), threading.Event())
        assert topics.sent == {shown: 503, clicked: 500}
    at = {}
    for topic, expected in ((shown, [*lines, *bad]), (clicked, lines)):
        found = kafka.read(topic)
        assert sorted(each.value for each in found) == sorted(expected)
        for each in found:
            if each.key is not None:
                assert each.partition == partitions_for([each.key], 4)[0] == at.setdefault(each.key, each.partition)
                assert each.timestamp == json.loads(each.value)["event_time_ms"]


def test_what_a_topic_would_refuse_or_delete_for_its_time_is_stamped_with_the_time_of_sending(kafka):
    topic, forever = kafka.create(), kafka.create(retention_ms=-1)
    old, far = 1_600_000_000_000, 4_000_000_000_000
    lines = [event(old, "old"), event(far, "far"), event(-1, "before"), b"none"]
    for name, kept in ((topic, []), (forever, [old])):
        with EventTopics([kafka.brokers], [name], SETTINGS, now_ms) as topics:
            topics.send(frame(lines))
            topics.flush()
        stamps = {each.timestamp for each in kafka.read(name)}
        assert [stamp for stamp in stamps if abs(stamp - now_ms()) > 60_000] == kept


def test_headers_are_cloudevents(kafka):
    topic = kafka.create()
    with EventTopics([kafka.brokers], [topic], SETTINGS, now_ms, headers=True) as topics:
        topics.send(frame([event(1_700_000_000_123, "i"), b"x"]))
        topics.flush()
    first, second = kafka.read(topic)
    assert first.headers == [
        ("ce_id", b"i"), ("ce_type", topic.encode()), ("ce_time", b"2023-11-14T22:13:20.123Z")
    ]  # fmt: skip
    assert second.headers == [("ce_id", b""), ("ce_type", topic.encode()), ("ce_time", b"")]


def test_events_leave_when_they_are_due_and_can_be_moved_to_now(kafka):
    topic = kafka.create()
    clock, stop = ManualClock(), threading.Event()
    seen: list[tuple[int, int]] = []

    class Ticking(threading.Event):
        def wait(self, timeout=None):
            clock.advance(round(timeout * 1000))
            return self.is_set()

    stop = Ticking()
    lines = [event(1_000_000 + 100 * number, "i") for number in range(11)]
    with EventTopics([kafka.brokers], [topic], SETTINGS, now_ms) as topics:
        done = replay(
            [frame(lines)], topics, Pacer(2, clock), stop, from_ms=5_000_000,
            on_progress=lambda sent: seen.append((clock(), sent)),
        )  # fmt: skip
    assert done == 11
    assert all(sent == at // 50 + 1 for at, sent in seen)
    times = [json.loads(each.value)["event_time_ms"] for each in kafka.read(topic)]
    assert times == [5_000_000 + 100 * number for number in range(11)]


def test_a_stop_ends_between_two_batches_with_all_sent_acknowledged(kafka):
    topic, stop = kafka.create(), threading.Event()
    lines = [event(now_ms() + 60_000 * number, "i") for number in range(3)]
    with EventTopics([kafka.brokers], [topic], SETTINGS, now_ms) as topics:
        threading.Timer(0.3, stop.set).start()
        began = time.monotonic()
        assert replay([frame(lines)], topics, Pacer(1, lambda: time.monotonic_ns() // 10**6), stop) == 1
        assert time.monotonic() - began < 5
        assert topics.sent == {topic: 1}


def test_a_missing_topic_and_a_message_beyond_the_topics_size_are_one_sentence(kafka):
    with pytest.raises(StoreError, match="no such topic"):
        EventTopics([kafka.brokers], [kafka.name()], SETTINGS, now_ms)
    topic = kafka.create(max_message_bytes=100_000)
    with EventTopics([kafka.brokers], [topic], SETTINGS, now_ms) as topics:
        topics.send(frame([b"x" * 5_000_000]))
        with pytest.raises(ContractError, match=r"a message is too large .*max\.message\.bytes of the topic"):
            topics.flush()


def test_the_sink_keeps_the_house_rules_and_writes_every_record(kafka):
    check_node(WriteRecords("kafka://127.0.0.1:1/unused", SETTINGS))
    topic = kafka.create(partitions=2)
    records = [Record(b"k%d" % number, b"v%d" % number, (("a", b"1"),), 1_700_000_000_000) for number in range(20)]
    with beam.Pipeline(options=PipelineOptions(["--runner", "FnApiRunner"])) as pipeline:
        counts = pipeline | beam.Create(records) | WriteRecords(kafka.url(topic), SETTINGS)
        beam.testing.util.assert_that(counts | beam.CombineGlobally(sum), beam.testing.util.equal_to([20]))
    found = kafka.read(topic)
    assert sorted((each.key, each.value) for each in found) == sorted((each.key, each.value) for each in records)
    assert {tuple(each.headers[0]) for each in found} == {("a", b"1")}
    with pytest.raises(StoreError, match="no such topic"):
        RecordWriter(kafka.url(kafka.name()), SETTINGS)
    close_producers()
