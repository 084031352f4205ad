"""Law 5 on every path of the scorer: precomputed items, split, and values of one's own, against torch in one answer."""

import dataclasses
import json
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.app import App, load_app
from contracts.dynamic import FIRST_ROW
from contracts.features import Feature
from contracts.weights import KEYS, Weights
from model.published import PublishedLight
from model.tensors import to_batch
from nodes.catalogue import Catalogue, item_contract
from nodes.fake_traffic import examples, light_arrays, requests
from nodes.fakes import MemoryWeights
from nodes.features import KINDS, kind
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
    publisher.offer(light_arrays(app, seed, scale=0.2), position=1, step=1, trained_until_ms=1)
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
    frame = frame.with_columns(pl.col(name).fill_null(value).cast(schema[name]) for name, value in defaults.items())
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


#: Features that read the request and the candidate, by name: hashed by the meeting, or made of frames.
ACROSS = {
    "pair": [{"columns": ("user_id", "category"), "buckets": 500}],
    "three": [
        {"columns": ("category", "user_id"), "buckets": 500},
        {"columns": ("site", "item_id", "event_time_ms"), "buckets": 50},
        {"columns": ("format", "device"), "buckets": 20},
    ],
    "own rows": [{"columns": ("user_id", "category"), "dynamic": {"capacity": 300}}],
    "a column with a default": [{"columns": ("position", "category"), "buckets": 500}],
    "a number": [{"columns": ("user_id", "bid"), "buckets": 500}],
}


def across(name: str, light: dict[str, Any]) -> App:
    app = load_app("adsim", {"publish": {"dtype": "fp32"}, "model": {"light": light}})
    added = [Feature(name=f"pair_{at}", kind="cross", side="item", **said) for at, said in enumerate(ACROSS[name])]
    # Among the others, not behind them: the columns of the first layer must be told apart by name.
    features = (*app.features[:3], *added[:1], *app.features[3:], *added[1:])
    return dataclasses.replace(app, config=app.config.model_copy(update={"features": features}))


def weights_that_know(app: App, seed: int, light: pl.DataFrame) -> Weights:
    """Random weights; of ids that own their rows, every other one that is asked for owns one."""
    made = weights_of(app, seed)
    arrays = dict(made.arrays)
    for feature in app.layout.dynamic:
        keys = light[feature.name].unique().sort().to_numpy()[::2]
        start = app.layout.offsets[feature.name] + FIRST_ROW
        arrays[KEYS] = arrays[KEYS].copy()
        arrays[KEYS][start : start + feature.rows - FIRST_ROW] = 0
        arrays[KEYS][start : start + len(keys)] = keys
    return Weights(made.manifest, arrays)


@pytest.mark.parametrize("light", [{}, LIGHTS["fm alone"], LIGHTS["fm and deep"], LIGHTS["fm and linear"]])
@pytest.mark.parametrize("name", ACROSS)
@settings(max_examples=3, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_features_across_both_sides_agree_on_every_path(name: str, light: dict[str, Any], seed: int) -> None:
    app = across(name, light)
    messages, known = asked(app, seed, np.random.default_rng(seed))
    features = features_of(app, messages, known)
    weights = weights_that_know(app, seed % 7, features)
    whole = LightNet(app.layout, weights.arrays).logits(features)
    in_torch = PublishedLight(weights.arrays, app).logits(
        to_batch(examples(app, features.height).with_columns(features), app)
    )
    assert np.abs(whole - in_torch).max() <= 1e-5
    lines = [json.dumps(message).encode() for message in messages]
    scorer = LightScorer(app, weights, catalogue_of(app, known))
    for _ in range(2):  # anew, and remembered
        scored = scorer.score(lines, now_ms=0)
        assert not scored.asked.refused
        assert scored.asked.places is not None
        assert 0 < (scored.asked.places >= 0).sum() < scored.logit.size, "more than one path"
        assert np.abs(scored.logit - whole).max() <= 1e-5
    assert scored.logit.std() > 0.05, "the rows differ, so the comparison says something"


@pytest.mark.parametrize("fm", [False, True])
def test_items_by_id_meet_requests_without_a_frame(fm: bool, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: FBT001
    app = across("three", {"fm": fm})
    messages, known = asked(app, 5, np.random.default_rng(5))
    full = [message | {"candidates": list(known.values())} for message in messages]
    named = [message | {"candidates": [{"item_id": name} for name in known]} for message in messages]
    plain, scorer = (LightScorer(app, weights_of(app, 1), items) for items in (None, catalogue_of(app, known)))
    lines, short = ([json.dumps(message).encode() for message in some] for some in (full, named))
    first, by_id = plain.score(lines, now_ms=0).logit, scorer.score(short, now_ms=0).logit
    for reader in (plain.reader, scorer.reader):
        monkeypatch.setattr(reader.candidate_side, "known", lambda *_: pytest.fail("candidates were read again"))
        monkeypatch.setattr(reader.mixed, "_featurize", lambda *_: pytest.fail("features went through a frame"))
    np.testing.assert_array_equal(plain.score(lines, now_ms=0).logit, first)
    np.testing.assert_array_equal(scorer.score(short, now_ms=0).logit, by_id)
    np.testing.assert_allclose(by_id, first, atol=1e-5)


def test_numbers_that_are_equal_and_read_otherwise_are_told_apart() -> None:
    app = across("a number", {})
    messages, known = asked(app, 5, np.random.default_rng(5))
    candidates = [candidate | {"bid": bid} for candidate in known.values() for bid in (0.0, -0.0)]
    messages = [message | {"candidates": candidates} for message in messages]
    expected = LightNet(app.layout, weights_of(app, 1).arrays).logits(features_of(app, messages, {}))
    scorer = LightScorer(app, weights_of(app, 1))
    for _ in range(2):  # anew, and remembered
        found = scorer.score([json.dumps(message).encode() for message in messages], now_ms=0).logit
        assert np.abs(found - expected).max() <= 1e-5


def test_items_that_change_meet_requests_as_they_are_now() -> None:
    app = across("three", {"fm": True})
    messages, known = asked(app, 5, np.random.default_rng(5))
    named = [message | {"candidates": [{"item_id": name} for name in known]} for message in messages]
    lines = [json.dumps(message).encode() for message in named]
    catalogue = catalogue_of(app, known)
    scorer = LightScorer(app, weights_of(app, 1), catalogue)
    for seed in range(3):
        names = list(known)[seed::3]
        known = known | {name: known[name] | {"category": f"new-{seed}"} for name in names}
        changed = catalogue_of(app, {name: known[name] for name in names}).items
        catalogue = catalogue.changed(changed)
        scorer = LightScorer(app, weights_of(app, seed), catalogue, before=scorer)
        expected = LightNet(app.layout, weights_of(app, seed).arrays).logits(features_of(app, named, known))
        assert np.abs(scorer.score(lines, now_ms=0).logit - expected).max() <= 1e-5


def test_a_kind_across_both_sides_that_refuses_a_value_refuses_its_request_alone(adsim: App) -> None:
    @kind("bid_of_site")
    def bid_of_site(feature: Feature) -> pl.Expr:
        site, bid = feature.inputs
        return (pl.col(site).cast(pl.Float64, strict=True) * pl.col(bid).fill_null(0.0)).cast(pl.Float32)

    try:
        more = Feature(name="more", kind="bid_of_site", columns=("site", "bid"), side="item", output="dense")
        app = dataclasses.replace(adsim, config=adsim.config.model_copy(update={"features": (*adsim.features, more)}))
        messages, known = asked(app, 5, np.random.default_rng(5))
        sites = ["1", "two", "3.5", "4"]
        messages = [m | {"context": m["context"] | {"site": site}} for m, site in zip(messages, sites, strict=False)]
        scorer = LightScorer(app, weights_of(app, 1), catalogue_of(app, known))
        scored = scorer.score([json.dumps(message).encode() for message in messages], now_ms=0)
        problems = [response.error for response in scored.responses]
        assert [problem is None for problem in problems] == [True, False, True, True]
        assert problems[1] is not None
        assert problems[1].code == "bad_value"
        good = [message for message, site in zip(messages, sites, strict=True) if site != "two"]
        expected = LightNet(app.layout, weights_of(app, 1).arrays).logits(features_of(app, good, known))
        answered = scored.asked.request_of != 1
        assert np.abs(scored.logit[answered] - expected).max() <= 1e-5 * max(1.0, np.abs(expected).max())
    finally:
        KINDS.pop("bid_of_site")


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
