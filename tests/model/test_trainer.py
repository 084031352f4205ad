"""Co-training: what it predicts, when the hint speaks, what a restored trainer does."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor, nn

from contracts.app import App
from contracts.errors import ContractError, CorruptError
from contracts.nets import Booster
from model.boosters import BoosterInput, Sizes
from model.tensors import to_batch
from model.trainer import Trainer
from tests.random_examples import random_examples, small_app


class DropoutNet(nn.Module):
    """A booster that draws random numbers and keeps running statistics."""

    def __init__(self, sizes: Sizes, settings: Booster) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(sizes.flat)
        self.drop = nn.Dropout(0.5)
        self.last = nn.Linear(sizes.flat, 1)

    def forward(self, seen: BoosterInput) -> Tensor:
        return self.last(self.drop(self.norm(seen.flat()))).squeeze(1)


OWN = f"{__name__}:DropoutNet"


def learn(trainer: Trainer, frame: pl.DataFrame, rows: int = 64) -> Trainer:
    for start in range(0, frame.height, rows):
        trainer.learn(frame[start : start + rows])
    return trainer


def same_bits(one: Trainer, other: Trainer) -> bool:
    a, b = one.state(), other.state()
    return a.keys() == b.keys() and all(a[k].numpy().tobytes() == b[k].numpy().tobytes() for k in a)


@pytest.mark.parametrize(
    "model",
    [
        {"sharing": "shared", "share": "trunk", "light": {"hidden": [8, 8], "norm": "layer", "activation": "prelu"}},
        {"sharing": "separate", "light": {"hidden": [8, 8], "fm": True, "activation": "gelu"}},
    ],
    ids=str,
)
@pytest.mark.parametrize("updates", [True, False])
def test_every_form_of_sharing_and_hint_goes_on_bit_for_bit(
    tmp_path: Path, model: dict[str, object], *, updates: bool
) -> None:
    told = {
        "feature_hint": "cosine", "feature_layers": [[1, 0], [0, 0]], "light_updates_shared": updates, "watch_every": 2,
        "schedule": "ramp", "warmup_rows": 64, "ramp_rows": 300, "decay_after_rows": 300, "decay_rows": 500,
        "gate": False,
    }  # fmt: skip
    app = small_app(tmp_path / "app", {"model": model | {"booster": {"kind": "mlp", "hidden": [8]}}, "rocket": told})
    frame = random_examples(app, 640)
    straight, first, second = learn(Trainer(app), frame), learn(Trainer(app), frame[:256]), Trainer(app, seed=77)
    second.restore(first.state(), json.loads(json.dumps(first.meta())))
    learn(second, frame[256:])
    assert same_bits(straight, second)
    assert straight.meta() == second.meta()


def test_two_trainers_of_one_seed_are_equal_and_of_two_are_not(tmp_path: Path) -> None:
    app = small_app(tmp_path / "app")
    frame = random_examples(app, 320)
    torch.manual_seed(5)  # no trainer listens to the global generator
    one = learn(Trainer(app, seed=3), frame)
    torch.manual_seed(6)
    assert same_bits(one, learn(Trainer(app, seed=3), frame))
    assert not same_bits(one, learn(Trainer(app, seed=4), frame))


def test_a_segment_cut_into_minibatches_learns_as_frames_do(tmp_path: Path) -> None:
    app = small_app(tmp_path / "app")
    frame = random_examples(app, 320)
    whole, cut = to_batch(frame, app), Trainer(app)
    for start in range(0, 320, 64):
        cut.learn(whole.slice(start, start + 64))
    assert same_bits(cut, learn(Trainer(app), frame))


def test_predictions_are_made_before_learning(tmp_path: Path) -> None:
    app = small_app(tmp_path / "app", {"train": {"precision": "fp32"}})
    frame = random_examples(app, 64)
    trainer = learn(Trainer(app), random_examples(app, 256, seed=1))
    before = trainer.predict(frame)
    progressive = trainer.learn(frame)
    np.testing.assert_allclose(progressive.light, before.light, atol=1e-6)
    np.testing.assert_allclose(progressive.booster, before.booster, atol=1e-6)
    assert np.abs(trainer.predict(frame).light - before.light).max() > 1e-3


def test_predicting_changes_nothing_and_draws_nothing(tmp_path: Path) -> None:
    app = small_app(tmp_path / "app", {"model": {"booster": {"kind": OWN}}})
    trainer, frame = learn(Trainer(app), random_examples(app, 128)), random_examples(app, 100, seed=2)
    state = trainer.state()
    first, second = trainer.predict(frame), trainer.predict(frame)
    assert np.array_equal(first.booster, second.booster)
    assert all(torch.equal(state[k], v) for k, v in trainer.state().items())
    assert trainer.predict(frame[:0]).light.shape == (0,)


def test_both_nets_learn_what_can_be_learnt(tmp_path: Path) -> None:
    app = small_app(tmp_path / "app")
    trainer = learn(Trainer(app), random_examples(app, 19_200))
    fresh = random_examples(app, 1000)
    label = fresh["label"].to_numpy()
    told = trainer.predict(fresh)
    rate = label.mean()
    guess = -(rate * np.log(rate) + (1 - rate) * np.log(1 - rate))
    for p in (told.light, told.booster):
        assert -np.where(label == 1, np.log(p), np.log(1 - p)).mean() < 0.93 * guess


def test_the_light_net_does_not_depend_on_a_booster_that_gives_no_hint(tmp_path: Path) -> None:
    app = small_app(tmp_path / "app", {"model": {"sharing": "separate"}, "rocket": {"hint_weight": 0.0}})
    alone = small_app(tmp_path / "app", {"model": {"booster": {"kind": "none"}}})
    frame = random_examples(app, 320)
    a, b = learn(Trainer(app), frame).predict(frame), learn(Trainer(alone), frame).predict(frame)
    np.testing.assert_allclose(a.light, b.light, rtol=1e-5)
    assert b.booster is None


def test_the_hint_speaks_only_while_the_booster_leads(tmp_path: Path) -> None:
    app = small_app(tmp_path / "app", {"rocket": {"gate_halflife_rows": 64, "hint_weight": 1.0}})
    trainer, frame = Trainer(app), random_examples(app, 1280)
    light = booster = 0.0
    seen = set()
    for start in range(0, 1280, 64):
        terms = trainer.learn(frame[start : start + 64]).terms
        expected = 1.0 if booster < light else 0.0
        assert terms["hint_weight"] == expected
        seen.add(expected)
        light = 0.5 * light + 0.5 * terms["loss_light"]
        booster = 0.5 * booster + 0.5 * terms["loss_booster"]
    assert 0.0 in seen


@pytest.mark.parametrize("width", [1, 4])
def test_first_order_weights_move_though_the_light_net_moves_no_shared_rows(tmp_path: Path, width: int) -> None:
    app = small_app(
        tmp_path / "app",
        {"model": {"embedding_dim": width, "sharing": "shared"}, "rocket": {"light_updates_shared": False}},
    )
    trainer = learn(Trainer(app), random_examples(app, 128))
    assert trainer.nets.light_table.weights()["wide"].abs().max() > 0


def test_without_a_gate_the_ramp_alone_sets_lambda(tmp_path: Path) -> None:
    app = small_app(
        tmp_path / "app", {"rocket": {"gate": False, "schedule": "ramp", "ramp_rows": 256, "hint_weight": 2.0}}
    )
    trainer, frame = Trainer(app), random_examples(app, 384)
    weights = [trainer.learn(frame[start : start + 64]).terms["hint_weight"] for start in range(0, 384, 64)]
    assert weights == [0.0, 0.5, 1.0, 1.5, 2.0, 2.0]


@pytest.mark.parametrize("correction", ["weight", "logit"])
def test_sampled_negatives_leave_the_unsampled_click_rate(tmp_path: Path, correction: str) -> None:
    rate = 0.1
    app = small_app(
        tmp_path / "app",
        {
            "sampling": {"negative_keep_rate": rate, "correction": correction},
            "serving": {"prior_ctr": 0.2},
            "train": {"batch_rows": 128},
        },
    )
    whole = random_examples(app, 60_000)
    kept = whole.filter((pl.col("label") == 1) | (pl.Series(np.random.default_rng(1).random(whole.height)) < rate))
    negative = pl.col("label") == 0
    kept = kept.with_columns(
        pl.when(negative).then(rate).otherwise(1.0).cast(pl.Float32).alias("kept_rate"),
        pl.when(negative & (correction == "weight")).then(1 / rate).otherwise(1.0).cast(pl.Float32).alias("weight"),
    )
    trainer = learn(Trainer(app), kept, 128)
    test = whole[-20_000:].with_columns(pl.lit(rate, pl.Float32).alias("kept_rate"))
    told = trainer.predict(test)
    for p in (told.light, told.booster):
        assert 0.93 < p.mean() / test["label"].mean() < 1.07


def test_a_state_of_other_nets_is_refused_by_name(tmp_path: Path) -> None:
    app, other = small_app(tmp_path / "app"), small_app(tmp_path / "app", {"model": {"light": {"hidden": [5]}}})
    trainer = Trainer(app)
    with pytest.raises(ContractError, match=r"mlp\.0\.bias' has shape \(8,\) in it and \(5,\) here"):
        Trainer(other).restore(trainer.state(), trainer.meta())
    with pytest.raises(CorruptError, match="running_logloss"):
        trainer.restore(trainer.state(), {k: v for k, v in trainer.meta().items() if k != "running_logloss"})


def test_a_loss_that_is_not_finite_stops_before_it_spoils_the_weights(tmp_path: Path) -> None:
    app = small_app(tmp_path / "app", {"train": {"not_finite": "stop"}})
    trainer, frame = Trainer(app), random_examples(app, 64)
    state = trainer.state()
    with pytest.raises(ContractError, match="is not finite"):
        trainer.learn(frame.with_columns(pl.lit(3e38, pl.Float32).alias(app.layout.light_dense[0].name)))
    assert all(torch.equal(state[k], v) for k, v in trainer.state().items())


def test_an_empty_minibatch_and_an_unknown_device_are_refused(tmp_path: Path) -> None:
    app: App = small_app(tmp_path / "app")
    with pytest.raises(ContractError, match="no rows"):
        Trainer(app).learn(random_examples(app, 64)[:0])
    with pytest.raises(ContractError, match="device = 'tpu'"):
        Trainer(small_app(tmp_path / "app", {"train": {"device": "tpu"}}))


def test_learning_leaves_the_threads_denormals_alone(tmp_path: Path) -> None:
    app = small_app(tmp_path / "app")
    Trainer(app).learn(random_examples(app, 64))
    assert float(torch.tensor(1e-40) * 1.0) != 0.0
