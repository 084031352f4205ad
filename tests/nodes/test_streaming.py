"""Streaming features against a row-by-row oracle: the same whatever the cuts, and no label ahead of its time."""

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.app import App
from contracts.buckets import bucket, hash64
from contracts.dynamic import DynamicTable
from contracts.errors import ContractError, CorruptError, SchemaMismatchError
from contracts.features import Feature
from nodes.streaming import StreamingFeatures
from nodes.streaming.keys import KeyIndex

WAIT_MS = 50


def feature(name: str, kind: str, **given: Any) -> Feature:
    return Feature(name=name, kind=kind, side="user", only="booster", **given)


TABLE = (
    Feature(name="ad", kind="id", column="item_id", side="item", buckets=64),
    Feature(name="own_ad", kind="id", column="item_id", side="item", dynamic=DynamicTable(capacity=9)),
    feature("user_seen", "count", columns=("user_id",)),
    feature("user_rate", "rate", columns=("user_id",), prior=0.2, strength=5.0),
    feature("pair_rate", "rate", columns=("user_id", "site"), prior=0.1, strength=2.0),
    feature("last_clicked", "recent", columns=("user_id",), of="ad", length=2),
    feature("last_shown", "recent", columns=("site",), of="ad", length=3, clicked=False),
    feature("last_own", "recent", columns=("user_id",), of="own_ad", length=2, clicked=False),
    feature("late_rate", "rate", columns=("user_id",), prior=0.2, strength=5.0, delay_s=0.03),
    feature("late_clicked", "recent", columns=("user_id",), of="ad", length=2, delay_s=0.1),
    feature("fading_seen", "count", columns=("user_id",), half_life_s=0.02),
    feature("fading_rate", "rate", columns=("user_id",), prior=0.2, strength=5.0, half_life_s=0.002),
    feature("late_fading", "rate", columns=("site",), prior=0.1, strength=2.0, delay_s=0.03, half_life_s=0.003),
)
SCHEMA = {
    "event_time_ms": pl.Int64(),
    "user_id": pl.String(),
    "site": pl.String(),
    "item_id": pl.String(),
    "label": pl.UInt8(),
}
ROWS = st.lists(
    st.tuples(
        st.integers(0, 400),
        st.sampled_from(["u1", "u2", "u3"]),
        st.sampled_from(["s1", "s2", None]),
        st.sampled_from(["a", "b", "c", None]),
        st.integers(0, 1),
    ),
    max_size=40,
).map(lambda rows: sorted(rows, key=lambda row: row[0]))


@pytest.fixture(scope="module")
def small(adsim: App) -> App:
    """An app with a wait of 50 ms and a table of streaming features."""
    labels = adsim.config.labels.model_copy(update={"wait_s": WAIT_MS / 1000})
    return replace(adsim, config=adsim.config.model_copy(update={"features": TABLE, "labels": labels}))


def as_frame(rows: list[tuple[Any, ...]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def pushed(stream: StreamingFeatures, rows: list[tuple[Any, ...]], cuts: list[int]) -> pl.DataFrame:
    """The features of the rows, pushed in parts that begin at `cuts`."""
    edges = [0, *sorted(cuts), len(rows)]
    frame = as_frame(rows)
    return pl.concat([stream.push(frame[start:stop]) for start, stop in itertools.pairwise(edges)])


def own_key(item: str | None) -> int:
    """What stands for an id that owns its row."""
    return 0 if item is None else hash64(item)


def oracle(rows: list[tuple[Any, ...]]) -> list[dict[str, Any]]:
    """What each row may know, looked up row by row."""
    made = []
    for i, row in enumerate(rows):
        values: dict[str, Any] = {}
        for one in TABLE[2:]:
            earlier = [past for past in rows[:i] if past[0] + WAIT_MS + 1000 * one.delay_s <= row[0]]
            at = [list(SCHEMA).index(column) for column in one.columns]
            key = [row[n] for n in at]
            mine = [past for past in earlier if None not in key and [past[n] for n in at] == key]
            age_s = [(row[0] - past[0] - WAIT_MS) / 1000 - one.delay_s for past in mine]
            worth = [0.5 ** (age / one.half_life_s) if one.half_life_s else 1 for age in age_s]
            shown, clicks = sum(worth), sum(past[4] * part for past, part in zip(mine, worth, strict=True))
            if one.kind == "count":
                values[one.name] = math.log1p(shown)
            elif one.kind == "rate":
                smoothed = (clicks + one.prior * one.strength) / (shown + one.strength)
                values[one.name] = math.log(smoothed) - math.log(one.prior)
            else:
                items = [past[3] for past in mine if past[4] or not one.clicked][-one.length :]
                values[one.name] = [own_key(item) if one.of == "own_ad" else bucket(item, 64) for item in items]
        made.append(values)
    return made


def bits(frame: pl.DataFrame) -> list[Any]:
    return frame.with_columns(pl.col(pl.Float32).reinterpret(signed=False)).rows()


@settings(max_examples=40, deadline=None)
@given(rows=ROWS, data=st.data())
def test_any_cuts_give_what_the_oracle_gives(small: App, rows: list[tuple[Any, ...]], data: st.DataObject) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(rows)), max_size=5))
    got = pushed(StreamingFeatures(small), rows, cuts)
    assert bits(got) == bits(pushed(StreamingFeatures(small), rows, []))
    for mine, expected in zip(got.to_dicts(), oracle(rows), strict=True):
        assert mine == {
            name: value if isinstance(value, list) else pytest.approx(value, rel=1e-6, abs=1e-7)
            for name, value in expected.items()
        }


@settings(max_examples=20, deadline=None)
@given(rows=ROWS, data=st.data())
def test_a_restored_stream_goes_on_as_if_it_had_never_stopped(
    small: App, rows: list[tuple[Any, ...]], data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(rows)))
    whole, first, second = (StreamingFeatures(small) for _ in range(3))
    expected = pushed(whole, rows, [])
    pushed(first, rows[:cut], data.draw(st.lists(st.integers(0, cut), max_size=3)))
    second.restore(first.state())
    assert second.state() == first.state()
    assert bits(pushed(second, rows[cut:], [])) == bits(expected[cut:])
    assert second.state() == whole.state()


def leaks(make: Callable[[], StreamingFeatures], rows: list[tuple[Any, ...]]) -> bool:
    """Whether some row's label changes the features of a row that comes before the label has settled."""
    told = bits(pushed(make(), rows, []))
    for j, row in enumerate(rows):
        turned = [*rows[:j], (*row[:4], 1 - row[4]), *rows[j + 1 :]]
        other = bits(pushed(make(), turned, []))
        if any(told[i] != other[i] for i in range(len(rows)) if rows[i][0] < row[0] + WAIT_MS):
            return True
    return False


CROWD = [(t, "u1", "s1", "abc"[t % 3], t % 2) for t in range(0, 130, 7)]  # some are 49 ms apart


def test_no_label_is_seen_before_it_has_settled(small: App) -> None:
    assert not leaks(lambda: StreamingFeatures(small), CROWD)


@pytest.mark.parametrize("names", [[one.name for one in TABLE], ["fading_rate"]], ids=["all", "fading"])
def test_a_planted_leak_is_caught(small: App, names: list[str]) -> None:
    table = tuple(one for one in TABLE if one.name in names)
    app = replace(small, config=small.config.model_copy(update={"features": table}))

    class SeesItsOwnLabel(StreamingFeatures):
        def __init__(self, app: App) -> None:
            super().__init__(app)
            self._wait_ms = 0

    class SeesLabelsOneMsEarly(StreamingFeatures):
        def __init__(self, app: App) -> None:
            super().__init__(app)
            self._wait_ms = WAIT_MS - 1

    assert leaks(lambda: SeesItsOwnLabel(app), CROWD)
    assert leaks(lambda: SeesLabelsOneMsEarly(app), CROWD)


def test_a_label_is_seen_from_the_moment_that_it_settles(small: App) -> None:
    rows = [(0, "u1", "s1", "a", 1), (WAIT_MS - 1, "u1", "s1", "b", 0), (WAIT_MS, "u1", "s1", "c", 0)]
    got = pushed(StreamingFeatures(small), rows, [])
    assert got["user_seen"].to_list() == [0, 0, pytest.approx(math.log(2))]
    assert got["last_clicked"].to_list() == [[], [], [bucket("a", 64)]]


def test_no_evidence_and_null_keys_give_nothing(small: App) -> None:
    rows = [(0, "u1", None, "a", 1), (1000, "u2", None, "a", 1)]
    got = pushed(StreamingFeatures(small), rows, [1])
    assert got.rows() == [(0.0, 0.0, 0.0, [], [], [], 0.0, [], 0.0, 0.0, 0.0)] * 2


def test_rows_out_of_order_are_refused(small: App) -> None:
    stream = StreamingFeatures(small)
    with pytest.raises(ContractError, match="in order of event time"):
        stream.push(as_frame([(5, "u", "s", "a", 0), (4, "u", "s", "a", 0)]))
    stream.push(as_frame([(5, "u", "s", "a", 0)]))
    with pytest.raises(ContractError, match=r"4 came after 5"):
        stream.push(as_frame([(4, "u", "s", "a", 0)]))


def test_a_missing_column_is_named(small: App) -> None:
    with pytest.raises(ContractError, match="need the column 'site'"):
        StreamingFeatures(small).push(as_frame([(5, "u", "s", "a", 0)]).drop("site"))


def test_foreign_and_broken_states_are_refused(small: App, kuairand: App) -> None:
    stream = StreamingFeatures(small)
    pushed(stream, CROWD, [])
    state = stream.state()
    for broken in (b"", b"nonsense", state[: len(state) // 2]):
        with pytest.raises(CorruptError, match="not whole"):
            StreamingFeatures(small).restore(broken)
    with pytest.raises(SchemaMismatchError, match=small.schema_id):
        StreamingFeatures(kuairand).restore(state)


def test_an_app_without_streaming_features_gives_no_columns(adsim: App) -> None:
    plain = replace(adsim, config=adsim.config.model_copy(update={"features": TABLE[:1]}))
    stream = StreamingFeatures(plain)
    assert stream.names == []
    assert stream.push(as_frame(CROWD)).width == 0


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.integers(1, 60), max_size=30), max_size=8))
def test_keys_keep_their_slots(batches: list[list[int]]) -> None:
    index, slots = KeyIndex(), dict[int, int]()
    for batch in batches:
        keys = np.unique(np.array(batch, np.uint64))
        for key in keys.tolist():
            slots.setdefault(key, len(slots))
        assert index.add(keys).tolist() == [slots[key] for key in keys.tolist()]
    everything = np.arange(1, 70, dtype=np.uint64)
    assert index.find(everything).tolist() == [slots.get(key, -1) for key in everything.tolist()]
    assert len(index) == len(slots)


def test_many_keys_survive_merges_of_the_index() -> None:
    index, rng = KeyIndex(), np.random.default_rng(1)
    keys = rng.permutation(np.arange(1, 30_001, dtype=np.uint64))
    for part in np.split(keys, 10):
        index.add(np.sort(part))
    found = index.find(keys)
    assert np.array_equal(np.sort(found), np.arange(30_000))
    assert np.array_equal(index.sorted()[0], np.arange(1, 30_001))
