"""The row-wise join that Rocket's is measured against keeps the same rules, decided in any steps."""

import random

import polars as pl
import pytest

from contracts.app import load_app
from contracts.events import ORIGIN
from deploy.benches.peers.row_join import Rules, decide, rules_of
from nodes.join import Joiner

SETTINGS = {"labels": {"wait_s": 0.1, "dedupe_s": 0.1}, "ingest": {"disorder_s": 0.02}}


def shown(at: int) -> dict:
    return {"at": at, "click": False, "hash": at}


def clicked(at: int) -> dict:
    return {"at": at, "click": True, "hash": at}


def frame(contract, **columns) -> pl.DataFrame:
    schema = contract.schema_ | ORIGIN
    given = {"_late": False, "_line": 0, "_hash": 0, "_origin": "f", **columns}
    made = pl.DataFrame(given, strict=False)
    return made.select(
        pl.col(name).cast(kind) if name in given else pl.lit(None, kind).alias(name) for name, kind in schema.items()
    )


@pytest.mark.parametrize("seed", range(40))
def test_its_labels_are_those_of_rockets_join(seed: int):
    app, draw = load_app("adsim", SETTINGS), random.Random(seed)
    times = sorted(draw.sample(range(500), 4))
    clicks = sorted(draw.sample(range(600), draw.randint(0, 4)))
    joiner = Joiner(app)
    joiner.add(
        frame(app.impressions, impression_id=["a"] * 4, event_time_ms=times, _hash=times),
        frame(app.clicks, click_id=[f"c{n}" for n in clicks], impression_id=["a"] * len(clicks), event_time_ms=clicks,
              _hash=clicks) if clicks else None,
    )  # fmt: skip
    expected = joiner.settle(None).examples.select("event_time_ms", "label").sort("event_time_ms").rows()
    events, kept, found = [*map(shown, times), *map(clicked, clicks)], [], []
    until = 0
    while until < 1000:  # as a timer fires: all events before `until` have come
        new = until + draw.randint(1, 120)
        kept = [*kept, *(event for event in events if until <= event["at"] < new)]
        labels, kept = decide(kept, new, rules_of(app))
        found, until = found + labels, new
    assert found == expected
    assert not kept


def test_a_dedupe_span_that_it_does_not_know_is_refused():
    with pytest.raises(ValueError, match="dedupe_s up to wait_s"):
        rules_of(load_app("adsim"))


def test_a_click_without_an_impression_is_forgotten_in_time():
    rules = Rules(100, 20, 100)
    assert decide([clicked(90)], 100, rules).kept
    assert not decide([clicked(90)], 110, rules).kept
