"""The join in Beam: settled slot by slot as the watermark moves, it gives what settling once gives."""

import random

import apache_beam as beam
import polars as pl
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.pvalue import TaggedOutput
from apache_beam.testing.test_stream import TestStream
from apache_beam.testing.util import assert_that
from apache_beam.transforms.window import TimestampedValue

from contracts.app import load_app
from contracts.positions import Position
from nodes.chunks import Chunk, ChunkCoder
from nodes.join import Settled
from nodes.join_clicks import JoinClicks, _Shard
from nodes.log_tail import replay_from_ms
from nodes.positions import basis_of
from nodes.slots import Slots
from tests.nodes.join_oracle import Event, frame, oracle

WAIT_S, DISORDER_S = 10, 4
APP = load_app(
    "adsim",
    {
        "labels": {"wait_s": WAIT_S, "dedupe_s": 25},
        "ingest": {"disorder_s": DISORDER_S, "shards": 2},
    },
)


def expected(events: list[Event]):
    examples, fates = oracle(events, WAIT_S * 1000, 25_000, DISORDER_S * 1000)
    return sorted(examples), sorted(((*key, *value) for key, value in fates.items()), key=str)


def matches(events: list[Event], least_parts: int):
    def check(parts: list[Settled]) -> None:
        assert len(parts) >= least_parts, f"settled {len(parts)} times"
        examples, fates = pl.concat([p.examples for p in parts]), pl.concat([p.fates for p in parts])
        rows = sorted(examples.select("impression_id", "event_time_ms", "_hash", "label").rows())
        became = sorted(fates.select("stream", "line", "fate", "reason").rows(), key=str)
        assert (rows, became) == expected(events)

    return check


@pytest.fixture
def events() -> list[Event]:
    draw = random.Random(3)
    shown = [("impressions", f"i{draw.randrange(20)}", draw.randrange(90_000)) for _ in range(60)]
    clicked = [("clicks", name, at + draw.randrange(-4_000, 14_000)) for _, name, at in shown[::2]]
    rows = sorted([*shown, *clicked], key=lambda row: row[2])
    return [Event(stream, line, name, at, draw.randrange(2)) for line, (stream, name, at) in enumerate(rows)]


def chunks(events: list[Event], step_ms: int) -> list[tuple[int, Chunk]]:
    """Chunks of `step_ms` of event time, with their smallest event time."""
    parts = []
    for start in range(-5_000, 110_000, step_ms):
        for stream in ("impressions", "clicks"):
            rows = [e for e in events if e.stream == stream and start <= e.at < start + step_ms]
            if rows:
                parts.append((min(e.at for e in rows), Chunk(stream, frame(rows, APP))))
    return parts


def test_bounded_input_is_settled_once_a_shard(events):
    with beam.Pipeline(options=PipelineOptions(["--runner", "FnApiRunner"])) as pipeline:
        source = pipeline | beam.Create([chunk for _, chunk in chunks(events, 7_000)], reshuffle=False)
        assert_that(source | "Join" >> JoinClicks(APP), matches(events, least_parts=2))


def test_slots_of_a_moving_watermark_settle_the_same(events):
    stream, passed = TestStream(coder=ChunkCoder()), -10.0
    for at, chunk in chunks(events, 3_000):
        if (watermark := (at + 5_000) // 3_000 * 3 - 5.0) > passed:
            stream, passed = stream.advance_watermark_to(watermark), watermark
        stream = stream.add_elements([TimestampedValue(chunk, at / 1000)])
    for second in range(120, 180, 3):  # past each slot before the end, or the last timers' output is dropped as late
        stream = stream.advance_watermark_to(second)
    stream = stream.advance_watermark_to_infinity()
    options = PipelineOptions(["--runner", "BundleBasedDirectRunner", "--streaming"])
    with beam.Pipeline(options=options) as pipeline:
        settled = pipeline | stream.with_output_types(Chunk) | "Join" >> JoinClicks(APP, Slots(5_000))
        assert_that(settled, matches(events, least_parts=8))


def position(slot_ms_end: int, **reached: int) -> Position:
    return Position(0, slot_ms_end, None, {}, reached, basis_of(APP, {"t": 1}), b"")


def test_after_a_restart_what_was_decided_is_passed_over_and_what_comes_too_late_is_late():
    at_ms = replay_from_ms(APP, 60_000)
    rows = [(0, at_ms - 1), (1, at_ms), (2, 59_999), (3, 60_000), (7, at_ms - 1), (8, 59_999), (9, 60_000)]
    events = [Event("impressions", line, f"i{line}", at, 0, late=line == 1) for line, at in rows]
    shard = _Shard(APP, live=True, position=position(60_000, impressions=5))
    out = list(shard.process(Chunk("impressions", frame(events, APP))))
    fates = pl.concat([part.value.fates for part in out if isinstance(part, TaggedOutput)])
    assert sorted(fates.select("line", "fate", "reason").rows()) == [
        (1, "late", "behind_disorder"),
        (7, "late", "behind_watermark"),
        (8, "late", "behind_watermark"),
    ]
    joined = [ChunkCoder().decode(part[1]).frame["_line"] for part in out if not isinstance(part, TaggedOutput)]
    assert sorted(pl.concat(joined)) == [2, 3, 9]


def test_a_position_that_knows_nothing_of_an_origin_judges_nothing_of_it_late():
    events = [Event("impressions", 0, "i", 59_999, 0)]
    (out,) = _Shard(APP, live=True, position=position(60_000)).process(Chunk("impressions", frame(events, APP)))
    assert out[0] in (0, 1)
