"""A booster swapped, added or left out of a running light net; a light net that begins as it was published."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from contracts.app import App
from contracts.errors import ContractError, SchemaMismatchError
from flows import train
from flows.train_start import Start
from model.export import light_arrays
from model.lifecycle import start_light
from model.published import PublishedLight
from model.tensors import to_batch
from model.trainer import Trainer
from nodes.cotrain import CoTrainer
from nodes.fakes import MemoryWeights
from nodes.publish import Publisher
from tests.random_examples import random_examples, small_app, write_log

BOOSTERS: dict[str, dict[str, Any]] = {
    "none": {"booster": {"kind": "none"}},
    "mlp": {"booster": {"kind": "mlp"}},
    "dcn": {"booster": {"kind": "dcn_v2", "norm": "layer"}},
    "own rows": {"sharing": "separate", "booster": {"kind": "deepfm"}},
    "trunk": {"share": "trunk", "booster": {"kind": "mlp"}},
}


def app_of(tmp_path: Path, name: str, **rocket: Any) -> App:
    return small_app(tmp_path / "app", {"model": BOOSTERS[name], "rocket": rocket})


def taught(app: App, rows: int = 320, trainer: Trainer | None = None) -> Trainer:
    trainer = trainer or Trainer(app)
    frame = random_examples(app, rows, seed=trainer.step)
    for start in range(0, rows, 64):
        trainer.learn(frame[start : start + 64])
    return trainer


def handed_over(before: Trainer, app: App, *, new_booster: bool = True) -> Trainer:
    after = Trainer(app)
    after.restore(before.state(), json.loads(json.dumps(before.meta())), new_booster=new_booster)
    return after


@pytest.mark.parametrize(
    ("old", "new"),
    [("mlp", "dcn"), ("none", "dcn"), ("none", "own rows"), ("own rows", "mlp"), ("dcn", "none"), ("mlp", "trunk")],
)
def test_another_booster_begins_anew_and_the_light_net_goes_on(tmp_path: Path, old: str, new: str) -> None:
    before = taught(app_of(tmp_path, old))
    after, blank = handed_over(before, app_of(tmp_path, new)), Trainer(app_of(tmp_path, new))
    assert (after.step, after.rows_learnt) == (before.step, before.rows_learnt)
    for name, array in light_arrays(before).items():
        assert np.array_equal(light_arrays(after)[name], array), name
    rows, sizes = before.nets.layout.light_rows, sum(p.numel() for p in before.nets.light.parameters())
    own = [name for name in blank.state() if name.startswith(("model.booster.", "model.average.booster."))]
    for name in own:
        assert torch.equal(after.state()[name], blank.state()[name]), name
    accumulators = (t.nets.light_table.accumulators()["embedding"][:rows] for t in (before, after))
    assert torch.equal(*accumulators)
    moments = [t.state()["optimizer.dense.exp_avg"] for t in (before, after)]
    assert torch.equal(*(moment[:sizes] for moment in moments))
    assert not moments[1][sizes:].any()
    frame = random_examples(before.app, 64, seed=9)
    assert np.array_equal(before.predict(frame).light_logit, after.predict(frame).light_logit)
    assert not after.gate_open
    assert after.hint_weight == 0


def test_a_swap_is_resumed_bit_for_bit_like_everything_else(tmp_path: Path) -> None:
    app = app_of(tmp_path, "dcn", schedule="ramp", ramp_rows=400, gate=False)
    swapped = taught(app, trainer=handed_over(taught(app_of(tmp_path, "none")), app))
    resumed = handed_over(swapped, app)
    assert resumed.meta() == swapped.meta()
    taught(app, trainer=swapped)
    taught(app, trainer=resumed)
    one, other = swapped.state(), resumed.state()
    assert all(one[name].numpy().tobytes() == other[name].numpy().tobytes() for name in one)


def test_a_booster_that_comes_later_is_warmed_up_from_then_on(tmp_path: Path) -> None:
    app = app_of(tmp_path, "mlp", hint_weight=1.0, schedule="warmup", warmup_rows=128, gate=False)
    after = handed_over(taught(app_of(tmp_path, "none")), app)
    weights = [after.learn(random_examples(app, 64, seed=7)).terms["hint_weight"] for _ in range(3)]
    assert weights == [0.0, 0.0, 1.0]


def test_the_flag_leaves_a_booster_alone_that_is_the_apps_own(tmp_path: Path) -> None:
    before = taught(app_of(tmp_path, "mlp"))
    after = handed_over(before, app_of(tmp_path, "mlp"))
    assert all(torch.equal(tensor, after.state()[name]) for name, tensor in before.state().items())
    assert after.meta() == before.meta()


def test_a_booster_changes_only_when_told_and_leaves_when_set_to_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = taught(app_of(tmp_path, "mlp"))
    with pytest.raises(ContractError, match=r"holds the booster 'mlp'.*says the booster 'dcn_v2'.*--new-booster"):
        handed_over(before, app_of(tmp_path, "dcn"), new_booster=False)
    with pytest.raises(ContractError, match=r"holds no booster.*--new-booster"):
        handed_over(taught(app_of(tmp_path, "none")), app_of(tmp_path, "mlp"), new_booster=False)
    assert handed_over(before, app_of(tmp_path, "none"), new_booster=False).nets.booster is None
    assert "left out" in caplog.text


def test_a_checkpoint_of_before_boosters_had_names_is_restored(tmp_path: Path) -> None:
    before = taught(app_of(tmp_path, "mlp"))
    after = Trainer(app_of(tmp_path, "mlp"))
    after.restore(before.state(), {name: value for name, value in before.meta().items() if name != "booster"})
    assert after.meta() == before.meta()


def published(trainer: Trainer) -> MemoryWeights:
    store = MemoryWeights(trainer.app.name)
    publisher = Publisher(trainer.app, store, force=True)
    publisher.offer(light_arrays(trainer), position=1, step=trainer.step, trained_until_ms=1)
    publisher.finish()
    return store


def test_a_light_net_begins_as_it_was_published(tmp_path: Path) -> None:
    trainer = taught(app_of(tmp_path, "own rows"), 640)
    weights = published(trainer).fetch()
    begun = Trainer(app_of(tmp_path, "mlp"))
    start_light(begun, weights.arrays)
    frame = random_examples(begun.app, 200, seed=3)
    expected = PublishedLight(weights.arrays, begun.app).logits(to_batch(frame, begun.app))
    for averaged in (False, True):
        np.testing.assert_allclose(begun.predict(frame, averaged=averaged).light_logit, expected, atol=1e-6)
    assert not begun.gate_open
    assert (begun.step, begun.rows_learnt) == (0, 0)
    other = small_app(tmp_path / "app", {"model": {"light": {"hidden": [8], "fm": True}}})
    with pytest.raises(ContractError, match="array 'fm' has the shape None in it"):
        start_light(Trainer(other), weights.arrays)


def test_a_version_of_other_features_or_another_link_is_no_beginning(tmp_path: Path) -> None:
    app = app_of(tmp_path, "none")
    weights = published(Trainer(app)).fetch()
    features = [feature.model_dump(by_alias=True, exclude_unset=True) for feature in app.features]
    features[0]["buckets"] = 128
    with pytest.raises(SchemaMismatchError):
        CoTrainer(small_app(tmp_path / "app", {"features": features})).begin_with(weights)
    with pytest.raises(ContractError, match=r"read as \"sigmoid\".*\"odds\""):
        CoTrainer(small_app(tmp_path / "app", {"labels": {"mode": "fnc"}})).begin_with(weights)


def test_training_begins_with_a_published_light_net_and_then_goes_on_from_its_own_checkpoints(tmp_path: Path) -> None:
    app = app_of(tmp_path, "mlp")
    store, log = published(taught(app, 1280)), write_log(tmp_path / "log", app, random_examples(app, 640))
    blank = train.run(app, log, tmp_path / "blank")
    warm = train.run(app, log, tmp_path / "warm", start=Start(light_from=store))
    assert (blank["light_from"], warm["light_from"]) == (None, 1)
    assert warm["progressive"]["light"]["logloss"] < blank["progressive"]["light"]["logloss"]
    again = train.run(app, log, tmp_path / "warm", start=Start(light_from=store))
    assert (again["light_from"], again["resumed_from"] is None) == (None, False)
    swapped = app_of(tmp_path, "dcn")
    with pytest.raises(ContractError, match="--new-booster"):
        train.run(swapped, log, tmp_path / "warm")
    assert train.run(swapped, log, tmp_path / "warm", start=Start(new_booster=True))["examples"] == 640
