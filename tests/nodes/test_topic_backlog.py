"""What is told of a backlog before it is read, from a few records at its ends."""

import msgspec
import pytest
from kafka import KafkaProducer

from contracts.app import load_app
from nodes.topic_backlog import backlog_of
from nodes.topic_plan import plan_topics
from tests.kafka_broker import KafkaBroker

APP = load_app("adsim")
START_MS = 1_767_571_200_000
pytestmark = pytest.mark.e2e


def click(at_ms: int) -> bytes:
    return msgspec.json.encode({"click_id": f"c{at_ms}", "impression_id": f"i{at_ms}", "event_time_ms": at_ms})


def look(kafka: KafkaBroker, clicks: list[list[bytes | None]], until: str = "never"):
    topics = {"impressions": kafka.create(partitions=2), "clicks": kafka.create(partitions=len(clicks))}
    producer = KafkaProducer(bootstrap_servers=kafka.brokers)
    for number, values in enumerate(clicks):
        for value in values:
            producer.send(topics["clicks"], value, key=b"k", partition=number)
    producer.close()
    sources = {stream: kafka.url(name) for stream, name in topics.items()}
    return backlog_of(APP, *plan_topics(APP, sources, start={}, begin="earliest", until=until))


@pytest.mark.parametrize("until", ["never", "now"])
def test_events_are_counted_and_their_first_and_last_times_are_about_told(kafka: KafkaBroker, until: str):
    hours = [[click(START_MS + (n * 3 + part) * 60_000) for n in range(300)] for part in range(3)]
    rows, first_ms, last_ms = look(kafka, [*hours, []], until)
    assert rows == 900
    assert START_MS <= first_ms <= START_MS + 8 * 3 * 60_000
    assert START_MS + 891 * 60_000 - 8 * 3 * 60_000 <= last_ms <= START_MS + 899 * 60_000


def test_broken_and_stray_events_at_the_ends_do_not_mislead(kafka: KafkaBroker):
    good = [click(START_MS + n * 1000) for n in range(100)]
    stray = [b"no JSON", None, click(START_MS - 10**9), click(START_MS + 10**10)]
    _, first_ms, last_ms = look(kafka, [[*stray, *good, *stray]])
    assert START_MS <= first_ms <= START_MS + 8_000
    assert START_MS + 90_000 <= last_ms <= START_MS + 99_000


def test_nothing_is_told_of_empty_topics_and_of_topics_without_one_good_event(kafka: KafkaBroker):
    assert look(kafka, [[], []]) is None
    assert look(kafka, [[b"no JSON"] * 20]) is None
