"""Law 5 on every path of the scorer: precomputed items, split, and values of one's own, against torch in one answer."""

import json
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.app import App, load_app
from contracts.features import Feature
from contracts.weights import Weights
from model.published import PublishedLight
from model.tensors import to_batch
from nodes.catalogue import Catalogue, item_contract
from nodes.fake_traffic import examples, light_arrays, requests
from nodes.fakes import MemoryWeights
from nodes.featurize import featurize
from nodes.light_numpy import LightNet
from nodes.publish import Publisher
from nodes.score import LightScorer

APPS = {name: load_app(name, {"publish": {"dtype": "fp32"}}) for name in ("adsim", "kuairand")}


#: Lights of every form: what stands beside the wide term, and what follows each layer.
LIGHTS = {
    "fm alone": {"deep": False, "fm": True},
    "fm and deep": {"fm": True, "norm": "layer", "activation": "gelu"},
    "fm and linear": {"fm": True, "hidden": []},
    "silu": {"wide": False, "activation": "silu"},
    "prelu": {"hidden": [16, 8, 8], "activation": "prelu", "norm": "layer"},
}


def weights_of(app: App, seed: int) -> Weights:
    store = MemoryWeights(app.name)
    publisher = Publisher(app, store, lambda: 1000, force=True)
    publisher.offer(light_arrays(app, seed, scale=0.3), position=1, step=1, trained_until_ms=1)
    publisher.finish()
    return store.fetch()


def items_of(app: App, messages: list[Any]) -> dict[str, dict[str, Any]]:
    """One item a name, of those that were asked for."""
    item_id = app.requests.role("item_id")
    return {candidate[item_id]: candidate for message in messages for candidate in message["candidates"]}


def catalogue_of(app: App, items: dict[str, dict[str, Any]]) -> Catalogue:
    return Catalogue(app, pl.DataFrame(list(items.values()), schema=item_contract(app).schema_, orient="row"))


def features_of(app: App, messages: list[Any], known: dict[str, dict[str, Any]]) -> pl.DataFrame:
    """The light features of every candidate as training would make them."""
    item_id, rows = app.requests.role("item_id"), []
    for message in messages:
        asked = {**message["user"], **message["context"], "event_time_ms": message["event_time_ms"]}
        for candidate in message["candidates"]:
            said = {name: value for name, value in candidate.items() if value is not None}
            rows.append({**asked, **known.get(candidate[item_id], {}), **said})
    schema = {k: v for k, v in app.impressions.schema_.items() if k != app.impressions.role("impression_id")}
    frame = pl.DataFrame([{name: row.get(name) for name in schema} for row in rows], schema=schema)
    defaults = {column: f.serve_default for f in app.features if f.serve_default is not None for column in f.inputs}
    frame = frame.with_columns(pl.col(column).fill_null(value) for column, value in defaults.items())
    return featurize(frame, [f for f in app.features if f.only is None])


def asked(app: App, seed: int, draw: np.random.Generator) -> tuple[list[Any], dict[str, dict[str, Any]]]:
    """Requests whose candidates come by id alone, in full, with another value, or are unknown; and the items known."""
    item_id = app.requests.role("item_id")
    messages = [json.loads(line) for line in requests(app, 6, 9, seed)]
    known = items_of(app, messages)
    other = [column for column in item_contract(app).columns if column.physical == "string" and column.name != item_id]
    for message in messages:
        for at, candidate in enumerate(message["candidates"]):
            how = draw.integers(0, 5)
            if how < 2:
                message["candidates"][at] = {item_id: candidate[item_id]}
            elif how == 2:
                message["candidates"][at] = candidate | {item_id: f"new-{at}"}
            elif how == 3:
                column = next((c for c in other if not c.allowed and not c.pattern), None)
                if column is not None:
                    message["candidates"][at] = {item_id: candidate[item_id], column.name: "own"}
    return messages, known


@pytest.mark.parametrize("name", APPS)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_all_paths_in_one_answer_agree_with_torch_and_the_plain_path(name: str, seed: int) -> None:
    app = APPS[name]
    weights = weights_of(app, seed % 7)
    messages, known = asked(app, seed, np.random.default_rng(seed))
    lines = [json.dumps(message).encode() for message in messages]
    scored = LightScorer(app, weights, catalogue_of(app, known)).score(lines, now_ms=0)
    assert [response.error for response in scored.responses] == [None] * len(lines)
    assert not scored.asked.refused
    assert scored.asked.places is not None
    assert 0 < (scored.asked.places >= 0).sum() < scored.logit.size, "more than one path"
    light = features_of(app, messages, known)
    assert np.abs(scored.logit - LightNet(app.layout, weights.arrays).logits(light)).max() <= 1e-5
    rows = examples(app, light.height).with_columns(light)
    in_torch = PublishedLight(weights.arrays, app).logits(to_batch(rows, app))
    assert np.abs(scored.logit - in_torch).max() <= 1e-5
    assert scored.logit.std() > 0.05, "the rows differ, so the comparison says something"


@pytest.mark.parametrize("light", LIGHTS)
@settings(max_examples=3, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_every_form_of_the_light_net_agrees_on_every_path(light: str, seed: int) -> None:
    app = load_app("adsim", {"publish": {"dtype": "fp32"}, "model": {"light": LIGHTS[light]}})
    weights = weights_of(app, seed % 7)
    messages, known = asked(app, seed, np.random.default_rng(seed))
    lines = [json.dumps(message).encode() for message in messages]
    scored = LightScorer(app, weights, catalogue_of(app, known)).score(lines, now_ms=0)
    assert scored.asked.places is not None
    assert 0 < (scored.asked.places >= 0).sum() < scored.logit.size, "more than one path"
    features = features_of(app, messages, known)
    rows = examples(app, features.height).with_columns(features)
    in_torch = PublishedLight(weights.arrays, app).logits(to_batch(rows, app))
    assert np.abs(scored.logit - LightNet(app.layout, weights.arrays).logits(features)).max() <= 1e-5
    assert np.abs(scored.logit - in_torch).max() <= 1e-5
    assert scored.logit.std() > 0.05, "the rows differ, so the comparison says something"


def test_a_feature_across_both_sides_takes_the_full_path_for_items_by_id(adsim: App) -> None:
    pair = Feature(name="pair", kind="cross", columns=("user_id", "campaign_id"), side="item", buckets=500)
    config = adsim.config.model_copy(update={"features": (*adsim.features, pair)})
    app = App(adsim.folder, config, adsim.impressions, adsim.clicks, adsim.requests)
    weights = weights_of(app, 1)
    messages, known = asked(app, 5, np.random.default_rng(5))
    lines = [json.dumps(message).encode() for message in messages]
    scored = LightScorer(app, weights, catalogue_of(app, known)).score(lines, now_ms=0)
    light = features_of(app, messages, known)
    assert np.abs(scored.logit - LightNet(app.layout, weights.arrays).logits(light)).max() <= 1e-5


def test_bad_candidates_are_refused_alone_beside_items_by_id(adsim: App) -> None:
    app = APPS["adsim"]
    weights = weights_of(app, 1)
    messages, known = asked(app, 3, np.random.default_rng(3))
    request = messages[0] | {"candidates": [{"item_id": name} for name in list(known)[:4]]}
    scorer = LightScorer(app, weights, catalogue_of(app, known))
    (clean,) = scorer.answer([json.dumps(request).encode()], now_ms=0)
    bad = [5, {"item_id": "nobody"}, next(iter(known.values())) | {"format": "radio"}, {"item_id": "", "bid": 1.0}]
    mixed = [row for pair in zip(request["candidates"], bad, strict=True) for row in pair]
    (made,) = scorer.answer([json.dumps(request | {"candidates": mixed}).encode()], now_ms=0)
    assert [score.refused is None for score in made.scores] == [True, False] * 4
    assert [str(score.refused).partition(":")[0] for score in made.scores[1::2]] == [
        "wrong_type", "missing", "not_allowed", "too_short",
    ]  # fmt: skip
    np.testing.assert_allclose([s.pctr for s in made.scores[::2]], [s.pctr for s in clean.scores], rtol=1e-5)
