"""The tail: whatever is cut, delivered late, restored or killed, the log is the same and each event has one fate."""

import random

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.app import load_app
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
@given(seed=st.integers(0, 2**32), crashes=st.integers(0, 6), slot_ms=st.sampled_from([500, 1000, 7000]))
@pytest.mark.parametrize("mode", sorted(APPS))
def test_any_crash_any_cut_and_any_delivery_give_the_log_of_one_undisturbed_run(mode, seed, crashes, slot_ms):
    draw = random.Random(seed)
    topics = topics_of(draw, 90, 2)
    disk = follow(APPS[mode], topics, slot_ms, draw, crashes)
    rows, fates = expected(APPS[mode], topics)
    assert pl.concat(disk.log).equals(rows)
    assert told(disk.all_fates()).equals(told(fates))
