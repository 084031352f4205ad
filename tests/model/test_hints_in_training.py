"""Every hint that a click can use, by name in an app: it teaches the light net alone, and resumes bit for bit."""

from contextlib import nullcontext
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

from contracts.app import load_app
from contracts.errors import ContractError
from contracts.hint_names import hint_names, usable
from contracts.nets import Rocket
from model.booster_net import judge_booster
from model.boosters import BOOSTERS
from model.following import Following
from model.hints import HINTS, feature_hints_of
from model.hints.shelf import METHODS
from model.losses import Terms, rocket_loss
from model.rocket import Judged
from model.tensors import Batch, to_batch
from model.trainer import Trainer
from tests.random_examples import random_examples, small_app_folder

NAMED = [("hint", name) for name in usable("hint")] + [("feature_hint", name) for name in usable("feature_hint")]
#: Least elsewhere than where the nets agree; those that come to nearly nothing here without a hint; and one that is
#: loudest while both nets say nearly the same of all rows, so without a gate before there is anything to follow.
ELSEWHERE = {"weighted_bernoulli", "bounded_click", "pkt", "correlation_congruence", "adversarial", "dist_intra"}
#: That need tables which both nets read, so that the hint reaches rows of the booster's.
SHARED = {name for name, row in hint_names().items() if row.takes == "gradients"}
#: That show early: later the labels alone make the nets' relations alike; and a hint between gradients is no target
#: that stays, since louder than the labels it makes these gradients grow.
EARLY = {"rkd_distance", "rkd_angle", "rkd", "similarity_preserving", *SHARED}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_app_folder(tmp_path_factory.mktemp("app") / "small", max_buckets=64)


def taught(
    folder: Path,
    setting: str,
    name: str,
    *,
    weight: float = 2.0,
    booster: int = 0,
    model: dict[str, Any] | None = None,
    **more: Any,
) -> Trainer:
    """A trainer with that hint: gate open, each net its own rows; layers of 8 and 16 columns, or of 8 and 8."""
    row = hint_names()[name]
    equal = row.takes == "equal" and not row.learns
    rocket = {setting: name, "gate": False, "factor_rows": 96, "relation_rows": 24, "watch_every": 0} | more
    lambdas = {"hint": ("hint_weight", "feature_weight"), "feature_hint": ("feature_weight", "hint_weight")}[setting]
    rocket |= {lambdas[0]: weight, lambdas[1]: 0.0}
    rocket |= {} if name in SHARED else {"feature_layers": [[layer, layer] for layer in range(row.span)]}
    wide = booster or (8 if equal else 16)
    nets = {
        "sharing": "shared" if name in SHARED else "separate",
        "light": {"hidden": [8, 6][: row.span]},
        "booster": {"kind": "mlp", "hidden": [wide, 6][: row.span]},
    }
    told = {
        "model": nets | (model or {}),
        "rocket": rocket,
        "train": {"precision": "fp32", "device": "cpu", "linear": False},
    }
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
    assert bool(coach) == bool(hint_names()[name].learns)
    theirs = {key for key in whole if key.startswith(("model.booster.", "model.table.booster."))}
    assert name in SHARED or all(torch.equal(whole[key], without[key]) for key in theirs)
    assert not torch.equal(whole["model.light.mlp.0.weight"], without["model.light.mlp.0.weight"])

    torch.rand(3)  # nothing hangs on where the global generator stands
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
        costs.append(sum(seen[:16] if name in EARLY else seen[-16:]))
    assert costs[1] < 0.97 * costs[0]


@pytest.mark.slow
def test_rows_are_put_in_the_boosters_order_once_it_has_one(folder: Path) -> None:
    costs = []
    for weight in (0.0, 0.5):
        trainer = taught(folder, "hint", "dist_intra", weight=weight, schedule="warmup", warmup_rows=3072)
        frame = random_examples(trainer.app, 6144)
        seen = [trainer.learn(frame[start : start + 64]).terms["hint"] for start in range(0, 6144, 64)]
        costs.append(sum(seen[-16:]))
    assert costs[1] < 0.9 * costs[0]


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
    assert refused(feature_hint="pairwise").endswith("take feature_hint = 'similarity_preserving' instead")
    assert refused(feature_hint="attention_transfer").endswith("take feature_hint = 'nst_polynomial' instead")
    assert "or take fitnet, which maps one to the other" in refused(feature_hint="cosine", feature_layers=[[0, 0]])
    own = {"booster": {"kind": "tests.model.test_feature_hints:Narrow"}}
    with pytest.raises(ContractError, match="take one that needs no map, such as 'rkd_distance'"):
        load_app(folder, {"model": own, "rocket": {"feature_hint": "fitnet", "feature_layers": [[0, 0]]}})


def judged(trainer: Trainer, frame: pl.DataFrame) -> tuple[Judged, Terms, Batch]:
    """A minibatch with gradients, and its loss by the trainer's own hint."""
    batch = to_batch(frame, trainer.app)
    following = Following(trainer.app, trainer.nets)
    said = trainer.nets.learn(batch, nullcontext(), hidden=following.asks_hidden)
    terms = rocket_loss(
        said.light_B, said.booster_B, *batch[3:6], hint=HINTS["logit_mse"], hint_weight=0.0,
        gradient_block=trainer.app.config.rocket.gradient_block, features=following.features(batch, said, 1.0),
    )  # fmt: skip
    return said, terms, batch


@pytest.mark.parametrize("share", ["embeddings", "trunk"])
def test_gradient_attention_compares_how_each_loss_moves_with_each_row_s_embeddings(folder: Path, share: str) -> None:
    """Beside central differences of both label losses; and the booster's tower feels nothing."""
    trainer = taught(folder, "feature_hint", "gradient_attention", model={"share": share})
    frame = random_examples(trainer.app, 256)
    learn(trainer, frame)
    said, terms, batch = judged(trainer, frame[:5])
    net, booster = trainer.nets.light, trainer.nets.booster
    assert booster is not None
    leaf, trunk = said.read[1].detach(), trainer.app.config.model.share == "trunk"
    lights, width, fields = len(trainer.app.layout.light_ids), said.read[1].shape[1], batch.ids_BF.shape[1]
    dense_BN = batch.dense_BN[:, : len(trainer.app.layout.light_dense)]
    wide_BF = said.touched[0][1].leaves[1].detach()[: 5 * fields].view(5, fields)[:, :lights]

    def losses(rows: Tensor) -> tuple[Tensor, Tensor]:
        own = rows[: 5 * fields].view(5, fields, width)[:, :lights].reshape(5, -1)
        below = net.lowest(own, dense_BN) if trunk else None
        with torch.no_grad():
            logits = net(own, wide_BF, dense_BN, trunk_BH=below), judge_booster(booster, batch, rows, below)
        one, other = (torch.nn.functional.binary_cross_entropy_with_logits(z, batch.label_B, reduction="none")
                      for z in logits)  # fmt: skip
        return one, other

    apart = torch.zeros(5, lights * width)
    for row, at in product(range(5), range(lights * width)):
        step = torch.zeros_like(leaf)
        step[row * fields + at // width, at % width] = 1e-2
        (up, up_booster), (down, down_booster) = losses(leaf + step), losses(leaf - step)
        apart[row, at] = ((up - down) - (up_booster - down_booster))[row] / 2e-2
    assert terms.feature is not None
    assert terms.feature.item() == pytest.approx(apart.norm(dim=1).mean().item(), rel=1e-2)
    asked = [*net.parameters(), *booster.parameters(), said.read[1]]
    found = torch.autograd.grad(terms.parts["feature"], asked, allow_unused=True)
    felt = [gradient is not None and bool(gradient.any()) for gradient in found]
    assert not any(felt[len([*net.parameters()]) : -1])
    assert felt[-1]
    assert felt[0]


def test_without_the_block_gradient_attention_moves_the_booster_too(folder: Path) -> None:
    trainer = taught(folder, "feature_hint", "gradient_attention", gradient_block=False)
    _, terms, _ = judged(trainer, random_examples(trainer.app, 64))
    assert trainer.nets.booster is not None
    found = torch.autograd.grad(terms.parts["feature"], [*trainer.nets.booster.parameters()], allow_unused=True)
    assert any(gradient is not None and bool(gradient.any()) for gradient in found)


@pytest.mark.parametrize("labels", ["wait", "fake_negative", "es_dfm", "dfm"])
@pytest.mark.parametrize("kind", BOOSTERS)
def test_every_booster_can_be_followed_in_how_its_loss_moves(folder: Path, kind: str, labels: str) -> None:
    """Twice differentiable, the booster too where there is no block; whatever the light net bends with."""
    light = {"hidden": [8], "fm": True, "norm": "layer", "activation": "gelu" if labels == "wait" else "prelu"}
    model = {"sharing": "shared", "light": light, "booster": {"kind": kind, "hidden": [8], "pooling": "attention"}}
    rocket = {"feature_hint": "gradient_attention", "gradient_block": False, "gate": False, "feature_weight": 3.0}
    told = {"model": model, "rocket": rocket, "labels": {"mode": labels}, "train": {"device": "cpu"}}
    trainer = Trainer(load_app(folder, told))
    frame = random_examples(trainer.app, 192)
    costs = [trainer.learn(frame[start : start + 64]) for start in range(0, 192, 64)]
    assert not any(cost.skipped for cost in costs)
    assert all(cost.terms["feature"] > 0 for cost in costs)


def test_flow_is_of_two_layers_of_each_net_one_after_the_other(folder: Path) -> None:
    """Outer products by hand; three pairs are two flows."""
    model = {"light": {"hidden": [8, 6, 4]}, "booster": {"kind": "mlp", "hidden": [8, 6, 4]}, "sharing": "separate"}
    told = {"feature_hint": "fsp", "feature_layers": [[0, 0], [1, 1], [2, 2]], "gate": False}
    trainer = Trainer(load_app(folder, {"model": model, "rocket": told, "train": {"precision": "fp32"}}))
    assert "coach" not in trainer.nets.nets  # equal widths: nothing is learnt on the way
    said, terms, _ = judged(trainer, random_examples(trainer.app, 32))
    wanted = 0.0
    for at in (0, 1):
        (a, b), (c, d) = ([x.detach().double().numpy() for x in each[at : at + 2]]
                          for each in (said.light_layers, said.booster_layers))  # fmt: skip
        wanted += np.mean([((np.outer(a[i], b[i]) - np.outer(c[i], d[i])) ** 2).sum() for i in range(32)]) / 2
    assert terms.feature is not None
    assert terms.feature.item() == pytest.approx(wanted, rel=1e-4)
    assert trainer.learn(random_examples(trainer.app, 64)).terms["feature"] > 0
