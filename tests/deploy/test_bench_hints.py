"""`rocket bench hints`: every loss and scheme by name, comparable weights, differences paired by seed."""

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

from contracts.app import laid_over, load_app
from contracts.errors import RocketError
from contracts.hint_names import usable
from contracts.schemes import SCHEMES
from deploy.bench_options import BenchOptions
from deploy.benches import hints
from deploy.benches.hints import compare, table
from deploy.benches.hints_study.chart import draw
from deploy.benches.hints_study.learn import balanced, shy
from deploy.benches.hints_study.methods import LIGHT, ROCKET, chosen, methods_of
from deploy.progress import TerminalProgress
from model.hints import HINTS
from model.metrics import auc
from model.tensors import to_batch
from model.trainer import Trainer
from tests.deploy.test_bench_quality import drawn_rows

SMALL = {"train": {"batch_rows": 32, "device": "cpu", "precision": "fp32"}}


@pytest.mark.parametrize("name", ["adsim", "kuairand"])
def test_every_loss_that_can_be_named_and_every_scheme_has_a_row_that_the_check_accepts(name: str) -> None:
    app = load_app(name)
    methods = methods_of(app, train_rows=1000)
    names = [method.name for method in methods]
    assert len(set(names)) == len(names)
    assert {*usable("hint")} <= {*names}
    left_out = {*usable("feature_hint")} - {*names}
    equal = {*app.config.model.light.layers} & {*app.config.model.booster.hidden}
    assert not left_out if equal else "rkd" not in left_out
    assert {f"scheme {scheme}" for scheme in SCHEMES if scheme != "rocket"} == {n for n in names if " " in n} - {LIGHT}
    for method in methods:
        taught = {"rocket": {"teacher": "DIR"}} if method.taught else {}
        load_app(name, laid_over(method.settings, taught))
    settings = {method.name: method.settings for method in methods}
    assert settings["gradient_attention"]["model"] == {"sharing": "shared"}
    assert settings["fsp"]["rocket"]["feature_layers"] == [[0, 1], [1, 2]]


def test_some_methods_are_made_beside_both_yardsticks_and_unknown_ones_refused() -> None:
    methods = methods_of(load_app("adsim"), train_rows=1000)
    assert [method.name for method in chosen(methods, ("rkd", "scheme one"))] == [LIGHT, ROCKET, "rkd", "scheme one"]
    assert chosen(methods, None) == methods
    with pytest.raises(RocketError, match="no method 'rkd_angel' on this app; did you mean 'rkd_angle'"):
        chosen(methods, ("rkd_angel",))


def test_a_log_alone_is_compared_where_no_impressions_are_simulated(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen = []
    monkeypatch.setattr(hints, "compare", lambda name, rows_of, seeds, *rest: seen.append((name, seeds)) or {})
    monkeypatch.setattr(hints, "kuairand_rows", lambda app, data, first_rows: None)
    hints.run(False, BenchOptions(data=tmp_path, impressions=0, seeds=2))
    hints.run(True, BenchOptions(impressions=500))
    assert seen == [("kuairand", [1, 2]), ("adsim", [1])]
    with pytest.raises(RocketError, match="--impressions 0: nothing to learn; give more, or 0 with --data DIR"):
        BenchOptions(impressions=0)
    assert BenchOptions(impressions=7).command("hints", quick=False) == "rocket bench hints --impressions 7"


@pytest.mark.parametrize("name", ["logit_mse", "bernoulli_kd"])
def test_a_weight_makes_the_hints_gradient_half_as_long_as_the_labels(name: str) -> None:
    app = load_app("adsim", laid_over(laid_over({"rocket": {"hint": name}}, shy("hint_weight")), SMALL))
    batch = to_batch(drawn_rows(app, 6 * 32).frame, app)
    trainer, lengths = Trainer(app, seed=2), []
    for start in range(0, 6 * 32, 32):
        part = batch.slice(start, start + 32)
        said = trainer.nets.learn(part, nullcontext())
        assert said.booster_B is not None
        hint = HINTS[name](said.light_B, said.booster_B.detach()).mean()
        label = torch.nn.functional.binary_cross_entropy_with_logits(said.light_B, part.label_B)
        own = [*trainer.nets.light.parameters()]
        found = [torch.autograd.grad(cost, own, retain_graph=True, allow_unused=True) for cost in (label, hint)]
        lengths.append([np.sqrt(sum(float(g.square().sum()) for g in each if g is not None)) for each in found])
        trainer.learn(part)
    of_label, of_hint = np.sqrt(np.mean(np.square(lengths[3:]), axis=0))
    assert balanced(app, batch, "hint_weight", seed=2) == pytest.approx(0.5 * of_label / of_hint, rel=1e-3)


def test_differences_are_paired_by_seed() -> None:
    rng = np.random.default_rng(1)
    found = {
        name: [{"auc": float(a), "logloss": float(b), "train_cpu_s": 2.0} for a, b in rng.random((3, 2))]
        for name in (LIGHT, ROCKET, "pkt")
    }
    rows = {row["method"]: row for row in table(found, dict.fromkeys(found, "hint"), {"pkt": 0.3})}
    for yardstick, letter in ((LIGHT, "d"), (ROCKET, "r")):
        apart = np.array([a["logloss"] - b["logloss"] for a, b in zip(found["pkt"], found[yardstick], strict=True)])
        assert rows["pkt"][f"{letter}_logloss"] == pytest.approx(apart.mean())
        assert rows["pkt"][f"{letter}_logloss_se"] == pytest.approx(apart.std(ddof=1) / np.sqrt(3))
    assert "d_auc" not in rows[LIGHT]
    assert "r_auc" not in rows[ROCKET]
    assert rows["pkt"]["weight"] == 0.3


def test_a_comparison_judges_the_test_rows_and_counts_the_teachers_cost() -> None:
    wanted = {LIGHT, ROCKET, "bernoulli_kl", "fsp", "adversarial", "gradient_attention", "scheme offline"}
    app = load_app("adsim")
    rows = drawn_rows(app, 1600)
    told = compare(
        "adsim", lambda _: rows, [1, 2], BenchOptions(device="cpu", variants=(*wanted,)), TerminalProgress(quiet=True)
    )
    by_name = {row["method"]: row for row in told["methods"]}
    assert {*by_name} == wanted
    assert [row["seeds"] for row in told["methods"]] == [2] * len(wanted)
    for name in wanted - {LIGHT, ROCKET, "scheme offline"}:
        assert by_name[name]["weight"] > 0
    cost = {(row["method"], row["seed"]): row["train_cpu_s"] for row in told["by_seed"]}
    assert cost["scheme offline", 1] > cost[ROCKET, 1]
    alone = Trainer(load_app("adsim", {"model": {"booster": {"kind": "none"}}, "train": {"device": "cpu"}}), seed=1)
    batch = to_batch(rows.frame, app)
    size = app.config.train.batch_rows
    for start in range(0, rows.cut // size * size, size):
        alone.learn(batch.slice(start, start + size))
    p = alone.predict(batch.slice(rows.cut, 1600), averaged=True).light
    first = next(row for row in told["by_seed"] if row["method"] == LIGHT)
    assert first["auc"] == pytest.approx(auc(rows.label, p))
    axes = draw(told["methods"], "all").axes[0]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert {*labels} == wanted - {LIGHT}
    legend = axes.get_legend()
    assert legend is not None
    assert {text.get_text() for text in legend.get_texts()} == {"yardstick", "hint", "feature hint", "scheme"}
