"""What a publisher leaves behind of what it held or forced, and what it does after a rollback."""

import logging

import numpy as np
import polars as pl
import pytest

from contracts.app import App, load_app
from contracts.errors import StoreError
from nodes.fake_traffic import examples, light_arrays
from nodes.fakes import ManualClock, MemoryWeights
from nodes.gate import Decision
from nodes.publish import Publisher

ROWS = 300
LAX = {
    "window_rows": ROWS, "max_logloss_increase": 99.0, "calibration": [0.0, 1e9], "max_live_ne": 99.0,
    "min_rank_correlation": -1.0, "max_score_psi": 99.0, "max_score_shift": 99.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def app() -> App:
    return load_app("adsim", {"publish": {"rollback_hold_s": 60, "gate": LAX}})


@pytest.fixture(scope="module")
def rows(app: App) -> pl.DataFrame:
    return examples(app, ROWS)


def judged(publisher: Publisher, app: App, rows: pl.DataFrame, position: int, bias: float = -1.5) -> Decision:
    arrays = light_arrays(app, position, bias=bias, scale=0.3)
    publisher.offer(arrays, position=position, step=position, trained_until_ms=position)
    publisher.observe(rows)
    return publisher.decisions[-1]


def test_a_held_candidate_is_on_the_record_with_its_figures(app: App, rows: pl.DataFrame) -> None:
    store, clock = MemoryWeights("adsim"), ManualClock(7000)
    publisher = Publisher(app, store, clock)
    publisher.observe(rows)
    made = judged(publisher, app, rows.with_columns(label=pl.lit(1, pl.UInt8)), 3)
    assert (made.outcome, made.kind, made.at_ms) == ("held", "labels", 7000)
    assert publisher.held_by == {"labels": 1}
    (entry,) = store.held_records
    assert (entry["kind"], entry["position"], entry["at_ms"]) == ("labels", "3", "7000")
    assert '"window_rows":300.0' in entry["figures"]
    assert (store.releases, store.epoch()) == ([], 1)


def test_a_store_that_cannot_take_the_record_stops_nothing(app: App, rows: pl.DataFrame) -> None:
    store = MemoryWeights("adsim")
    publisher = Publisher(app, store)
    store.fail = StoreError("the store is away")
    made = judged(publisher, app, rows, 1, bias=np.nan)
    assert (made.kind, store.held_records) == ("norms", [])


def test_force_is_logged_and_stands_in_manifest_and_record(
    app: App, rows: pl.DataFrame, caplog: pytest.LogCaptureFixture
) -> None:
    store = MemoryWeights("adsim")
    publisher = Publisher(app, store, force=True, why="the sale begins")
    with caplog.at_level(logging.WARNING):
        made = judged(publisher, app, rows.with_columns(label=pl.lit(1, pl.UInt8)), 3)
    assert made.version == 1
    gate = store.fetch().manifest.gate
    assert gate["forced"] == "labels"
    assert str(gate["reason"]).startswith("the sale begins; forced, although the label rate")
    assert store.releases == [("publish", 1, gate["reason"])]
    assert "published by force, although the label rate" in caplog.text


def test_a_trainer_takes_what_was_forced_beside_it_as_the_new_usual(app: App, rows: pl.DataFrame) -> None:
    changed = rows.with_columns(label=pl.Series([1, 0] * (ROWS // 2), dtype=pl.UInt8))
    store = MemoryWeights("adsim")
    publisher = Publisher(app, store)
    by_hand = Publisher(app, store, epoch=store.epoch(), force=True, by_hand=True)
    for _ in range(4):
        publisher.observe(rows)
        by_hand.observe(rows)
    assert judged(publisher, app, changed, 1).kind == "labels"
    assert judged(by_hand, app, changed, 2).version == 1
    assert judged(publisher, app, changed, 3).version == 2


def test_a_rollback_holds_the_trainer_for_a_while_and_says_so(app: App, rows: pl.DataFrame) -> None:
    store, clock = MemoryWeights("adsim"), ManualClock(0)
    publisher = Publisher(app, store, clock)
    assert [judged(publisher, app, rows, number).version for number in (1, 2)] == [1, 2]
    store.rollback(1, "clicks fell")
    made = judged(publisher, app, rows, 3)
    assert (made.kind, store.current_version()) == ("rolled_back", 1)
    assert "version 1 was made live by a rollback (clicks fell); nothing goes over it for 60 s more" in made.reason
    assert store.held_records[-1]["kind"] == "rolled_back"
    clock.advance(59_000)
    assert judged(publisher, app, rows, 4).kind == "rolled_back"
    again = Publisher(app, store, clock)
    assert judged(again, app, rows, 5).kind == "rolled_back", "the next trainer sees it for the first time"
    clock.advance(60_000)
    assert judged(again, app, rows, 6).version == 3


def test_a_rollback_while_a_candidate_is_judged_holds_it_too(app: App, rows: pl.DataFrame) -> None:
    store = MemoryWeights("adsim")
    publisher = Publisher(app, store, ManualClock(0))
    for number in (1, 2):
        judged(publisher, app, rows, number)
    publisher.offer(light_arrays(app, 3, bias=-1.5, scale=0.3), position=3, step=3, trained_until_ms=3)
    publisher.observe(rows.head(100))
    store.rollback(1, "drill")
    publisher.observe(rows.tail(200))
    assert (publisher.decisions[-1].kind, store.current_version()) == ("rolled_back", 1)


def test_who_publishes_by_hand_ends_a_rollback(app: App, rows: pl.DataFrame) -> None:
    store, clock = MemoryWeights("adsim"), ManualClock(0)
    publisher = Publisher(app, store, clock)
    for number in (1, 2):
        judged(publisher, app, rows, number)
    store.rollback(1, "drill")
    assert judged(Publisher(app, store, clock, epoch=store.epoch(), by_hand=True), app, rows, 3).version == 3
    assert judged(publisher, app, rows, 4).version == 4


def test_the_time_at_the_gate_is_part_of_a_versions_age(app: App, rows: pl.DataFrame) -> None:
    store, clock = MemoryWeights("adsim"), ManualClock(10_000)
    publisher = Publisher(app, store, clock)
    arrays = light_arrays(app, 1, bias=-1.5, scale=0.3)
    publisher.offer(arrays, position=1, step=1, trained_until_ms=4000)
    publisher.observe(rows.head(100))
    clock.advance(2500)
    publisher.observe(rows.tail(200))
    manifest = store.fetch().manifest
    assert (manifest.gate["offered_ms"], manifest.gate["gate_wait_s"], manifest.created_ms) == (10_000.0, 2.5, 12_500)
