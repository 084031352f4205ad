"""The join against its row-by-row oracle, on hostile streams, any cuts and any watermark."""

from random import Random

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.app import App, load_app
from contracts.events import FATES
from nodes.join import Joiner, Settled
from tests.nodes.join_oracle import Event, frame, mark_late, oracle

WAIT, DISORDER = 10, 4


def app_with(dedupe_ms: int) -> App:
    return load_app(
        "adsim",
        {"labels": {"wait_s": WAIT / 1000, "dedupe_s": dedupe_ms / 1000}, "ingest": {"disorder_s": DISORDER / 1000}},
    )


APPS = {dedupe_ms: app_with(dedupe_ms) for dedupe_ms in (0, 12, 13, 25)}


def made(settled: list[Settled]):
    examples = pl.concat([part.examples for part in settled])
    fates = pl.concat([part.fates for part in settled])
    assert fates.schema == FATES
    return (
        sorted(examples.select("impression_id", "event_time_ms", "_hash", "label").rows()),
        sorted(fates.select("stream", "line", "fate", "reason").rows(), key=str),
    )


def expected(events: list[Event], dedupe_ms: int):
    examples, fates = oracle(events, WAIT, dedupe_ms, DISORDER)
    return sorted(examples), sorted(((*key, *value) for key, value in fates.items()), key=str)


@st.composite
def streams(draw: st.DrawFn) -> list[Event]:
    """A few ids meet often: every rule and each of its edges is hit."""

    def file_of(stream: str) -> list[Event]:
        rows = draw(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 60), st.integers(0, 2)), max_size=25))
        if draw(st.booleans()):  # nearly in order, as a log is
            rows.sort(key=lambda row: row[1] + 3 * row[2])
        return mark_late([Event(stream, line, *row) for line, row in enumerate(rows)], DISORDER)

    return [*file_of("impressions"), *file_of("clicks")]


@settings(max_examples=40, deadline=None)
@given(events=streams(), dedupe_ms=st.sampled_from(sorted(APPS)), randomness=st.randoms(use_true_random=False))
def test_any_arrival_and_any_cut_give_what_the_oracle_gives(events, dedupe_ms, randomness):
    joiner, parts = Joiner(APPS[dedupe_ms]), []
    arrived = list(events)
    randomness.shuffle(arrived)
    while arrived:
        cut = randomness.randint(1, len(arrived))
        now, arrived = arrived[:cut], arrived[cut:]
        for stream in ("impressions", "clicks"):
            if rows := [event for event in now if event.stream == stream]:
                chunk = frame(rows, APPS[dedupe_ms])
                joiner.add(*((chunk, None) if stream == "impressions" else (None, chunk)))
    parts.append(joiner.settle(None))
    assert made(parts) == expected(events, dedupe_ms)


@settings(max_examples=40, deadline=None)
@given(events=streams(), dedupe_ms=st.sampled_from(sorted(APPS)), randomness=st.randoms(use_true_random=False))
def test_any_watermark_schedule_gives_what_the_oracle_gives(events, dedupe_ms, randomness):
    app = APPS[dedupe_ms]
    joiner, parts = Joiner(app), []
    files = {name: [e for e in events if e.stream == name] for name in ("impressions", "clicks")}
    newest = dict.fromkeys(files, -(10**9))
    due = -(10**9)
    while any(files.values()):
        stream = randomness.choice([name for name, rest in files.items() if rest])
        cut = randomness.randint(1, len(files[stream]))
        now, files[stream] = files[stream][:cut], files[stream][cut:]
        newest[stream] = max(newest[stream], *(event.at for event in now), -(10**9))
        joiner.add(*((frame(now, app), None) if stream == "impressions" else (None, frame(now, app))))
        # What may still come is at least this new: a file that has ended holds nothing back.
        watermark = min((newest[name] - DISORDER for name, rest in files.items() if rest), default=10**9)
        if randomness.random() < 0.7:
            due = max(due, randomness.randint(watermark - 8, watermark - 1))
            parts.append(joiner.settle(due))
        if randomness.random() < 0.2:
            state, joiner = joiner.state(), Joiner(app)
            joiner.restore(state)
    parts.append(joiner.settle(None))
    assert joiner.idle
    assert made(parts) == expected(events, dedupe_ms)


@pytest.mark.parametrize("dedupe_ms", sorted(APPS))
def test_settling_at_every_millisecond_gives_what_the_oracle_gives(dedupe_ms):
    """Thousands of small stories side by side, an id each, under the sharpest schedule there is."""
    random = Random(dedupe_ms)
    events = [
        Event(stream, line, f"id{random.randrange(2_000)}", random.randrange(45), random.randrange(2))
        for stream, rows in (("impressions", 5_000), ("clicks", 5_000))
        for line in range(rows)
    ]
    joiner = Joiner(APPS[dedupe_ms])
    joiner.add(frame(events[:5_000], APPS[dedupe_ms]), frame(events[5_000:], APPS[dedupe_ms]))
    parts = [joiner.settle(due_ms) for due_ms in range(-1, 90)]
    assert joiner.idle
    assert not joiner.state()["accepted"].height
    assert made(parts) == expected(events, dedupe_ms)


def one(app: App, impressions: list[tuple[str, int]], clicks: list[tuple[str, int]], due: int | None = None):
    joiner = Joiner(app)
    if impressions:
        joiner.add(frame([Event("impressions", n, *row, n) for n, row in enumerate(impressions)], app), None)
    if clicks:
        joiner.add(None, frame([Event("clicks", n, *row, n) for n, row in enumerate(clicks)], app))
    settled = joiner.settle(due)
    return (
        dict(settled.examples.sort("_line").select("_line", "label").rows()),
        settled.fates.filter(stream="clicks").sort("line")["fate"].to_list(),
    )


@pytest.mark.parametrize(
    ("click_ms", "label", "fate"),
    [(96, 1, "accepted"), (95, 0, "orphan"), (100, 1, "accepted"), (110, 1, "accepted"), (111, 0, "late"),
     (125, 0, "late"), (126, 0, "orphan")],
)  # fmt: skip
def test_each_edge_of_the_wait_lies_where_the_contract_says(click_ms, label, fate):
    assert one(APPS[25], [("a", 100)], [("a", click_ms)]) == ({0: label}, [fate])


def test_an_impression_settles_once_its_wait_is_over_and_not_before():
    assert one(APPS[25], [("a", 100)], [("a", 105)], due=109) == ({}, ["accepted"])
    assert one(APPS[25], [("a", 100)], [("a", 110)], due=110) == ({0: 1}, ["accepted"])


def test_a_click_on_a_second_showing_labels_the_second_only():
    assert one(APPS[25], [("a", 100), ("a", 126)], [("a", 122), ("a", 130)]) == (
        {0: 0, 1: 1},
        ["accepted", "duplicate"],
    )


def test_state_forgets_what_no_event_can_meet_any_more():
    joiner = Joiner(APPS[25])
    joiner.add(frame([Event("impressions", 0, "a", 100, 0)], APPS[25]), None)
    joiner.settle(100 + 25 + DISORDER - 1)
    assert joiner.state()["accepted"].height == 1
    joiner.settle(100 + 25 + DISORDER)
    assert joiner.state()["accepted"].height == 0


def test_what_comes_behind_a_settled_time_is_late_and_counted():
    joiner = Joiner(APPS[25])
    joiner.settle(200)
    joiner.add(frame([Event("impressions", 0, "a", 200, 0)], APPS[25]), None)
    assert joiner.settle(None).fates.select("fate", "reason").rows() == [("late", "behind_watermark")]


def test_settling_at_an_earlier_time_than_before_decides_nothing_new():
    joiner = Joiner(APPS[25])
    joiner.settle(200)
    joiner.settle(100)
    joiner.add(frame([Event("impressions", 0, "a", 150, 0)], APPS[25]), None)
    assert joiner.settle(None).fates["reason"].to_list() == ["behind_watermark"]


def test_an_id_shown_thousands_of_times_costs_no_more_than_its_rows():
    rows = [Event("impressions", n, "bot", n * 26, n) for n in range(20_000)]
    joiner = Joiner(APPS[25])
    joiner.add(frame(rows, APPS[25]), None)
    assert joiner.settle(None).examples.height == 20_000
