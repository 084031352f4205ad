"""Law 5: an impression has the same features in training and in the request that would have led to it."""

from typing import Any

import polars as pl
import pytest

from contracts.app import App, load_app
from contracts.features import STATEFUL
from nodes.featurize import featurize
from nodes.read_requests import RequestReader
from nodes.requests import requests_from
from nodes.streaming import StreamingFeatures
from tests.random_rows import random_impressions


def _bits(frame: pl.DataFrame) -> pl.DataFrame:
    """Equal only if the bits are."""
    return frame.with_columns(pl.col(pl.Float32).reinterpret(signed=False))


@pytest.mark.parametrize("name", ["adsim", "kuairand"])
def test_features_of_10_000_impressions_and_of_their_requests_have_the_same_bits(name: str) -> None:
    app: App = load_app(name)
    light = [feature for feature in app.features if feature.only is None and feature.kind not in STATEFUL]
    shown = random_impressions(app, 10_000, seed=5)
    made = requests_from(shown, app)
    asked = RequestReader(app).read([line.encode() for line in made.lines])
    assert [problem for problem in asked.problems if problem] == []
    assert asked.refused == {}

    flat = asked.candidates.hstack(asked.requests.drop(asked.candidates.columns, strict=False)[asked.request_of])
    place = flat.select("id", candidate=pl.int_range(pl.len()).over("id"))
    served = place.hstack(featurize(flat, light)).rename({"id": "request_id"})
    key = app.impressions.role("impression_id")
    trained = shown.select(impression_id=key).hstack(featurize(shown, light))
    both = made.asked.join(served, on=["request_id", "candidate"], how="inner", validate="1:1").drop(
        "request_id", "candidate", "event_time_ms"
    )
    assert both.height == shown.height
    assert made.lines.len() < 0.6 * shown.height  # requests hold several candidates, so places matter
    assert _bits(both.sort("impression_id")).equals(_bits(trained.sort("impression_id").select(both.columns)))
    for feature in light:  # the rows are worth comparing
        assert trained[feature.name].n_unique() > 2, feature.name


@pytest.mark.parametrize("table", [{"buckets": 500}, {"dynamic": {"capacity": 50}}], ids=["buckets", "rows of its own"])
def test_what_a_sequence_remembers_is_what_requests_ask_for(table: dict[str, Any]) -> None:
    """The items of a `recent` feature are those that the scorer makes of the same ads in requests."""
    features = [{"name": "ad", "kind": "id", "column": "item_id", "side": "item"} | table]
    features += [{"name": "lately", "kind": "recent", "columns": ["user_id"], "of": "ad", "length": 3, "side": "user"}]
    features[1] |= {"only": "booster", "clicked": False}
    app = load_app("adsim", {"features": features, "labels": {"wait_s": 1}, "model": {"booster": {"kind": "mlp"}}})
    shown = random_impressions(app, 3000, seed=6).sort("event_time_ms")
    seen = StreamingFeatures(app).push(shown.with_columns(label=pl.lit(0, pl.UInt8)))["lately"].to_list()
    asked = RequestReader(app).read([line.encode() for line in requests_from(shown, app).lines])
    column = asked.candidates.select("item_id").hstack(featurize(asked.candidates, app.layout.light_ids))
    served = dict(column.select("item_id", "ad").iter_rows())
    past: dict[str, list[tuple[int, int]]] = {}
    for (user, item, at_ms), items in zip(
        shown.select("user_id", "item_id", "event_time_ms").rows(), seen, strict=True
    ):
        mine = past.setdefault(user, [])
        assert items == [ad for then_ms, ad in mine if then_ms + 1000 <= at_ms][-3:]
        mine.append((at_ms, served[item]))
    assert len({item for items in seen for item in items}) > 100
