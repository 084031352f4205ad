"""Counters that fade: sums in the log's order whatever the cuts, what is long ago forgotten, no half-life no fading."""

import math
from collections import defaultdict
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.app import App
from contracts.features import Feature
from nodes.streaming import StreamingFeatures
from nodes.streaming.decayed import DecayedEvidence

ERA = 32  # half-lives
ROWS = st.lists(st.tuples(st.integers(0, 400), st.integers(1, 4), st.integers(0, 1)), min_size=1, max_size=40).map(
    sorted
)


def arrays(rows: list[tuple[int, int, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    at_ms, key, label = (np.array(column) for column in zip(*rows, strict=True))
    return at_ms.astype(np.int64), key.astype(np.uint64), label.astype(np.int64)


def pushed(evidence: DecayedEvidence, rows: list[tuple[int, int, int]]) -> list[tuple[float, float]]:
    """What each row sees of those before it, all settled at once."""
    at_ms, key, label = arrays(rows)
    seen = evidence.push(key, at_ms, label, np.arange(len(rows)), key, at_ms)
    return list(zip(*(counts.tolist() for counts in seen), strict=True))


def one_by_one(rows: list[tuple[int, int, int]], half_life_ms: int) -> list[tuple[float, float]]:
    """The same sums in plain Python, a row at a time: of each key and era, shown and clicked."""
    sums: dict[tuple[int, int], list[float]] = defaultdict(lambda: [0.0, 0.0])
    made = []
    for at_ms, key, label in rows:
        era, begun_ms = divmod(at_ms, ERA * half_life_ms)
        weight = pl.Series([begun_ms * (math.log(2) / half_life_ms)]).exp().item()
        now, before = sums[key, era], sums[key, era - 1]
        made.append(tuple((now[n] + before[n] * 0.5**ERA) / weight for n in (0, 1)))
        now[0] += weight
        now[1] += weight * label
    return made


@settings(max_examples=60, deadline=None)
@given(rows=ROWS, half_life_ms=st.sampled_from([1, 3, 40, 10**9]), data=st.data())
def test_sums_are_to_the_bit_those_of_one_row_after_the_other(
    rows: list[tuple[int, int, int]], half_life_ms: int, data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(rows) - 1))
    whole, parts = DecayedEvidence(half_life_ms), DecayedEvidence(half_life_ms)
    made = pushed(whole, rows)
    assert made == one_by_one(rows, half_life_ms)
    assert made == (pushed(parts, rows[:cut]) if cut else []) + pushed(parts, rows[cut:])
    assert parts.table(rows[-1][0]).equals(whole.table(rows[-1][0]))
    worth = [
        sum(0.5 ** ((row[0] - past[0]) / half_life_ms) for past in rows[:i] if past[1] == row[1])
        for i, row in enumerate(rows)
    ]
    assert [shown for shown, _ in made] == pytest.approx(worth, rel=1e-9, abs=1e-7)


def test_keys_of_any_number_of_rows_keep_their_bits_through_any_cuts() -> None:
    rng = np.random.default_rng(4)
    keys = np.minimum(rng.zipf(1.3, 20_000), 5_000)  # one has thousands of rows, many have one
    rows = [(at_ms, int(key), at_ms % 3 % 2) for at_ms, key in zip(range(0, 100_000, 5), keys, strict=True)]
    expected = one_by_one(rows, 700)
    for size in (20_000, 4_096, 333):
        evidence = DecayedEvidence(700)
        assert [
            seen for start in range(0, 20_000, size) for seen in pushed(evidence, rows[start : start + size])
        ] == expected


def test_a_row_is_worth_half_after_a_half_life_and_nothing_in_the_end() -> None:
    evidence, half_life_ms = DecayedEvidence(1000), 1000
    rows = [(5, 7, 1), *((5 + half_life_ms * n, 7, 0) for n in (0, 1, 3, 40))]
    at_ms, key, label = arrays(rows)
    seen = evidence.push(key[:1], at_ms[:1], label[:1], np.ones(4, np.int64), key[1:], at_ms[1:])
    assert seen[0].tolist() == pytest.approx([1, 0.5, 0.125, 0.5**40], rel=1e-12)
    late = np.array([2 * ERA * half_life_ms])
    none = np.zeros(0, np.int64)
    gone = evidence.push(np.zeros(0, np.uint64), none, none, np.zeros(1, np.int64), key[:1], late)
    assert gone[0].tolist() == [0.0]


def test_keys_that_count_nothing_any_more_are_forgotten() -> None:
    evidence, kept = DecayedEvidence(1), DecayedEvidence(1)
    kept._forget_at = 10**9
    sizes = []
    for step in range(40):  # half an era: a thousand new keys, and those of an era ago
        keys = [1 + 1000 * of + n for of in {step, max(step - 2, 0)} for n in range(1000)]
        rows = sorted((step * ERA // 2 + key % (ERA // 2), key, key % 2) for key in keys)
        assert pushed(evidence, rows) == pushed(kept, rows)
        now_ms = rows[-1][0]
        assert evidence.table(now_ms).equals(kept.table(now_ms))
        sizes.append(len(evidence._index))
    assert len(kept._index) == 40_000
    assert max(sizes) < 16_000
    assert evidence.table(now_ms).height < 8_000


def table(**given: Any) -> tuple[Feature, ...]:
    own = {"side": "user", "only": "booster", "columns": ("user_id",)} | given
    return (Feature(name="seen", kind="count", **own), Feature(name="ctr", kind="rate", prior=0.2, strength=5.0, **own))


def stream_of(app: App, features: tuple[Feature, ...]) -> StreamingFeatures:
    labels = app.config.labels.model_copy(update={"wait_s": 0.05})
    return StreamingFeatures(
        replace(app, config=app.config.model_copy(update={"features": features, "labels": labels}))
    )


def frame_of(rows: list[tuple[int, int, int]], later_ms: int = 0) -> pl.DataFrame:
    at_ms, key, label = arrays(rows)
    return pl.DataFrame({"event_time_ms": at_ms + later_ms, "user_id": key.astype(str), "label": label})


@settings(max_examples=30, deadline=None)
@given(rows=ROWS)
def test_an_endless_half_life_is_none(adsim: App, rows: list[tuple[int, int, int]]) -> None:
    today = 1_760_000_000_000
    plain = stream_of(adsim, table()).push(frame_of(rows, today))
    fading = stream_of(adsim, table(half_life_s=1e11)).push(frame_of(rows, today))
    assert np.allclose(fading.to_numpy(), plain.to_numpy(), rtol=1e-6, atol=1e-7)


@settings(max_examples=30, deadline=None)
@given(rows=ROWS)
def test_a_lag_shows_what_was_there_so_much_earlier(adsim: App, rows: list[tuple[int, int, int]]) -> None:
    """With `delay_s` a row gets what one without it would have got that long before: fading is not counted twice."""
    lagging = stream_of(adsim, table(half_life_s=0.01, delay_s=0.03)).push(frame_of(rows)).rows()
    for (at_ms, key, _), got in zip(rows, lagging, strict=True):
        earlier = [row for row in rows if row[0] <= at_ms - 30]
        prompt = stream_of(adsim, table(half_life_s=0.01)).push(frame_of([*earlier, (at_ms - 30, key, 0)]))
        assert got == prompt.rows()[-1]


def test_a_fresh_key_has_the_prior(adsim: App) -> None:
    got = stream_of(adsim, table(half_life_s=60)).push(frame_of([(0, 1, 1), (10_000, 2, 0)]))
    assert got.rows() == [(0.0, 0.0)] * 2
