"""Law 5: an impression has the same features in training and in the request that would have led to it."""

import polars as pl
import pytest

from contracts.app import App, load_app
from contracts.features import STATEFUL
from nodes.featurize import featurize
from nodes.read_requests import RequestReader
from nodes.requests import requests_from
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
