"""Nets and hints that cannot be, or that would do nothing, are refused when the app is checked, with the mend."""

from typing import Any

import pytest

from contracts.app import load_app
from contracts.errors import ContractError

_LAYERS: dict[str, Any] = {"light": {"hidden": [64, 32]}, "booster": {"kind": "mlp", "hidden": [256, 64]}}
#: what is wrong -> (model, rocket, parts of what is said)
_WRONG: dict[str, tuple[dict[str, Any], dict[str, Any], list[str]]] = {
    "a lambda below 0": ({}, {"hint_weight": -0.1}, ["rocket.hint_weight", "greater than or equal to 0"]),
    "a feature lambda below 0": ({}, {"feature_weight": -1}, ["rocket.feature_weight", "greater than or equal to 0"]),
    "an unknown hint": ({}, {"hint": "logit_mes"}, ["[rocket] hint", "did you mean 'logit_mse'"]),
    "an unknown feature hint": ({}, {"feature_hint": "cosin"}, ["feature_hint", "did you mean 'cosine'"]),
    "an unknown way to share": ({"share": "trunks"}, {}, ["model.share", "did you mean 'trunk'"]),
    "a ramp of no rows": ({}, {"schedule": "ramp"}, ["ramp_rows is 0", "say how many"]),
    "a warm-up of no rows": ({}, {"schedule": "warmup"}, ["warmup_rows is 0", "say how many"]),
    "no pair": (_LAYERS, {"feature_hint": "cosine"}, ["names no pair", "equal width: [[0, 1]]"]),
    "unequal widths": (
        _LAYERS, {"feature_hint": "euclidean", "feature_layers": [[0, 0]]},
        ["64 columns and the booster's 256", "equal width: [[0, 1]]"],
    ),
    "no two layers of one width": (
        {"light": {"hidden": [8]}}, {"feature_hint": "cosine", "feature_layers": [[0, 0]]}, ["make one as wide"],
    ),
    "a layer that is not there": (
        _LAYERS, {"feature_hint": "cosine", "feature_layers": [[2, 1]]}, ["[2, 1]", "light net's", "[64, 32]"],
    ),
    "a booster layer that is not there": (
        _LAYERS, {"feature_hint": "cosine", "feature_layers": [[0, 2]]}, ["[0, 2]", "booster net's", "[256, 64]"],
    ),
    "a negative layer": (_LAYERS, {"feature_layers": [[0, -1]]}, ["rocket.feature_layers", "greater than or equal"]),
    "layers of a light net without an MLP": (
        _LAYERS | {"light": {"deep": False, "fm": True}}, {"feature_hint": "cosine", "feature_layers": [[0, 0]]},
        ["light net's hidden layers are []"],
    ),
    "a trunk over separate tables": ({"share": "trunk", "sharing": "separate"}, {}, ['set sharing = "shared"']),
    "a trunk deeper than the light net": (
        {"sharing": "shared", "share": "trunk", "trunk_layers": 3}, {}, ["trunk_layers = 3", "2 hidden layers"],
    ),
    "a trunk that nobody reads": (
        {"sharing": "shared", "share": "trunk", "booster": {"kind": "autoint", "hidden": []}}, {},
        ["autoint without hidden layers does not read it"],
    ),
    "dice in what serves": ({"light": {"activation": "dice"}}, {}, ["[model.light]", "dice", 'norm = "layer"']),
    "a batch norm in what serves": ({"light": {"norm": "batch"}}, {}, ["[model.light]", "moments", 'norm = "layer"']),
    "mutual learning with a block": (
        {}, {"scheme": "mutual", "gradient_block": True}, ["scheme = \"mutual\"", "leave gradient_block out"],
    ),
    "mutual learning alone": ({"booster": {"kind": "none"}}, {"scheme": "mutual"}, ["needs a booster", "name one"]),
    "distillation without a teacher": ({}, {"scheme": "offline"}, ["no teacher", 'set teacher = "DIR"']),
    "rocket and KD without a teacher": ({}, {"scheme": "rocket_kd"}, ["no teacher", 'set teacher = "DIR"']),
    "a teacher that nobody asks": ({}, {"teacher": "run"}, ["leave teacher out", 'scheme = "offline"']),
    "exits of no layers": ({"light": {"hidden": []}}, {"scheme": "own_teacher"}, ["there are none", "[model.light]"]),
    "no layers to widen": ({"light": {"hidden": []}}, {"scheme": "net_aug"}, ["there are none", "[model.light]"]),
    "no layers for branches": ({"light": {"hidden": []}}, {"scheme": "one"}, ["there are none", "[model.light]"]),
    "layers of a booster that is not there": (
        _LAYERS, {"scheme": "one", "feature_hint": "cosine", "feature_layers": [[0, 1]]}, ['feature_hint = "none"'],
    ),
    "a flow through one layer": (
        _LAYERS, {"feature_hint": "fsp", "feature_layers": [[0, 0]]}, ["name two pairs or more", "or take fitnet"],
    ),
    "a flow that goes back": (
        _LAYERS, {"feature_hint": "fsp", "feature_layers": [[0, 1], [1, 0]]}, ["to a later one", "[[0, 0], [1, 2]]"],
    ),
    "gradients by embeddings of each net's own": (
        {"sharing": "separate"}, {"feature_hint": "gradient_attention"},
        ["do not compare", "set [model] sharing = \"shared\", or take feature_hint = 'fitnet'"],
    ),
    "gradients by embeddings that the light net does not move": (
        {"sharing": "shared"}, {"feature_hint": "gradient_attention", "light_updates_shared": False},
        ["light_updates_shared = true, or take feature_hint = 'fitnet'"],
    ),
    "gradients by layers": (
        {"sharing": "shared"}, {"feature_hint": "gradient_attention", "feature_layers": [[0, 0]]},
        ["no hidden layers; leave feature_layers out"],
    ),
    "gradients of a teacher that stands still": (
        {"sharing": "shared"}, {"feature_hint": "gradient_attention", "scheme": "offline", "teacher": "run"},
        ["stands still; take feature_hint = 'fitnet'"],
    ),
    "a trunk for a booster that is not there": (
        {"sharing": "shared", "share": "trunk"}, {"scheme": "net_aug"}, ['set [model] share = "embeddings"'],
    ),
    "an unknown scheme": ({}, {"scheme": "rockets"}, ["rocket.scheme", "did you mean 'rocket'"]),
    "embeddings that nobody reads": ({"light": {"deep": False, "fm": False}}, {}, ["without fm", "set fm = true"]),
}  # fmt: skip


@pytest.mark.parametrize("what", _WRONG)
def test_settings_that_cannot_be_are_refused_with_the_mend(what: str) -> None:
    model, rocket, parts = _WRONG[what]
    with pytest.raises(ContractError) as caught:
        load_app("adsim", {"model": model, "rocket": rocket})
    said = str(caught.value)
    assert "app.toml" in said
    assert "\n" not in said
    assert [part for part in parts if part not in said] == [], said


def test_an_app_whose_light_net_would_see_nothing_is_refused() -> None:
    features = [
        feature.model_dump(by_alias=True, exclude_unset=True) | {"only": "booster"}
        for feature in load_app("adsim").features
    ]
    with pytest.raises(ContractError, match="every feature is only for the booster; the light net needs at least one"):
        load_app("adsim", {"features": features})


@pytest.mark.parametrize(
    ("model", "rocket"),
    [
        (_LAYERS, {"feature_hint": "cosine", "feature_layers": [[0, 1]]}),
        (_LAYERS, {"feature_hint": "fsp", "feature_layers": [[0, 0], [1, 1]]}),
        (_LAYERS, {"feature_hint": "adversarial", "feature_layers": [[1, 0]]}),
        ({"sharing": "shared", "booster": {"kind": "my.nets:Net"}}, {"feature_hint": "gradient_attention"}),
        ({"booster": {"kind": "none"}, "share": "trunk"}, {"feature_hint": "cosine", "feature_layers": [[9, 9]]}),
        ({"booster": {"kind": "my.nets:Net"}}, {"feature_hint": "cosine", "feature_layers": [[1, 7]]}),
        ({"sharing": "shared", "share": "trunk", "light": {"fm": True, "norm": "layer", "activation": "prelu"}}, {}),
        ({"light": {"deep": False, "fm": True}}, {"schedule": "warmup", "warmup_rows": 9, "decay_rows": 5}),
    ],
    ids=str,
)
def test_settings_that_can_be_are_taken(model: dict[str, Any], rocket: dict[str, Any]) -> None:
    config = load_app("adsim", {"model": model, "rocket": rocket}).config
    assert config.rocket.feature_hint == rocket.get("feature_hint", "none")
