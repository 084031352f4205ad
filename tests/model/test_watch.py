"""Figures of the terms: they are what autograd says, they move nothing, and they are not forgotten by a restart."""

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from contracts.nets import Rocket
from model.rocket import RocketNets
from model.schedule import strength
from model.trainer import Trainer
from model.watch import Watch
from tests.random_examples import random_examples, small_app


def taught(tmp_path: Path, rows: int = 256, model: dict[str, Any] | None = None, **rocket: Any) -> Trainer:
    told = {"hint_weight": 1.0, "gate": False, "watch_every": 1} | rocket
    model = {"booster": {"kind": "mlp", "hidden": [8]}, "sharing": "shared"} | (model or {})
    trainer = Trainer(small_app(tmp_path / "app", {"model": model, "rocket": told, "train": {"precision": "fp32"}}))
    frame = random_examples(trainer.app, rows)
    for start in range(0, rows, 64):
        trainer.learn(frame[start : start + 64])
    return trainer


def test_looking_moves_nothing(tmp_path: Path) -> None:
    features = {"feature_hint": "cosine", "feature_layers": [[0, 0]]}
    seen, unseen = (taught(tmp_path, watch_every=every, **features) for every in (1, 0))
    one, other = seen.state(), unseen.state()
    assert all(one[name].numpy().tobytes() == other[name].numpy().tobytes() for name in one)
    assert len(seen.watch.history) == 4
    assert unseen.watch.newest == {}


def test_the_lengths_are_those_of_the_gradients_that_move_the_nets(tmp_path: Path) -> None:
    alone = taught(tmp_path, hint_weight=0.0).watch.newest
    assert alone["grad_light_light"] == pytest.approx(alone["grad_norm_light"], rel=1e-5)
    assert alone["grad_booster_booster"] == pytest.approx(alone["grad_norm_booster"], rel=1e-5)
    assert (alone["hint_share"], "grad_light_hint" in alone) == (0.0, False)
    told = taught(tmp_path).watch.newest
    label, hint = told["grad_light_light"], told["grad_light_hint"]
    assert abs(label - hint) <= told["grad_norm_light"] * (1 + 1e-5)
    assert told["grad_norm_light"] <= (label + hint) * (1 + 1e-5)
    assert told["hint_share"] == pytest.approx(hint / (label + hint))
    assert (told["grad_booster_hint"], told["grad_booster_light"]) == (0.0, 0.0)
    assert told["grad_rows_hint"] > 0
    assert taught(tmp_path, gradient_block=False).watch.newest["grad_booster_hint"] > 0


def test_the_booster_lead_and_the_terms_stand_beside(tmp_path: Path) -> None:
    trainer = taught(tmp_path, feature_hint="euclidean", feature_layers=[[0, 0]])
    newest, running = trainer.watch.newest, trainer.meta()["running_logloss"]
    assert newest["booster_lead"] == running["light"] - running["booster"]
    assert {"loss_light", "loss_booster", "hint", "hint_weight", "feature", "grad_light_feature"} <= newest.keys()
    assert newest["rows"] == 192


@pytest.mark.parametrize("sharing", ["shared", "separate"])
def test_rows_are_new_until_they_have_moved(tmp_path: Path, sharing: str) -> None:
    trainer = taught(tmp_path, 64, {"sharing": sharing})
    tables = list(trainer.nets.tables)
    assert [trainer.watch.newest[f"new_{name}"] for name in tables] == [1.0] * len(tables)
    trainer.learn(random_examples(trainer.app, 64))  # the same rows again
    assert [trainer.watch.newest[f"new_{name}"] for name in tables] == [0.0] * len(tables)
    assert all(trainer.watch.newest[f"rms_{name}"] > 0 for name in tables)


def test_a_light_net_alone_is_watched_too(tmp_path: Path) -> None:
    newest = taught(tmp_path, model={"booster": {"kind": "none"}}).watch.newest
    assert newest["grad_light_light"] > 0
    assert newest["hint_share"] == 0.0


def test_what_was_seen_survives_a_restart(tmp_path: Path) -> None:
    trainer = taught(tmp_path)
    other = Trainer(trainer.app)
    other.restore(trainer.state(), json.loads(json.dumps(trainer.meta())))
    assert other.watch.history == trainer.watch.history
    assert other.meta() == trainer.meta()


def test_the_history_stays_short_and_evenly_spread() -> None:
    watch, steps = Watch.__new__(Watch), []
    Watch.__init__(watch, nets=RocketNets.__new__(RocketNets), every=4)
    for step in range(20_000):
        if watch.due(step):
            steps.append(step)
            watch.keep({"rows": float(step)})
    assert len(watch.history) <= 128
    kept = [seen["rows"] for seen in watch.history]
    assert {b - a for a, b in pairwise(kept)} == {256.0}
    assert kept[0] == 0
    assert kept[-1] > 19_000


def test_the_schedules_are_what_they_say() -> None:
    rows = (0, 99, 100, 150, 200, 400, 450, 500, 10_000)
    warm = Rocket(schedule="warmup", warmup_rows=100)
    assert [strength(warm, n) for n in rows] == [0, 0, 1, 1, 1, 1, 1, 1, 1]
    ramp = Rocket(schedule="ramp", warmup_rows=100, ramp_rows=100)
    assert [strength(ramp, n) for n in rows] == [0, 0, 0, 0.5, 1, 1, 1, 1, 1]
    fading = Rocket(decay_after_rows=400, decay_rows=100)
    told = [strength(fading, n) for n in rows]
    assert told[:6] == [1.0] * 6
    assert told[6] == pytest.approx(0.5)
    assert told[7:] == [0.0, 0.0]
    quarter = strength(fading, 425)
    assert quarter == pytest.approx((1 + math.cos(math.pi / 4)) / 2)
    assert torch.isfinite(torch.tensor(quarter))


def test_what_stands_still_has_no_gradient_and_is_passed_over(tmp_path: Path) -> None:
    trainer = taught(tmp_path)
    assert trainer.watch.newest["grad_booster_booster"] > 0
    for parameter in trainer.nets.booster.parameters():
        parameter.requires_grad_(requires_grad=False)
    trainer.learn(random_examples(trainer.app, 64))
    assert trainer.watch.newest["grad_booster_booster"] == 0.0
    assert trainer.watch.newest["grad_light_light"] > 0
