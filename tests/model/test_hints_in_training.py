"""Every hint that a click can use, by name in an app: it teaches the light net alone, and resumes bit for bit."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from torch import Tensor

from contracts.app import load_app
from contracts.errors import ContractError
from contracts.hint_names import HINT_NAMES, usable
from contracts.nets import Rocket
from model.hints import feature_hints_of
from model.hints.shelf import METHODS
from model.trainer import Trainer
from tests.random_examples import random_examples, small_app_folder

NAMED = [("hint", name) for name in usable("hint")] + [("feature_hint", name) for name in usable("feature_hint")]
#: Least elsewhere than where the nets agree; and those that come to nearly nothing here without a hint.
ELSEWHERE = {"weighted_bernoulli", "bounded_click", "pkt", "correlation_congruence"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_app_folder(tmp_path_factory.mktemp("app") / "small", max_buckets=64)


def taught(folder: Path, setting: str, name: str, *, weight: float = 2.0, booster: int = 0, **more: Any) -> Trainer:
    """A trainer with that hint: gate open, each net its own rows; layers of 8 and 16 columns, or of 8 and 8."""
    equal = HINT_NAMES[name].takes == "equal" and not HINT_NAMES[name].learns
    rocket = {setting: name, "gate": False, "factor_rows": 96, "relation_rows": 24, "watch_every": 0} | more
    lambdas = {"hint": ("hint_weight", "feature_weight"), "feature_hint": ("feature_weight", "hint_weight")}[setting]
    rocket |= {lambdas[0]: weight, lambdas[1]: 0.0, "feature_layers": [[0, 0]]}
    model = {
        "sharing": "separate",
        "light": {"hidden": [8]},
        "booster": {"kind": "mlp", "hidden": [booster or (8 if equal else 16)]},
    }
    told = {"model": model, "rocket": rocket, "train": {"precision": "fp32", "device": "cpu", "linear": False}}
    return Trainer(load_app(folder, told))


def learn(trainer: Trainer, frame: pl.DataFrame) -> dict[str, Tensor]:
    for start in range(0, frame.height, 64):
        trainer.learn(frame[start : start + 64])
    return trainer.state()


@pytest.mark.parametrize(("setting", "name"), NAMED)
def test_a_named_hint_moves_the_light_net_never_the_booster_and_resumes_bit_for_bit(
    folder: Path, setting: str, name: str
) -> None:
    trainer = taught(folder, setting, name)
    frame = random_examples(trainer.app, 256)
    whole = learn(trainer, frame)
    without = learn(taught(folder, setting, name, weight=0.0), frame)
    coach = {key for key in whole if ".coach." in key}
    assert bool(coach) == bool(HINT_NAMES[name].learns)
    theirs = {key for key in whole if key.startswith(("model.booster.", "model.table.booster."))}
    assert all(torch.equal(whole[key], without[key]) for key in theirs)
    assert not torch.equal(whole["model.light.mlp.0.weight"], without["model.light.mlp.0.weight"])

    first = taught(folder, setting, name)
    state, meta = learn(first, frame[:64]), first.meta()
    again = taught(folder, setting, name)
    again.restore(state, meta)
    resumed = learn(again, frame[64:])
    assert whole.keys() == resumed.keys()
    assert [key for key in whole if not torch.equal(whole[key], resumed[key])] == []


@pytest.mark.slow
@pytest.mark.parametrize(("setting", "name"), [pair for pair in NAMED if pair[1] not in ELSEWHERE])
def test_a_named_hint_draws_the_nets_together(folder: Path, setting: str, name: str) -> None:
    """Its cost, on rows that both trainers see, is less where it was learnt."""
    figure = {"hint": "hint", "feature_hint": "feature"}[setting]
    costs = []
    for weight in (0.0, 5.0):
        trainer = taught(folder, setting, name, weight=weight, factor_rows=0)
        frame = random_examples(trainer.app, 3072)
        seen = [trainer.learn(frame[start : start + 64]).terms[figure] for start in range(0, 3072, 64)]
        costs.append(sum(seen[-16:]))
    assert costs[1] < 0.97 * costs[0]


def test_hints_between_rows_take_so_many_evenly_spread() -> None:
    draw = torch.Generator().manual_seed(1)
    light, booster = torch.randn(10, 3, generator=draw), torch.randn(10, 5, generator=draw)
    for name, row in usable("feature_hint").items():
        if not row.pairs:
            continue
        other = booster[:, :3] if row.takes == "equal" else booster
        hints = feature_hints_of(Rocket(feature_hint=name, feature_layers=((0, 0),), relation_rows=4), None)
        assert hints is not None
        some = [0, 2, 5, 7]
        assert torch.equal(hints[0](light, other), METHODS[name].cost((light[some],), (other[some],)))


def test_settings_of_a_hint_reach_it(folder: Path) -> None:
    costs = {}
    for setting, name, more in (
        ("hint", "bernoulli_kd", {"hint_temperature": 2.0}),
        ("hint", "bounded_click", {"hint_margin": 5.0}),
        ("feature_hint", "activation_boundaries", {"hint_margin": 2.0}),
    ):
        for given in ({}, more):
            trainer = taught(folder, setting, name, **given)
            terms = trainer.learn(random_examples(trainer.app, 64)).terms
            costs[name, bool(given)] = terms["hint" if setting == "hint" else "feature"]
        assert costs[name, True] != costs[name, False]


def test_a_hint_that_learns_is_not_begun_in_the_middle_by_mistake_but_with_a_new_booster(folder: Path) -> None:
    plain = taught(folder, "feature_hint", "rkd")
    frame = random_examples(plain.app, 128)
    state = learn(plain, frame)
    with pytest.raises(ContractError, match=r"coach.*restore \[model\], \[train\] and \[rocket\] as they were"):
        taught(folder, "feature_hint", "fitnet").restore(state, plain.meta())
    other = taught(folder, "feature_hint", "fitnet")
    held, meta = learn(other, frame), other.meta()
    swapped = taught(folder, "feature_hint", "fitnet", booster=12)
    fresh = swapped.state()
    swapped.restore(held, meta, new_booster=True)
    coach = "model.coach.hints.0.regress.weight_ED"
    assert torch.equal(swapped.state()[coach], fresh[coach])
    assert torch.equal(swapped.state()["model.light.bias"], held["model.light.bias"])


def test_refusals_name_the_line_and_an_alternative(folder: Path) -> None:
    def refused(**rocket: Any) -> str:
        with pytest.raises(ContractError) as error:
            load_app(folder, {"model": {"light": {"hidden": [8]}, "booster": {"hidden": [16]}}, "rocket": rocket})
        return str(error.value)

    assert "app.toml, " in refused(hint="dkd")
    assert refused(hint="dkd").endswith("take hint = 'bernoulli_kd' instead")
    assert refused(feature_hint="attention_transfer").endswith("take feature_hint = 'nst_polynomial' instead")
    assert "or take fitnet, which maps one to the other" in refused(feature_hint="cosine", feature_layers=[[0, 0]])
    own = {"booster": {"kind": "tests.model.test_feature_hints:Narrow"}}
    with pytest.raises(ContractError, match="take one that needs no map, such as 'rkd_distance'"):
        load_app(folder, {"model": own, "rocket": {"feature_hint": "fitnet", "feature_layers": [[0, 0]]}})
