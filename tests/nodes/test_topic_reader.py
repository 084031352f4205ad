"""Partitions are read without losing or doubling a record, and the watermark passes none that is still to come."""

import random
from functools import lru_cache

import polars as pl
import pytest
from kafka import TopicPartition

from contracts.app import load_app
from contracts.errors import ContractError
from contracts.events import Mark
from nodes.source import BEFORE_ALL, EventReader
from nodes.topic_partitions import Partition
from nodes.topic_reader import TopicReader
from tests.nodes.fake_topics import START_MS, FakeConsumer, Seconds, at_start, click, parts

P0, P1, P2 = (TopicPartition("c", number) for number in range(3))
LIVE = {"linger_s": 0.1, "idle_s": 2, "max_lead_s": 30}


@lru_cache
def app(**ingest):
    return load_app(
        "adsim", {"ingest": {"disorder_s": 4, "chunk_rows": 100} | ingest, "live": LIVE, "labels": {"wait_s": 10}}
    )


@pytest.fixture
def clock() -> Seconds:
    return Seconds()


def reading(consumer: FakeConsumer, clock: Seconds, count: int = 1, start=None, passed_ms=lambda: None, **ingest):
    partitions = parts(count)
    reader = TopicReader(app(**ingest), partitions, consumer, clock=clock, passed_ms=passed_ms)
    reader.seek(start or at_start(partitions), None)
    return reader


def ids(chunks) -> list[str]:
    return [name for chunk in chunks for name in chunk.frame["click_id"]]


def after_s(reader: TopicReader) -> float | None:
    at_ms = reader.watermark_ms
    return None if at_ms is None else (at_ms - START_MS) / 1000


def look(reader: TopicReader, clock: Seconds, seconds: float = 0.2):
    clock.now += seconds
    return reader.read()


def test_a_look_gives_one_chunk_a_stream_and_a_mark_a_partition(clock):
    consumer = FakeConsumer()
    consumer.add(P0, click("a", 1), click("b", 9))
    consumer.add(P1, click("c", 5))
    shown = TopicPartition("i", 0)
    consumer.add(shown, b"{")
    partitions = [*parts(2), Partition("impressions", "i", 0)]
    reader = TopicReader(app(), partitions, consumer, clock=clock)
    reader.seek(at_start(partitions), None)
    clicks, impressions = reader.read()
    assert (clicks.stream, impressions.stream) == ("clicks", "impressions")
    assert clicks.frame.select("click_id", "_origin", "_line").rows() == [
        ("a", "c:0", 0),
        ("b", "c:0", 1),
        ("c", "c:1", 0),
    ]
    assert clicks.marks == (Mark("c:0", 2, START_MS + 9_000), Mark("c:1", 1, START_MS + 5_000))
    assert clicks.at_ms == START_MS + 1_000
    assert (impressions.frame.height, impressions.dead["reason"].to_list()) == (0, ["not_json"])
    assert impressions.marks == (Mark("i:0", 1, BEFORE_ALL),)
    assert reader.places == (*clicks.marks, *impressions.marks)


def test_offsets_with_gaps_and_tombstones_keep_their_numbers(clock):
    consumer = FakeConsumer()
    consumer.add(P0, click("a", 1), FakeConsumer.MARKER)
    long = click("x" * 65, 3)
    consumer.add(P0, click("b", 2), None, long, gap=5)
    [chunk] = reading(consumer, clock).read()
    assert chunk.frame["_line"].to_list() == [0, 7]
    assert chunk.dead.select("line", "reason", "raw").rows() == [
        (13, "no_value", b""),
        (19, "too_long", click("x" * 65, 3)),
    ]


def test_a_chunk_has_at_most_its_rows_and_the_rest_comes_next(clock):
    consumer = FakeConsumer()
    consumer.add(P0, *(click(f"c{n}", n) for n in range(7)))
    reader = reading(consumer, clock, chunk_rows=3)
    assert [len(ids(look(reader, clock))) for _ in range(4)] == [3, 3, 1, 0]


def test_a_chunk_is_kept_open_for_the_linger_unless_the_reader_is_behind(clock):
    consumer = FakeConsumer()
    consumer.add(P0, click("a", 1))
    reader = reading(consumer, clock)
    assert ids(reader.read()) == ["a"]
    consumer.add(P0, click("b", 2))
    assert (ids(look(reader, clock, 0.05)), consumer.polls) == ([], 2)
    assert ids(look(reader, clock, 0.06)) == ["b"]
    consumer.add(P0, *(click(f"c{n}", 3) for n in range(5_000)))
    assert len(ids(look(reader, clock, 0.11))) == 100
    assert len(ids(look(reader, clock, 0.01))) == 100


def test_the_slowest_partition_holds_the_watermark(clock):
    consumer = FakeConsumer()
    consumer.add(P0, click("a", 10))
    reader = reading(consumer, clock, 2)
    reader.read()
    assert after_s(reader) is None  # nothing is known of the other
    consumer.add(P1, click("b", 7))
    look(reader, clock)
    assert after_s(reader) == 3
    consumer.add(P0, click("c", 20))
    look(reader, clock)
    assert after_s(reader) == 3
    consumer.add(P1, click("d", 30))
    look(reader, clock)
    assert after_s(reader) == 16


def test_an_empty_partition_holds_nothing_once_its_end_is_confirmed(clock):
    consumer = FakeConsumer()
    consumer.add(P0, click("a", 10))
    reader = reading(consumer, clock, 2)
    reader.read()
    clock.now += 1.9
    consumer.add(P0, click("b", 11))
    reader.read()
    assert after_s(reader) is None
    consumer.add(P0, click("c", 12))
    look(reader, clock, 0.6)  # asked four times in `idle_s`
    assert after_s(reader) == 8


def test_a_partition_that_is_not_read_to_its_end_is_never_idle(clock):
    consumer = FakeConsumer()
    consumer.add(P0, click("a", 100))
    consumer.add(P1, *(click(f"b{n}", n) for n in range(3)))
    reader = reading(consumer, clock, 2)
    reader.read()
    consumer.slow.add(P1)
    consumer.add(P1, click("b3", 3))
    for _ in range(10):
        look(reader, clock, 1)
        assert after_s(reader) == -2


def test_when_all_is_quiet_event_time_goes_on_with_the_clock(clock):
    consumer = FakeConsumer()
    consumer.add(P0, click("a", 10))
    reader = reading(consumer, clock, 2)
    reader.read()
    look(reader, clock, 1.5)
    assert after_s(reader) is None
    look(reader, clock, 1.5)
    assert after_s(reader) == 9  # 10 s, 3 s of quiet, less 4 s of disorder
    look(reader, clock, 5)
    assert after_s(reader) == 14


def test_a_reader_of_one_partition_goes_by_its_siblings_once_it_idles(clock):
    siblings, consumer = {}, FakeConsumer()
    consumer.add(P0, click("a", 10))
    readers = []
    for partition in parts(2):
        readers.append(TopicReader(app(), [partition], consumer, clock=clock, siblings=siblings))
        readers[-1].seek(at_start([partition]), None)
    consumer.assign([P0, P1])
    readers[0].read()
    readers[1].read()
    assert [after_s(reader) for reader in readers] == [6, None]  # the second is empty, but that is not confirmed yet
    clock.now += 3
    consumer.add(P0, click("b", 11))
    assert readers[0].read() == []  # it leads one of which nothing is known
    for reader in [*readers, *readers]:
        look(reader, clock, 0.1)
    assert [after_s(reader) for reader in readers] == [7, 7]


def test_nothing_goes_on_while_the_broker_is_away_and_reading_goes_on_when_it_is_back(clock):
    consumer = FakeConsumer()
    consumer.add(P0, click("a", 10))
    reader = reading(consumer, clock)
    reader.read()
    consumer.away = True
    for _ in range(20):
        assert look(reader, clock, 1) == []
    assert after_s(reader) == 6
    consumer.away = False
    consumer.add(P0, click("b", 12))
    assert ids(look(reader, clock)) == ["b"]
    assert after_s(reader) == 8


def test_the_time_in_which_the_broker_is_away_is_not_quiet(clock):
    consumer = FakeConsumer()
    consumer.add(P0, click("a", 10))
    reader = reading(consumer, clock)
    reader.read()
    consumer.away = True
    for _ in range(20):
        look(reader, clock, 1)
    consumer.away = False
    for _ in range(2):
        assert look(reader, clock, 0.6) == []
    consumer.add(P0, click("b", 12))  # held back by who writes while the broker was away
    assert after_s(reader) == 6
    assert ids(look(reader, clock)) == ["b"]


def test_after_an_outage_shorter_than_idle_s_writers_have_outage_s_to_come_back(clock):
    consumer = FakeConsumer()
    consumer.add(P0, click("a", 10))
    reader = reading(consumer, clock, 2)  # of P1 nothing ever comes: it is not waited for
    reader.read()
    consumer.away = True
    look(reader, clock, 0.6)
    consumer.away = False
    for _ in range(9):
        look(reader, clock, 1)
    assert after_s(reader) == 6, "the watermark went on without who was cut off"
    consumer.add(P0, click("b", 12))
    assert ids(look(reader, clock)) == ["b"]
    for _ in range(4):
        look(reader, clock, 1)
    assert after_s(reader) > 8, "the outage is over"


def test_the_watermark_never_goes_back(clock):
    consumer = FakeConsumer()
    consumer.add(P0, click("a", 10))
    reader = reading(consumer, clock)
    reader.read()
    for _ in range(5):
        look(reader, clock, 1)
    before = after_s(reader)
    consumer.add(P0, click("b", 9))
    [chunk] = look(reader, clock)
    assert after_s(reader) == before
    assert chunk.at_ms == START_MS + 9_000  # the caller lifts it to the watermark


def test_a_partition_far_ahead_waits_for_the_slowest(clock):
    consumer = FakeConsumer()
    consumer.add(P0, click("a", 100))
    consumer.add(P1, click("b", 10))
    reader = reading(consumer, clock, 2, chunk_rows=1)
    assert ids(reader.read()) == ["a"]  # of neither is anything known yet
    consumer.add(P0, click("c", 101))
    assert [ids(look(reader, clock)) for _ in range(3)] == [["b"], [], []]
    consumer.add(P0, click("e", 102))
    consumer.add(P1, click("d", 80))
    assert [ids(look(reader, clock)) for _ in range(3)] == [["d"], ["c"], ["e"]]


def test_reading_waits_for_the_log_but_not_for_one_that_stands_still(clock):
    consumer, passed = FakeConsumer(), {"ms": BEFORE_ALL}
    reader = reading(consumer, clock, passed_ms=lambda: passed["ms"], chunk_rows=1)
    consumer.add(P0, *(click(f"c{n}", 20 * n) for n in range(30)))
    read = [ids(look(reader, clock)) for _ in range(8)]
    assert read[:5] == [["c0"], ["c1"], ["c2"], ["c3"], []]  # 30 s of lead, 10 s of wait, twice 4 s of disorder, 2 s
    assert read[5:] == [[], [], []]
    passed["ms"] = START_MS + 40_000
    assert ids(look(reader, clock)) == ["c4"]
    assert sum(len(look(reader, clock)) for _ in range(30)) == 1 + 2  # to 96 s, then one every 2 s


def test_a_clock_in_2099_is_a_dead_letter_that_moves_nothing(clock):
    consumer = FakeConsumer()
    consumer.add(P0, click("a", 10), click("b", 2_400_000_000), click("c", 11))
    reader = reading(consumer, clock)
    [chunk] = reader.read()
    assert chunk.dead.select("line", "reason").rows() == [(1, "bad_time")]
    assert after_s(reader) == 7
    assert not chunk.frame["_late"].any()


def test_a_message_beyond_the_limit_is_a_dead_letter_cut_to_it(clock):
    consumer = FakeConsumer()
    big = click("x" * 5_000_000, 1)
    consumer.add(P0, big)
    [chunk] = reading(consumer, clock).read()
    limit = app().config.ingest.max_event_bytes
    assert chunk.dead.select("reason", "raw", "raw_bytes").rows() == [("too_large", big[:limit], len(big))]


def test_offsets_that_are_gone_stop_the_reader_and_say_what_there_is(clock):
    consumer = FakeConsumer()
    consumer.first[P0] = 10
    consumer.add(P0, click("a", 1))
    with pytest.raises(ContractError, match=r"c:0: offset 0 is gone, the topic holds 10 to 11;.*10 lost ones"):
        reading(consumer, clock).read()


def test_offsets_that_are_gone_are_skipped_and_counted_where_that_is_asked_for(clock):
    consumer = FakeConsumer()
    consumer.first[P0] = 10
    consumer.add(P0, click("a", 1))
    partitions = parts(1)
    wanted = load_app("adsim", {"live": LIVE | {"gone": "earliest"}})
    reader = TopicReader(wanted, partitions, consumer, clock=clock)
    reader.seek(at_start(partitions), None)
    chunks = [*reader.read(), *look(reader, clock)]
    assert (ids(chunks), [chunk.gone for chunk in chunks]) == (["a"], [10])


def test_reading_up_to_an_end_leaves_what_comes_after_it(clock):
    consumer = FakeConsumer()
    consumer.add(P0, click("a", 1), click("b", 2), FakeConsumer.MARKER, click("later", 3))
    consumer.add(P1, click("c", 500), FakeConsumer.MARKER)
    ends = {0: 3, 1: 2, 2: 0}
    partitions = [Partition("clicks", "c", number, end) for number, end in ends.items()]
    reader = TopicReader(app(), partitions, consumer, clock=clock)
    reader.seek(at_start(partitions), None)
    found = []
    for _ in range(10):
        found += look(reader, clock)
    assert sorted(ids(found)) == ["a", "b", "c"]
    assert reader.done
    assert [mark.offset for mark in reader.places] == [3, 2, 0]


def test_a_topic_that_grows_while_it_is_followed_stops_the_reader(clock):
    consumer = FakeConsumer()
    partitions = [Partition("clicks", "c", 0, known=1)]
    reader = TopicReader(app(), partitions, consumer, clock=clock)
    reader.seek(at_start(partitions), None)
    consumer.add(P0, click("a", 1))
    assert ids(look(reader, clock, 40)) == ["a"]
    consumer.add(P1, click("b", 1))
    with pytest.raises(ContractError, match="c: has 2 partitions, but 1 when reading began"):
        look(reader, clock, 40)


def events(seed: int, count: int) -> dict[TopicPartition, list[bytes]]:
    """Skewed: one partition far ahead in event time, one lagging, one empty."""
    draw = random.Random(seed)
    logs: dict[TopicPartition, list[bytes]] = {P0: [], P1: [], P2: []}
    for n in range(count):
        for tp, speed in ((P0, 1.0), (P1, 0.2)):
            logs[tp].append(click(f"{tp.partition}-{n}", n * speed + draw.uniform(-5, 5)))
    return logs


def judged(logs) -> list[tuple]:
    frames = []
    for tp, values in logs.items():
        reader = EventReader(app().clicks, app(), stream="clicks", origin=f"c:{tp.partition}")
        frames.append(reader.read_records(values, range(len(values))).frame)
    return sorted(pl.concat(frames).select("click_id", "_origin", "_line", "_late").rows())


@pytest.mark.parametrize("seed", range(5))
def test_restarts_and_cuts_change_no_row_and_no_lateness_and_no_event_comes_behind_the_watermark(seed):
    logs, draw, clock = events(seed, 150), random.Random(seed), Seconds()
    consumer, sent = FakeConsumer(), dict.fromkeys((P0, P1, P2), 0)
    reader = reading(consumer, clock, 3)
    rows, behind = [], 0
    while sum(sent.values()) < 300 or any(consumer.end(tp) > reader.places[tp.partition].offset for tp in (P0, P1)):
        for tp, values in logs.items():
            step = draw.choice([0, 0, 1, 5, 40])
            consumer.add(tp, *values[sent[tp] : sent[tp] + step])
            sent[tp] = min(len(values), sent[tp] + step)
        watermark = reader.watermark_ms
        for chunk in look(reader, clock, 0.2):
            rows += chunk.frame.select("click_id", "_origin", "_line", "_late").rows()
            if watermark is not None:
                early = chunk.frame.filter(~pl.col("_late") & (pl.col("event_time_ms") < watermark))
                behind += early.height
        if draw.random() < 0.2:  # the process is gone; what Beam kept is the places and the watermark
            places, consumer.paused = reader.places, set()
            watermark = reader.watermark_ms
            reader = TopicReader(app(), parts(3), consumer, clock=clock)
            reader.seek(places, watermark)
    assert sorted(rows) == judged(logs)
    assert behind == 0
