"""What is known by heart equals what the frames say, value for value and code for code."""

import json
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.app import App, load_app
from contracts.features import Feature
from nodes import request_side
from nodes.fake_traffic import requests
from nodes.feature_columns import SAID
from nodes.features import KINDS, kind
from nodes.read_requests import RequestReader
from nodes.request_side import LightSides, RequestSide

WORDS = st.sampled_from(["banner", "video", "c1", "c2", "", "é" * 32, "x" * 33, "y" * 300])
CANDIDATE = st.fixed_dictionaries(
    {
        "item_id": st.sampled_from(["a1", "a2", "", "z" * 64, "z" * 65]),
        "campaign_id": WORDS,
        "category": st.none() | WORDS,
        "format": st.sampled_from(["banner", "native", "video", "radio"]),
        "bid": st.none() | st.sampled_from([-0.0, 0.0, 2.5, 100.0, 100.5, -1.0]),
    }
)


def _columns(side: RequestSide, rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [tuple(row[column.name] for row in rows) for column in side.columns]


@pytest.fixture(scope="module")
def side() -> RequestSide:
    return RequestReader(load_app("adsim")).candidate_side


@settings(max_examples=150, deadline=None)
@given(st.lists(CANDIDATE, min_size=1, max_size=4))
def test_known_features_are_those_of_the_frames_and_none_where_a_rule_is_broken(
    side: RequestSide, rows: list[dict[str, Any]]
) -> None:
    values = _columns(side, rows)
    frame = side.frame(values)
    known = side.known(values, len(rows))
    too_long_for_the_heart = any(isinstance(value, str) and len(value) > 256 for row in rows for value in row.values())
    assert (known is None) == (bool(side.wrong(frame)) or too_long_for_the_heart)
    if known is not None:
        plain = side.featurize(frame)
        assert set(known) == {*plain.columns, SAID}
        assert known[SAID].tolist() == [(row["category"],) for row in rows], "what the cross of user and category reads"
        for name in plain.columns:
            np.testing.assert_array_equal(known[name], plain[name].to_numpy())
            assert known[name].dtype == plain[name].to_numpy().dtype


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=70), min_size=1, max_size=5), st.sampled_from([0, 64]))
def test_a_few_texts_are_hashed_one_by_one_as_in_frames(texts: list[str], more: int) -> None:
    made = RequestReader(load_app("adsim")).request_side
    at = [column.name for column in made.columns].index("user_id")
    side = RequestSide(load_app("adsim"), [made.columns[at]], [f for f in made.features if f.inputs == ("user_id",)])
    assert side.features, "the user's id is a feature"
    values = [[*texts, *(f"u{n}" for n in range(more))]]
    frame = side.frame(values)
    known = side.known(values, len(values[0]))
    assert (known is None) == bool(side.wrong(frame))
    for name, column in (known or {}).items():
        np.testing.assert_array_equal(column, side.featurize(frame)[name].to_numpy())


@pytest.mark.parametrize("name", ["adsim", "kuairand"])
def test_both_sides_of_every_shipped_app_are_known_by_heart(name: str) -> None:
    app = load_app(name)
    asked = RequestReader(app).read(requests(app, 20, 5, seed=3))
    for part in (asked.request_side, asked.candidate_side):
        assert part.features is not None
        plain = part.side.featurize(part.frame)
        for column in plain.columns:
            np.testing.assert_array_equal(part.features[column], plain[column].to_numpy())


def test_more_values_than_are_kept_are_forgotten_and_learnt_again(adsim: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_side, "_KNOWN_VALUES", 10)
    side = RequestReader(adsim).candidate_side
    for start in range(0, 60, 4):
        rows = [json.loads(requests(adsim, 1, 1)[0])["candidates"][0] for _ in range(6)]
        rows = [
            {c.name: row.get(c.name) for c in side.columns} | {"item_id": f"a{start + n}"} for n, row in enumerate(rows)
        ]
        values = _columns(side, rows)
        known = side.known(values, 6)
        assert known is not None
        plain = side.featurize(side.frame(values))
        for name in plain.columns:
            np.testing.assert_array_equal(known[name], plain[name].to_numpy())
    assert side.known(_columns(side, [rows[0] | {"item_id": f"b{n}"} for n in range(11)]), 11) is None


def test_a_kind_that_refuses_a_value_leaves_it_to_the_frames(adsim: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, "as_number", KINDS["id"])
    KINDS.pop("as_number")

    @kind("as_number")
    def as_number(feature: Feature) -> pl.Expr:
        return pl.col(feature.inputs[0]).cast(pl.Float32, strict=True)

    table = [Feature(name="n", kind="as_number", column="campaign_id", side="item", output="dense")]
    columns = [column for column in adsim.requests.columns if column.name == "campaign_id"]
    side = RequestSide(adsim, columns, table)
    assert side.known([("1.5", "2")], 2) is not None
    assert side.known([("1.5", "two")], 2) is None
    known = side.known([("2", "1.5")], 2)
    assert known is not None
    assert known["n"].tolist() == [2.0, 1.5]


def test_a_default_is_the_columns_for_every_feature_that_reads_it(adsim: App) -> None:
    """As where all features are made of one frame: in explanations, and of a value that is not surely good."""
    asked = Feature(name="pair", kind="cross", columns=("device", "position"), side="context", buckets=5000)
    columns = [column for column in adsim.requests.columns if column.name in {"device", "position"}]
    side = RequestSide(adsim, columns, [*(f for f in adsim.features if f.column == "position"), asked])
    values = [("mobile", "tv", "mobile"), (1, None, None)]
    known = side.known(values, 3)
    assert known is not None
    assert known["pair"].tolist() == side.featurize(side.frame(values))["pair"].to_list()
    assert known["pair"][0] == known["pair"][2] != 0


def test_features_are_told_apart_by_what_they_read(adsim: App) -> None:
    cross = Feature(name="pair", kind="cross", columns=("user_id", "item_id"), side="item", buckets=50)
    app = load_app("adsim")
    mixed = App(
        app.folder,
        app.config.model_copy(update={"features": (*app.features, cross)}),
        app.impressions,
        app.clicks,
        app.requests,
    )
    sides = LightSides.of(mixed)
    assert [feature.name for feature in sides.mixed] == ["user_category", "pair"]
    assert {f.side for f in sides.item} == {"item"}
    assert not {f.side for f in sides.request} & {"item"}
