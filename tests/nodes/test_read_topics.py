"""Real topics through Beam: every record once, whatever lies between them, and one sentence where that cannot be."""

import dataclasses
import time
from uuid import uuid4

import apache_beam as beam
import polars as pl
import pytest
from apache_beam.io.iobase import RestrictionTracker

from contracts.app import App
from contracts.errors import ContractError, StoreError
from contracts.events import Mark
from contracts.sections import Kafka
from flows.runners import live_pipeline, start
from nodes.kafka_client import consumer, producer
from nodes.read_topics import ReadTopics, close_readers
from nodes.source import BEFORE_ALL
from nodes.topic_partitions import Partition
from nodes.topic_places import Places, PlacesTracker, read_places, write
from nodes.topic_plan import plan_topics
from nodes.topic_reader import TopicReader
from tests.endless_chunks import KEPT, Keep
from tests.nodes.fake_topics import START_MS, click

GOOD = [click(f"c{n}", n) for n in range(6)]


@pytest.fixture
def topics(kafka) -> dict[str, str]:
    """Two empty topics, of one and of two partitions."""
    return {
        "impressions": kafka.create(kafka.name("i")),
        "clicks": kafka.create(kafka.name("c"), partitions=2, max_message_bytes=8_388_608),
    }


def urls(kafka, topics: dict[str, str]) -> dict[str, str]:
    return {stream: kafka.url(topic) for stream, topic in topics.items()}


def send(kafka, topic: str, *values: bytes | None, partition: int = 0, commit: bool | None = None) -> None:
    """Records, in a transaction that is committed or aborted unless `commit` is None."""
    over = {} if commit is None else {"transactional_id": uuid4().hex}
    writer = producer((kafka.brokers,), Kafka(), **over)
    if commit is not None:
        writer.init_transactions()
        writer.begin_transaction()
    for value in values:
        writer.send(topic, key=b"k", value=value, partition=partition)
    writer.flush()
    if commit is not None:
        (writer.commit_transaction if commit else writer.abort_transaction)()
    writer.close()


def read(runner: str, app: App, sources: dict[str, str], **more) -> tuple[pl.DataFrame, pl.DataFrame, list[Mark]]:
    """Clicks, dead letters and marks of topics that end now."""
    source = ReadTopics(app, sources, start={}, until="now", streaming=runner != "embedded", **more)
    pipeline = live_pipeline(runner, app)
    checked = pipeline | "Read" >> source
    for way in ("events", "dead", "marks"):
        _ = getattr(checked, way) | f"Keep {way}" >> beam.ParDo(Keep(f"{source.run_id} {way}"))
    with start(pipeline) as running:
        assert running.wait()
    close_readers(source.run_id)
    events, dead, marks = (KEPT.pop(f"{source.run_id} {way}", []) for way in ("events", "dead", "marks"))
    return pl.concat([chunk.frame for chunk in events]), pl.concat(dead), marks


@pytest.mark.parametrize("runner", ["embedded", "prism"])
def test_aborted_records_markers_tombstones_and_giants_leave_their_offsets_and_nothing_else(
    runner: str, kafka, topics, adsim: App
):
    topic, giant = topics["clicks"], click("x" * 5_000_000, 9)
    send(kafka, topic, GOOD[0])
    send(kafka, topic, GOOD[1], GOOD[2], commit=False)  # offsets 1 to 3, with the marker
    send(kafka, topic, GOOD[3], None, giant, GOOD[4], commit=True)  # 4 to 8
    found, dead, marks = read(runner, adsim, urls(kafka, topics))
    assert found.select("click_id", "_line").rows() == [("c0", 0), ("c3", 4), ("c4", 7)]
    limit = adsim.config.ingest.max_event_bytes
    told = dead.with_columns(kept=pl.col("raw").bin.size()).select("line", "reason", "kept", "raw_bytes").rows()
    assert told == [(5, "no_value", 0, 0), (6, "too_large", limit, len(giant))]
    assert max(mark for mark in marks if mark.origin == f"{topic}:0") == Mark(f"{topic}:0", 8, START_MS + 4_000)
    assert Mark(f"{topic}:1", 0, BEFORE_ALL) in marks


def test_a_place_to_start_at_brings_the_lateness_that_was_judged_before_it(kafka, topics, adsim: App):
    send(kafka, topics["clicks"], click("a", 100), click("b", 39), click("c", 41))
    place = Mark(f"{topics['clicks']}:0", 1, START_MS + 100_000)
    others = [Mark(f"{topics['clicks']}:1", 0, BEFORE_ALL), Mark(f"{topics['impressions']}:0", 0, BEFORE_ALL)]
    brokers, planned = plan_topics(
        adsim, urls(kafka, topics), start={mark.origin: mark for mark in [place, *others]}, begin="latest", until="now"
    )
    client = consumer(brokers, Kafka())
    reader = TopicReader(adsim, [partition for partition, _ in planned], client)
    reader.seek([mark for _, mark in planned], None)
    chunks = []
    while not reader.done:
        chunks += reader.read()
    client.close()
    [chunk] = chunks
    assert chunk.frame.select("click_id", "_late").rows() == [("b", True), ("c", False)]


@pytest.mark.parametrize(
    ("begin", "first"), [("earliest", [0, 0]), ("latest", [3, 0]), (START_MS, [0, 0]), (2**45, [3, 0])]
)
def test_a_topic_begins_where_it_is_told_by_one_client(kafka, topics, adsim: App, monkeypatch, begin, first):
    send(kafka, topics["clicks"], *GOOD[:3])
    monkeypatch.setattr("nodes.kafka_client.consumer", None)  # what a look-up opens that is given none
    _, planned = plan_topics(adsim, urls(kafka, topics), start={}, begin=begin, until="never")
    assert [mark.offset for partition, mark in planned if partition.stream == "clicks"] == first


def test_a_missing_topic_an_absent_broker_and_other_partitions_are_one_sentence_each(kafka, topics, adsim: App):
    sources = urls(kafka, topics)

    def plan(changed: dict[str, str], start: dict[str, Mark] | None = None):
        plan_topics(adsim, sources | changed, start=start or {}, begin="earliest", until="never")

    with pytest.raises(StoreError, match="not-there"):
        plan({"clicks": kafka.url("not-there")})
    with pytest.raises(StoreError, match=r"127\.0\.0\.1:1\b"):
        plan({stream: f"kafka://127.0.0.1:1/{topic}" for stream, topic in topics.items()})
    with pytest.raises(ContractError, match="different brokers"):
        plan({"clicks": "kafka://127.0.0.1:1/t"})
    with pytest.raises(ContractError, match="has 2 partitions, but 1 when its position was written"):
        plan({}, {f"{topics['clicks']}:0": Mark(f"{topics['clicks']}:0", 0, BEFORE_ALL)})
    with pytest.raises(ContractError, match="named for two streams"):
        plan({"clicks": sources["impressions"]})


def test_offsets_that_retention_took_stop_it_before_anything_is_read(kafka, topics, adsim: App):
    topic = topics["clicks"]
    send(kafka, topic, *GOOD)
    kafka.delete_records(topic, {0: 4})
    start = {f"{topic}:{n}": Mark(f"{topic}:{n}", n, BEFORE_ALL) for n in range(1)} | {
        f"{topic}:1": Mark(f"{topic}:1", 0, BEFORE_ALL)
    }
    with pytest.raises(ContractError, match=rf"{topic}:0: offset 0 is gone, the topic holds 4 to 6"):
        plan_topics(adsim, urls(kafka, topics), start=start, begin="earliest", until="never")
    live = adsim.config.live.model_copy(update={"gone": "earliest"})
    going_on = dataclasses.replace(adsim, config=adsim.config.model_copy(update={"live": live}))
    _, planned = plan_topics(going_on, urls(kafka, topics), start=start, begin="earliest", until="never")
    assert next(mark.offset for partition, mark in planned if partition.origin == f"{topic}:0") == 4
    deleted = start | {f"{topic}:0": Mark(f"{topic}:0", 99, BEFORE_ALL)}
    with pytest.raises(ContractError, match="was deleted and made anew"):
        plan_topics(going_on, urls(kafka, topics), start=deleted, begin="earliest", until="never")


def test_reading_waits_for_a_broker_that_is_killed_and_goes_on_by_itself(own_kafka, adsim: App):
    broker = own_kafka()
    topic = broker.create("c")
    send(broker, topic, *GOOD[:3])
    client = consumer((broker.brokers,), Kafka())
    reader = TopicReader(adsim, [Partition("clicks", topic, 0)], client)
    reader.seek([Mark(f"{topic}:0", 0, BEFORE_ALL)], None)
    names: list[str] = []

    def read_until(count: int, within_s: float) -> None:
        end = time.monotonic() + within_s
        while len(names) < count and time.monotonic() < end:
            names.extend(name for chunk in reader.read() for name in chunk.frame["click_id"])

    read_until(3, 60)
    broker.kill()
    before = reader.watermark_ms
    read_until(4, 4)
    assert reader.watermark_ms == before
    broker.start()
    send(broker, topic, *GOOD[3:])
    read_until(6, 90)
    client.close()
    assert names == [f"c{n}" for n in range(6)]


def test_places_are_claimed_and_split_into_what_was_read_and_the_rest():
    here, there = (write(Places((Mark("t:0", offset, 5),), begun=True)) for offset in (1, 2))
    tracker: RestrictionTracker = PlacesTracker(here)
    assert tracker.try_claim(there)
    assert tracker.try_split(0.5) is None
    read_part, rest = tracker.try_split(0)
    assert (read_places(read_part).done, rest) == (True, there)
    assert not tracker.try_claim(here)
    assert tracker.check_done()
    with pytest.raises(ValueError, match="without a place"):
        PlacesTracker(here).check_done()
