"""The tail: whatever is cut, delivered late, restored or killed, the log is the same and each event has one fate."""

import random

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.app import load_app
from contracts.errors import CorruptError
from contracts.events import FATES, Mark
from contracts.positions import Position
from nodes.log_features import LogFeatures
from nodes.log_tail import LogTail
from nodes.positions import basis_of
from nodes.slots import Slots
from tests.live_world import expected, follow, told, topics_of


def app_of(mode: str = "wait", dedupe_s: float = 25.0):
    return load_app(
        "adsim",
        {
            "labels": {"wait_s": 10, "dedupe_s": dedupe_s, "mode": mode, "observe_s": 3},
            "ingest": {"disorder_s": 4, "shards": 2, "segment_rows": 7, "chunk_rows": 21},
            "sampling": {"negative_keep_rate": 0.7 if mode == "wait" else 1.0},
        },
    )


APPS = {mode: app_of(mode) for mode in ("wait", "fake_negative", "es_dfm")}


@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 2**32), crashes=st.integers(0, 6), fine_ms=st.sampled_from([500, 1000, 7000]))
@pytest.mark.parametrize("mode", sorted(APPS))
def test_any_crash_any_cut_and_any_delivery_give_the_log_of_one_undisturbed_run(mode, seed, crashes, fine_ms):
    draw = random.Random(seed)
    topics = topics_of(draw, 90, 2)
    disk = follow(APPS[mode], topics, fine_ms, draw, crashes)
    rows, fates = expected(APPS[mode], topics)
    assert pl.concat(disk.log).equals(rows)
    assert told(disk.all_fates()).equals(told(fates))


def marks_of(offset: int) -> pl.DataFrame:
    return pl.DataFrame([Mark("t:0", offset, offset)], schema=list(Mark._fields), orient="row")


def test_a_position_says_what_had_been_read_when_its_slot_ended_and_no_more():
    tail = LogTail(APPS["wait"], basis_of(APPS["wait"], {"t": 1}), Slots(1000))
    for offset, at_ms in ((0, -(10**12)), (4, 1500), (9, 2000), (12, 2001)):
        tail.take("marks", marks_of(offset), at_ms)
    assert list(tail.release(2000)) == []
    assert tail.position().reached == {"t:0": 9}
    again = LogTail(APPS["wait"], basis_of(APPS["wait"], {"t": 1}), Slots(1000))
    again.restore(APPS["wait"], tail.snapshot())
    assert list(again.release(3000)) == []
    assert again.position().reached == {"t:0": 12}


def test_rows_that_come_behind_their_slot_stop_the_log_and_do_not_break_its_order():
    rows, _ = expected(APPS["wait"], topics_of(random.Random(1), 30, 1))
    tail = LogTail(APPS["wait"], basis_of(APPS["wait"], {"t": 1}), Slots(1000))
    list(tail.release(10**6))
    with pytest.raises(CorruptError, match="rows of slot 999000 came after slot 1000000 was written"):
        tail.take("rows", rows, 999_000)


def test_after_a_restart_decided_fates_are_dropped_but_those_of_late_events_are_kept():
    app, basis = APPS["wait"], basis_of(APPS["wait"], {"t": 1})
    tail = LogTail(app, basis, Slots(1000), Position(0, 5000, None, {}, {}, basis, LogFeatures(app).state()))
    reasons = [None, "same_payload", "after_wait", "behind_disorder", "behind_watermark"]
    fate = {None: "accepted", "same_payload": "duplicate"}
    told_fates = pl.DataFrame([{"line": n, "fate": fate.get(r, "late"), "reason": r} for n, r in enumerate(reasons)])
    fates = pl.concat([pl.DataFrame(schema=FATES), told_fates], how="diagonal")
    tail.take("fates", fates, 5000)
    assert tail.unwritten.fates["reason"].to_list() == ["behind_disorder", "behind_watermark"]
    tail.take("fates", fates, 5001)
    assert tail.unwritten.fates.height == 7
