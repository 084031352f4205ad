"""Minibatches that are not finite, from the log to the figures: told, counted, resumed across, and felt by nothing."""

import json
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from contracts.app import App
from contracts.errors import ContractError
from deploy.commands import train as command
from flows import train
from model.checkpoint import load_newest
from nodes.metrics_http import Metrics
from nodes.train_metrics import TrainMetrics
from tests.random_examples import random_examples, small_app, write_log

ROWS, BATCH = 640, 64


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> App:
    return small_app(tmp_path_factory.mktemp("app") / "small")


def poisoned(app: App, frame: pl.DataFrame, batches: set[int]) -> pl.DataFrame:
    name, batch = app.layout.light_dense[0].name, pl.int_range(frame.height) // BATCH
    value = pl.when(batch.is_in(sorted(batches))).then(3e38).otherwise(name)
    return frame.with_columns(value.cast(pl.Float32).alias(name))


def test_they_are_felt_by_nothing_and_told_of(app: App, tmp_path: Path) -> None:
    frame = random_examples(app, ROWS)
    batch = pl.int_range(frame.height) // BATCH
    bad = write_log(tmp_path / "bad", app, poisoned(app, frame, {2, 6}))
    good = write_log(tmp_path / "good", app, frame.filter(~batch.is_in([2, 6])))
    done, clean = train.run(app, bad, tmp_path / "a"), train.run(app, good, tmp_path / "b")
    assert (done["skipped_batches"], done["skipped_rows"], done["steps"]) == (2, 128, 10)
    assert (clean["skipped_batches"], clean["skipped_rows"]) == (0, 0)
    assert done["examples"] == clean["examples"] + 128 == ROWS
    ours, theirs = (load_newest(tmp_path / name, app.schema_id).tensors for name in "ab")
    learnt = [name for name in ours if not name.startswith("progressive")]
    assert all(ours[name].equal(theirs[name]) for name in learnt), "nets, tables, averages, yardstick"
    assert done["progressive"]["light"]["rows"] == ROWS, "what was predicted is told: those are numbers"
    assert json.loads(json.dumps(done)) == done


def test_training_resumes_across_them_bit_for_bit(app: App, tmp_path: Path) -> None:
    frame = poisoned(app, random_examples(app, ROWS), {3, 4, 7})
    whole, part = write_log(tmp_path / "whole", app, frame), write_log(tmp_path / "part", app, frame.head(4 * BATCH))
    train.run(app, whole, tmp_path / "straight")
    train.run(app, part, tmp_path / "resumed")
    done = train.run(app, whole, tmp_path / "resumed")
    assert done["resumed_from"] is not None
    assert done["skipped_batches"] == 3
    one, other = (load_newest(tmp_path / name, app.schema_id) for name in ("straight", "resumed"))
    assert one.meta == other.meta
    assert all(one.tensors[name].equal(other.tensors[name]) for name in one.tensors)


def test_too_many_in_a_row_end_training(tmp_path: Path) -> None:
    app = small_app(tmp_path / "app", {"train": {"max_skipped": 2}})
    log = write_log(tmp_path / "log", app, poisoned(app, random_examples(app, ROWS), {2, 5, 6}))
    with pytest.raises(ContractError, match=r"step 6: .* all of the last 2 minibatches"):
        train.run(app, log, tmp_path / "checkpoints")


def test_the_command_says_so_and_a_metric_counts_them(app: App, tmp_path: Path) -> None:
    log = write_log(tmp_path / "log", app, poisoned(app, random_examples(app, ROWS), {2}))
    said = ["--examples", str(log), "--checkpoints", str(tmp_path / "c"), "--app", str(app.folder)]
    done = CliRunner().invoke(command.app, said)
    assert done.exit_code == 0, done.output
    assert "1 minibatches (64 rows) skipped as not finite" in done.output
    again = CliRunner().invoke(command.app, [*said, "--json"])
    figures = json.loads(again.stdout.splitlines()[-1])
    with Metrics("train") as metrics:
        TrainMetrics(metrics)(figures | {"held": {}, "seconds": {}, "newest": None, "watch": {}})
        assert "ctr_train_skipped_batches 1.0" in metrics.text()
        assert "ctr_train_skipped_rows 64.0" in metrics.text()
