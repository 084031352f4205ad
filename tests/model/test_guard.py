"""A minibatch that is not finite moves nothing, is counted, and training goes on as if it had not come."""

import json
import logging
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from contracts.app import App
from contracts.errors import ContractError
from model.progressive import Progressive
from model.trainer import Trainer
from tests.random_examples import random_examples, small_app

#: The forward pass of these moves running moments.
MOVING = {"booster": {"kind": "mlp", "hidden": [8], "norm": "batch", "activation": "dice", "dropout": 0.2}}


def poisoned(app: App, frame: pl.DataFrame, value: float = 3e38) -> pl.DataFrame:
    """A dense feature beyond what the nets can multiply, in the second half of the rows."""
    name = app.layout.light_dense[0].name
    odd = pl.int_range(frame.height) >= frame.height // 2
    return frame.with_columns(pl.when(odd).then(value).otherwise(name).cast(pl.Float32).alias(name))


def states(trainer: Trainer) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in trainer.state().items()}


def without_counts(trainer: Trainer) -> dict:
    return {key: value for key, value in trainer.meta().items() if key not in {"skipped", "step"}}


@pytest.mark.parametrize("sharing", ["shared", "separate"])
def test_it_moves_nothing_and_is_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture, sharing: str) -> None:
    app = small_app(tmp_path / "app", {"model": {"sharing": sharing, **MOVING}})
    trainer, frame = Trainer(app), random_examples(app, 192)
    trainer.learn(frame[:64])
    state, steers = states(trainer), without_counts(trainer)
    trainer.nets.light_table.take_moved()
    with caplog.at_level(logging.WARNING):
        told = trainer.learn(poisoned(app, frame[64:128]))
    assert told.skipped
    assert np.isfinite(told.light[:32]).all(), "predictions are told where they are numbers"
    assert states(trainer) == state
    assert without_counts(trainer) == steers
    assert trainer.nets.light_table.take_moved().numel() == 0
    assert trainer.meta()["skipped"] == {"batches": 1, "rows": 64, "in_a_row": 1}
    assert "step 1:" in caplog.text
    assert "64 rows" in caplog.text
    assert not trainer.learn(frame[128:]).skipped
    assert trainer.meta()["skipped"]["in_a_row"] == 0


def test_a_gradient_that_only_the_tables_feel_is_seen(tmp_path: Path) -> None:
    app = small_app(tmp_path / "app", {"model": {"booster": {"kind": "none"}}})
    trainer, frame = Trainer(app), random_examples(app, 64)
    state = states(trainer)
    table = trainer.nets.light_table
    prepare = table.prepare
    table.prepare = lambda touched, rows: prepare(
        touched._replace(slab_UC=touched.slab_UC.fill_(float("inf"))), rows=rows
    )
    assert trainer.learn(frame).skipped
    table.prepare = prepare
    assert states(trainer) == state


def test_too_many_in_a_row_end_training_also_across_a_restart(tmp_path: Path) -> None:
    app = small_app(tmp_path / "app", {"train": {"max_skipped": 3}})
    trainer, frame = Trainer(app), random_examples(app, 64)
    bad = poisoned(app, frame)
    for rows in (bad, bad, frame, bad):
        trainer.learn(rows)
    again = Trainer(app)
    again.restore(trainer.state(), json.loads(json.dumps(trainer.meta())))
    for one in (trainer, again):
        one.learn(bad)
        state = states(one)
        with pytest.raises(ContractError, match=r"all of the last 3 minibatches .*learning rate"):
            one.learn(bad)
        assert states(one) == state


def test_stop_stops_at_the_first_and_leaves_all_as_it_was(tmp_path: Path) -> None:
    app = small_app(tmp_path / "app", {"train": {"not_finite": "stop"}, "model": MOVING})
    trainer, frame = Trainer(app), random_examples(app, 64)
    trainer.learn(frame)
    state, meta = states(trainer), trainer.meta()
    with pytest.raises(ContractError, match=r'train\.not_finite = "skip"'):
        trainer.learn(poisoned(app, frame))
    assert (states(trainer), trainer.meta()) == (state, meta)


def test_progressive_figures_leave_out_what_is_no_number_and_tell_of_it() -> None:
    label, at_ms = np.array([1.0, 0.0, 1.0, 0.0]), np.arange(4)
    good = np.array([0.9, 0.2, 0.6, 0.3])
    bad = np.where([False, True, False, True], [np.nan, np.nan, np.inf, np.inf], good)
    whole, part = Progressive(("light", "booster")), Progressive(("light", "booster"))
    whole.update(label, at_ms, {"light": good, "booster": bad})
    part.update(label[::2], at_ms[::2], {"booster": good[::2]})
    part.update(label, at_ms, {"light": good})
    figures = whole.figures()
    assert figures["booster"].pop("not_finite") == 2
    assert figures == part.figures()
    again = Progressive(("light", "booster"))
    again.restore(whole.arrays(), json.loads(json.dumps(whole.meta())))
    assert again.figures() == whole.figures()
    assert "not_finite" not in part.meta(), "nothing is told where there was none"
