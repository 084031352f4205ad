"""The linear yardstick learns, honours weights and sampling, and goes on bit for bit."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from scipy import sparse
from sklearn.linear_model import LogisticRegression

from contracts.app import App
from contracts.errors import CorruptError
from model.linear import HashedLinear
from model.metrics import summarise
from tests.random_examples import random_examples, small_app


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> App:
    return small_app(tmp_path_factory.mktemp("app") / "small")


def learnt(app: App, frame: pl.DataFrame, rows: int = 64) -> HashedLinear:
    linear = HashedLinear(app)
    for start in range(0, frame.height - rows + 1, rows):
        linear.learn(frame.slice(start, rows))
    return linear


def test_one_pass_comes_close_to_batch_logistic_regression_on_the_same_fields(app: App) -> None:
    frame = random_examples(app, 12_000)
    train, test = frame.head(9000), frame.tail(3000)
    # so short a log wants the larger rate
    linear = learnt(small_app(app.folder, {"train": {"linear_lr": 0.15}}), train)
    label = test["label"].to_numpy()

    def matrix(part: pl.DataFrame) -> sparse.sparray:
        hot = [sparse.eye_array(f.rows, format="csr")[part[f.name].to_numpy()] for f in app.layout.light_ids]
        return sparse.hstack([*hot, part.select(f.name for f in app.layout.light_dense).to_numpy()], format="csr")

    batch = LogisticRegression(C=0.3, max_iter=100).fit(matrix(train), train["label"].to_numpy())
    best = summarise(label, batch.predict_proba(matrix(test))[:, 1])
    ours = summarise(label, linear.predict(test))
    assert best["auc"] > 0.7
    assert ours["auc"] > best["auc"] - 0.02
    assert ours["logloss"] < best["logloss"] * 1.02
    assert 0.9 < ours["calibration"] < 1.1


def test_it_predicts_before_it_learns(app: App) -> None:
    frame, linear = random_examples(app, 64), HashedLinear(app)
    before = linear.predict(frame)
    assert np.array_equal(linear.learn(frame), before)
    assert not np.array_equal(linear.predict(frame), before)


def test_predicting_changes_nothing(app: App) -> None:
    frame = random_examples(app, 256)
    linear = learnt(app, frame)
    before = {name: tensor.clone() for name, tensor in linear.state().items()}
    linear.predict(frame)
    assert all(torch.equal(tensor, before[name]) for name, tensor in linear.state().items())


def test_a_row_of_weight_two_counts_as_two_rows(app: App) -> None:
    frame = random_examples(app, 64)
    heavy, twice = HashedLinear(app), HashedLinear(app)
    heavy.learn(frame.with_columns(weight=pl.lit(2.0, pl.Float32)))
    twice.learn(pl.concat([frame, frame]))
    np.testing.assert_allclose(heavy.predict(frame), twice.predict(frame), rtol=1e-9)


@pytest.mark.parametrize("correction", ["weight", "logit"])
def test_down_sampled_negatives_leave_it_calibrated(tmp_path: Path, correction: str) -> None:
    rate = 0.25
    app = small_app(
        tmp_path / "small",
        {"sampling": {"negative_keep_rate": rate, "correction": correction}, "train": {"linear_lr": 0.1}},
    )
    frame = random_examples(app, 30_000)
    kept = frame.filter((pl.col("label") == 1) | (pl.Series(np.random.default_rng(1).random(frame.height)) < rate))
    negative = pl.col("label") == 0
    kept = kept.with_columns(
        kept_rate=pl.when(negative).then(rate).otherwise(1.0).cast(pl.Float32),
        weight=pl.when(negative & (correction == "weight")).then(1 / rate).otherwise(1.0).cast(pl.Float32),
    )
    linear = learnt(app, kept)
    assert 0.93 < summarise(frame["label"].to_numpy(), linear.predict(frame))["calibration"] < 1.07


def test_it_goes_on_from_its_state_bit_for_bit(app: App) -> None:
    frame = random_examples(app, 640)
    whole, first, second = learnt(app, frame), learnt(app, frame.head(320)), HashedLinear(app)
    second.restore({name: tensor.clone() for name, tensor in first.state().items()})
    for start in range(320, 640, 64):
        second.learn(frame.slice(start, 64))
    assert all(torch.equal(tensor, whole.state()[name]) for name, tensor in second.state().items())


def test_a_state_of_another_shape_is_refused(app: App) -> None:
    state = HashedLinear(app).state()
    with pytest.raises(CorruptError, match="tensor 'z' is missing or not of shape"):
        HashedLinear(app).restore({**state, "z": torch.zeros(3, dtype=torch.float64)})
    with pytest.raises(CorruptError, match="tensor 'n'"):
        HashedLinear(app).restore({"z": state["z"]})
