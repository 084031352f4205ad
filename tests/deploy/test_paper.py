"""The paper's experiment: what each method's loss is made of, the tables, and a whole run in small."""

import math
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from deploy.bench_options import BenchOptions
from deploy.benches import paper, paper_grid
from deploy.benches.paper_grid import Cell, Outcome, Plan, digits_plan, outcomes, paper_plans
from deploy.benches.paper_methods import METHODS, loss_of
from deploy.benches.paper_tables import PAPER, depth_table, likeness, methods_table, time_table
from deploy.benches.paper_train import Lab, Recipe, Run, mean_and_deviation
from deploy.progress import TerminalProgress
from model.vision.wrn import Seen, WrnSize
from tests.deploy.test_paper_data import cifar10, svhn

RNG = np.random.default_rng(11)
LIGHT, BOOSTER, TEACHER = (RNG.normal(0, 2, (5, 4)) for _ in range(3))
MAPS = {who: [RNG.normal(0, 1, (5, c, 3, 3)) for c in (2, 4)] for who in ("light", "teacher")}
CLASSES = np.array([0, 3, 1, 1, 2])


def log_softmax(z: np.ndarray) -> np.ndarray:
    return z - np.log(np.exp(z).sum(1, keepdims=True))


def cross_entropy(z: np.ndarray) -> float:
    return float(-log_softmax(z)[np.arange(5), CLASSES].mean())


def logit_mse(guide: np.ndarray) -> float:
    return float(np.square(LIGHT - guide).sum(1).mean())


def old_kd(guide: np.ndarray) -> float:
    """16 KL at T = 4, the mean over rows and classes."""
    t, s = log_softmax(guide / 4), log_softmax(LIGHT / 4)
    return float(16 * (np.exp(t) * (t - s)).mean())


def softmax_mse(guide: np.ndarray) -> float:
    return float(np.square(np.exp(log_softmax(LIGHT)) - np.exp(log_softmax(guide))).sum(1).mean())


def attention() -> float:
    total = 0.0
    for light, teacher in zip(MAPS["light"], MAPS["teacher"], strict=True):
        q = [np.square(maps).sum(1).reshape(5, -1) for maps in (light, teacher)]
        q = [one / np.linalg.norm(one, axis=1, keepdims=True) for one in q]
        total += float(np.square(q[0] - q[1]).mean())
    return total


#: method -> its loss by the authors' formulas
LOSSES = {
    "base": cross_entropy(LIGHT),
    "AT": cross_entropy(LIGHT) + 1000 * (3 * 3) / (32 * 32) * attention(),
    "KD": 0.1 * cross_entropy(LIGHT) + 2 * 0.9 * old_kd(TEACHER),
    "rocket": cross_entropy(LIGHT) + cross_entropy(BOOSTER) + 0.03 * logit_mse(BOOSTER),
    "rocket+KD": cross_entropy(LIGHT) + cross_entropy(BOOSTER) + 0.03 * logit_mse(BOOSTER) + 1.8 * old_kd(TEACHER),
    "no gradient block": cross_entropy(LIGHT) + cross_entropy(BOOSTER) + 0.03 * logit_mse(BOOSTER),
    "no sharing": cross_entropy(LIGHT) + cross_entropy(BOOSTER) + 0.03 * logit_mse(BOOSTER),
    "no joint training": cross_entropy(LIGHT) + cross_entropy(TEACHER) + 0.03 * logit_mse(TEACHER),
    "softmax MSE": cross_entropy(LIGHT) + cross_entropy(BOOSTER) + softmax_mse(BOOSTER),
    "KD as the hint": cross_entropy(LIGHT) + cross_entropy(BOOSTER) + 1.8 * old_kd(BOOSTER),
}


def test_every_method_has_its_formula() -> None:
    assert LOSSES.keys() == METHODS.keys()


@pytest.mark.parametrize("name", METHODS)
def test_a_method_s_loss_is_its_formula_and_only_what_should_feels_it(name: str) -> None:
    method = METHODS[name]
    light, booster, teacher = (torch.tensor(z, requires_grad=True) for z in (LIGHT, BOOSTER, TEACHER))
    maps = {who: tuple(torch.tensor(one) for one in ones) for who, ones in MAPS.items()}
    loss = loss_of(
        method,
        Seen(light, maps["light"]),
        Seen(booster, ()) if method.joint else None,
        Seen(teacher.detach(), maps["teacher"]) if method.teacher else None,
        torch.tensor(CLASSES),
    )
    assert loss.item() == pytest.approx(LOSSES[name], rel=1e-6)
    loss.backward()
    own = (np.exp(log_softmax(BOOSTER)) - np.eye(4)[CLASSES]) / 5
    hint = 2 * 0.03 * (BOOSTER - LIGHT) / 5 if name == "no gradient block" else 0.0
    if method.joint:
        assert np.allclose(booster.grad, own + hint)
    else:
        assert booster.grad is None
    assert light.grad is not None


def made_run(light: float | None, booster: float | None, cpu_s: float) -> Run:
    return Run(light, booster, cpu_s, 2 * cpu_s, None, None)


def made_plan(cells: tuple[Cell, ...], seeds: int = 3) -> Plan:
    return Plan("digits", None, 30, None, WrnSize(16, 0.25, 1, 10), Recipe(), tuple(range(seeds)), cells)


def test_tables_hold_medians_paired_gains_and_the_paper_s_figures() -> None:
    cells = tuple(Cell("interval", 10, name) for name in ("rocket", "base", "KD"))
    errors = {"base": (8.0, 6.0, 7.0), "rocket": (7.0, 3.0, 5.0), "KD": (8.0, 6.5, 7.5)}
    booster = (5.0, 3.0, 4.0)
    found = [Outcome(seed, None, made_run(None, booster[seed], 10.0)) for seed in range(3)]
    found += [
        Outcome(seed, cell, made_run(errors[cell.method][seed], 4.5 if cell.method == "rocket" else None, 4.0 + seed))
        for cell in cells
        for seed in range(3)
    ]
    plan = made_plan(cells)
    rows = {row["method"]: row for row in methods_table(plan, found)}
    assert list(rows) == ["base", "KD", "rocket", "booster in rocket", "booster alone"]
    rocket = rows["rocket"]
    assert (rocket["error"], rocket["lowest"], rocket["highest"]) == (5.0, 3.0, 7.0)
    assert rocket["gain"] == pytest.approx(2.0)  # of 1, 3 and 2
    assert rocket["gain_se"] == pytest.approx(1 / math.sqrt(3))
    assert rocket["gap_closed"] == pytest.approx(2 / 3)
    assert (rocket["paper_error"], rocket["paper_gain"]) == (7.87, 0.9)
    assert rows["KD"]["gain"] == pytest.approx(-1 / 3)
    assert "gain" not in rows["base"]
    assert rows["booster alone"]["error"] == 4.0
    (depth,) = depth_table(plan, found)
    assert (depth["light_depth"], depth["base"], depth["rocket"], depth["rocket_gain"]) == (10, 7.0, 5.0, 2.0)
    taken = time_table(plan, found)
    assert taken["rocket_over_teacher_then_student_cpu_s"] == pytest.approx(5 / 15)
    assert taken["paper"] == pytest.approx(0.8457, abs=1e-4)


def test_channels_are_standardised_by_their_own_mean_and_deviation() -> None:
    images = RNG.integers(0, 256, (7, 3, 5, 4), np.uint8)
    mean, deviation = mean_and_deviation(images)
    assert np.allclose(mean, images.mean((0, 2, 3)))
    assert np.allclose(deviation, images.std((0, 2, 3)))


def test_maps_are_alike_whatever_their_scale_and_channel_order() -> None:
    maps = RNG.normal(0, 1, (3, 4, 5, 5))
    assert likeness(maps, -3 * maps[:, ::-1]) == 1.0
    assert abs(likeness(maps, RNG.normal(0, 1, (3, 4, 5, 5)))) < 0.5


def test_the_plans_cover_the_paper_s_tables(tmp_path) -> None:
    whole = digits_plan(quick=False, seeds=None)
    assert len(whole.seeds) >= 3
    for (_, _, structure), figures in PAPER.items():
        asked = {name for name in figures if not name.startswith("booster")}
        assert asked <= {cell.method for cell in whole.cells if cell.structure == structure}
    depths = {cell.depth for cell in whole.cells if cell.structure == "interval"}
    assert (min(depths), max(depths), whole.booster.depth) == (10, 40, 40)
    cifar10(tmp_path)
    svhn(tmp_path)
    plans = paper_plans(tmp_path, quick=False, seeds=None)
    assert [(plan.name, plan.booster.width) for plan in plans] == [("CIFAR-10", 1), ("CIFAR-10", 2), ("SVHN", 1)]
    assert plans[0].recipe == Recipe()
    assert (plans[2].recipe.optimiser, plans[2].recipe.dropout) == ("adam", 0.2)


@contextmanager
def _no_workers(_device: torch.device):
    yield None


@pytest.fixture
def in_this_process(monkeypatch) -> None:
    monkeypatch.setattr(paper_grid, "_workers", _no_workers)


@pytest.mark.usefixtures("in_this_process")
def test_a_run_in_small_fills_every_table_and_draws_every_picture(tmp_path, monkeypatch) -> None:
    cells = tuple(Cell("interval", 10, name) for name in ("base", "KD", "rocket"))
    cells += (Cell("interval", 16, "base"), Cell("bottom", 16, "base"))
    recipe = Recipe(epochs=1, batch=20, shift=1, mirror=False)
    plan = Plan("digits", None, 40, None, WrnSize(16, 0.125, 1, 10), recipe, (1,), cells)
    monkeypatch.setattr(paper, "digits_plan", lambda quick, seeds: plan)
    found = paper.run(True, BenchOptions(out=tmp_path, device="cpu"))["digits"]
    assert len(found["methods"]) == 7
    assert [row["light_depth"] for row in found["depths"]] == [10, 16]
    assert [row["group"] for row in found["likeness"]] == [1, 2, 3]
    assert found["time"]["rocket_over_teacher_then_student_cpu_s"] > 0
    assert all(0 <= row["error"] <= 100 for row in found["methods"])
    drawn = sorted(path.name for path in tmp_path.iterdir())
    assert drawn == ["paper-digits-depths.png", "paper-digits-maps.png", "paper-digits-methods.png"]


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize("make", [cifar10, svhn])
def test_files_of_the_paper_s_images_are_trained_on(tmp_path: Path, make) -> None:
    make(tmp_path)
    found = paper.run(True, BenchOptions(data=tmp_path, device="cpu"))
    (figures,) = found.values()
    assert {row["method"] for row in figures["methods"]} >= {"base", "rocket", "booster alone"}


def test_one_seed_trains_the_same_nets_twice() -> None:
    plan = made_plan(())
    runs = [
        Lab(plan.images(1), Recipe(1, batch=10, shift=1, dropout=0.3), plan.booster, torch.device("cpu")).train_light(
            METHODS["rocket"], 10, "interval", 1, None
        )
        for _ in range(2)
    ]
    assert all(np.array_equal(runs[0].light[name], runs[1].light[name]) for name in runs[0].light)
    assert runs[0].booster_error == runs[1].booster_error


@pytest.mark.slow
def test_workers_train_what_one_process_trains() -> None:
    plan = made_plan((Cell("interval", 10, "base"),), seeds=2)
    plan = Plan(*[getattr(plan, name) if name != "recipe" else Recipe(1, batch=10, shift=1) for name in plan.__slots__])
    apart = outcomes(plan, torch.device("cpu"), TerminalProgress(quiet=True))
    lab = Lab(plan.images(1), plan.recipe, plan.booster, torch.device("cpu"))
    assert [one.seed for one in apart] == [0, 0, 1, 1]
    here = lab.train_light(METHODS["base"], 10, "interval", 1, None)
    there = next(one.run for one in apart if one.seed == 1 and one.cell is not None)
    assert here.light is not None
    assert there.light is not None
    assert all(np.allclose(here.light[name], there.light[name], atol=1e-4) for name in here.light)
