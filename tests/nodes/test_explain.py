"""Contributions add up to the logit, and are Shapley values by their definition."""

import json
from itertools import permutations
from typing import Any

import numpy as np
import pytest

from contracts.app import App, load_app
from nodes.explain import Explained, explain
from nodes.fake_traffic import light_arrays
from nodes.light_numpy import LightNet

LIGHTS: dict[str, dict[str, Any]] = {
    "wide and deep": {},
    "fm and deep": {"fm": True, "norm": "layer", "activation": "gelu"},
    "fm alone": {"fm": True, "deep": False},
    "deep alone": {"wide": False},
}


def app_of(light: dict[str, Any], ids: int = 3, dense: int = 1) -> App:
    features = [{"name": f"f{i}", "kind": "id", "column": "user_id", "side": "user", "buckets": 9} for i in range(ids)]
    features += [{"name": f"d{i}", "kind": "dense", "column": "bid", "side": "item"} for i in range(dense)]
    model = {"embedding_dim": 4, "light": {"hidden": [8, 6]} | light, "booster": {"kind": "none"}}
    return load_app("adsim", {"features": features, "model": model})


def rows_of(app: App, seed: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    draw, layout = np.random.default_rng(seed), app.layout
    row: dict[str, np.ndarray] = {f.name: draw.integers(1, 9, 1).astype(np.uint32) for f in layout.light_ids}
    row |= {f.name: draw.normal(0, 1, 1).astype(np.float32) for f in layout.light_dense}
    missing: dict[str, np.ndarray] = {f.name: np.zeros(1, np.uint32) for f in layout.light_ids}
    missing |= {f.name: np.full(1, 0.25, np.float32) for f in layout.light_dense}
    return row, missing


def explained(app: App, seed: int = 1) -> tuple[Explained, LightNet, Any]:
    arrays = light_arrays(app, seed, scale=0.5)
    row, missing = rows_of(app, seed)
    return explain(app.layout, arrays, row, missing), LightNet(app.layout, arrays), (row, missing)


@pytest.mark.parametrize("light", LIGHTS)
def test_contributions_are_the_shapley_values_of_the_logit_over_all_orders(light: str) -> None:
    app = app_of(LIGHTS[light])
    told, net, (row, missing) = explained(app)
    names = list(row)
    by_hand = dict.fromkeys(names, 0.0)
    orders = list(permutations(names))
    for order in orders:
        now, before = dict(missing), float(net.logits(missing)[0])
        for name in order:
            now[name] = row[name]
            after = float(net.logits(now)[0])
            by_hand[name] += (after - before) / len(orders)
            before = after
    found = {one.feature: one.total for one in told.contributions}
    assert found == pytest.approx(by_hand, abs=1e-5)
    assert told.logit == pytest.approx(float(net.logits(row)[0]), abs=1e-6)
    assert told.reference == pytest.approx(float(net.logits(missing)[0]), abs=1e-6)


@pytest.mark.parametrize(("ids", "dense"), [(3, 1), (11, 2), (0, 2), (2, 0)])
@pytest.mark.parametrize("light", LIGHTS)
def test_they_add_up_however_many_features_there_are(light: str, ids: int, dense: int) -> None:
    told, _, _ = explained(app_of(LIGHTS[light], ids, dense), seed=4)
    assert len(told.contributions) == ids + dense
    assert told.reference + sum(one.total for one in told.contributions) == pytest.approx(told.logit, abs=1e-5)
    sizes = [abs(one.total) for one in told.contributions]
    assert sizes == sorted(sizes, reverse=True)


def test_drawn_orders_come_near_the_exact_values_and_are_the_same_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    app = app_of(LIGHTS["fm and deep"], 6, 1)
    exact = {one.feature: one for one in explained(app)[0].contributions}
    monkeypatch.setattr("nodes.explain._EXACT", 3)
    drawn, again = (explained(app)[0].contributions for _ in range(2))
    assert drawn == again
    spread = max(abs(one.mlp) for one in exact.values())
    assert all(abs(one.mlp - exact[one.feature].mlp) < 0.15 * spread for one in drawn)
    assert all((one.wide, one.pairs) == (exact[one.feature].wide, exact[one.feature].pairs) for one in drawn)


def test_a_feature_that_says_nothing_adds_nothing() -> None:
    app = app_of(LIGHTS["fm and deep"])
    arrays = light_arrays(app, 2, scale=0.5)
    row, missing = rows_of(app, 2)
    told = explain(app.layout, arrays, row | {"f1": missing["f1"]}, missing)
    (silent,) = [one for one in told.contributions if one.feature == "f1"]
    assert silent.total == pytest.approx(0.0, abs=1e-9)
    assert json.dumps(silent._asdict())
