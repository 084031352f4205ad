"""Laws 2, 3 and 4: whatever interrupts training, and however the log is cut, the same rows give the same bytes."""

import itertools
import random
from pathlib import Path

import polars as pl
import pytest

from contracts.app import App
from flows import train
from model.checkpoint import Loaded, load_newest
from model.checkpoint_manifest import names, read_manifest
from nodes.cotrain import CoTrainer
from tests.random_examples import START_MS, random_examples, small_app, write_log

ROWS, LEARNT = 1400, 1344  # minibatches of 64


class Killed(BaseException):
    """Stands for a kill: nothing gets to clean up in training's own code."""


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> App:
    return small_app(tmp_path_factory.mktemp("app") / "small")


@pytest.fixture(scope="module")
def frame(app: App) -> pl.DataFrame:
    return random_examples(app, ROWS)


@pytest.fixture(scope="module")
def log(app: App, frame: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_log(tmp_path_factory.mktemp("log") / "examples", app, frame)


@pytest.fixture(scope="module")
def unbroken(app: App, log: Path, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    folder = tmp_path_factory.mktemp("unbroken")
    train.run(app, log, folder)
    return load_newest(folder, app.schema_id)


def assert_same(found: Loaded, expected: Loaded) -> None:
    """Tensors, what steers training, trained ids and figures, bit for bit."""
    assert found.tensors.keys() == expected.tensors.keys()
    for name, tensor in expected.tensors.items():
        assert found.tensors[name].numpy().tobytes() == tensor.numpy().tobytes(), name
    assert found.meta == expected.meta
    assert found.metrics == expected.metrics
    assert found.tables["trained_ids"].equals(expected.tables["trained_ids"])
    for field in ("schema_id", "step", "position", "event_time_ms"):
        assert getattr(found.manifest, field) == getattr(expected.manifest, field), field


def killed_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Die in the minibatch after that many, counted from now."""
    learn, left = CoTrainer.learn, [steps]

    def dying(self, minibatch) -> None:
        if not left[0]:
            raise Killed
        left[0] -= 1
        learn(self, minibatch)

    monkeypatch.setattr(CoTrainer, "learn", dying)


@pytest.mark.parametrize("seed", range(4))
def test_killed_again_and_again_it_ends_with_the_same_bytes(
    app: App, log: Path, unbroken: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    rng = random.Random(seed)
    kills = 0
    while True:
        with monkeypatch.context() as patch:
            killed_after(patch, rng.randrange(1, 14))
            try:
                train.run(app, log, tmp_path)
                break
            except Killed:
                kills += 1
    assert kills
    assert_same(load_newest(tmp_path, app.schema_id), unbroken)


def test_every_settled_example_trains_exactly_once_in_the_surviving_lineage(
    app: App, frame: pl.DataFrame, log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        killed_after(patch, 13)
        with pytest.raises(Killed):
            train.run(app, log, tmp_path)
    train.run(app, log, tmp_path)
    saved = load_newest(tmp_path, app.schema_id)
    trained = saved.tables["trained_ids"]["example_id"]
    assert trained.to_list() == frame["example_id"].head(LEARNT).to_list()
    assert saved.meta["examples"] == LEARNT
    lineage = [read_manifest(tmp_path / name) for name in names(tmp_path)]
    for newer, older in itertools.pairwise(lineage):
        assert newer.parent == older.name
        assert newer.step > older.step


def test_a_redelivery_across_a_kill_is_refused_all_the_same(
    app: App, frame: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [frame.head(800), frame.slice(700, 90), frame.slice(10, 5), frame.slice(800), frame.tail(300)]
    log = write_log(tmp_path / "examples", app, pl.concat(parts), 97)
    whole = train.run(app, log, tmp_path / "whole")
    assert (whole["redelivered"], whole["examples"]) == (395, LEARNT)
    assert load_newest(tmp_path / "whole", app.schema_id).meta["redelivered"] == 95  # 300 lie behind its position
    for steps in (12, 1):  # minibatch 13 is the one in whose midst the redelivery lies
        with monkeypatch.context() as patch:
            killed_after(patch, steps)
            with pytest.raises(Killed):
                train.run(app, log, tmp_path / "killed")
    resumed = train.run(app, log, tmp_path / "killed")
    assert resumed["redelivered"] == 395
    assert_same(load_newest(tmp_path / "killed", app.schema_id), load_newest(tmp_path / "whole", app.schema_id))


@pytest.mark.parametrize("cuts", [4096, 64, 100, 1, [3, 700, 701, 1399]], ids=str)
def test_the_cuts_between_segments_change_nothing(
    app: App, frame: pl.DataFrame, unbroken: Loaded, tmp_path: Path, cuts: int | list[int]
) -> None:
    if cuts == 1:  # one row a segment: only the first rows, or the test is all files
        short = frame.head(150)
        train.run(app, write_log(tmp_path / "one", app, short, 1), tmp_path / "a")
        train.run(app, write_log(tmp_path / "all", app, short, 4096), tmp_path / "b")
        assert_same(load_newest(tmp_path / "a", app.schema_id), load_newest(tmp_path / "b", app.schema_id))
        return
    train.run(app, write_log(tmp_path / "examples", app, frame, cuts), tmp_path / "checkpoints")
    assert_same(load_newest(tmp_path / "checkpoints", app.schema_id), unbroken)


@pytest.mark.parametrize(
    "checkpoint",
    [
        {"every_batches": None, "every_s": None},
        {"every_batches": 1, "every_s": None},
        {"every_batches": None, "every_s": 1e-9},
        {"every_batches": None, "every_s": None, "every_event_min": 2},
    ],
    ids=["at the end", "every batch", "all the time", "by event time"],
)
def test_when_checkpoints_are_taken_changes_nothing(
    app: App, log: Path, unbroken: Loaded, tmp_path: Path, checkpoint: dict
) -> None:
    train.run(small_app(app.folder, {"train": {"checkpoint": checkpoint}}), log, tmp_path)
    assert_same(load_newest(tmp_path, app.schema_id), unbroken)


def test_checkpoints_follow_event_time(app: App, log: Path, tmp_path: Path) -> None:
    by_time = {"every_batches": None, "every_s": None, "every_event_min": 2, "keep": 100}
    train.run(small_app(app.folder, {"train": {"checkpoint": by_time}}), log, tmp_path)
    times = sorted((read_manifest(tmp_path / name).event_time_ms - START_MS) // 1000 for name in names(tmp_path))
    gaps = [later - earlier for earlier, later in itertools.pairwise(times[:-1])]
    assert gaps
    assert min(gaps) >= 120  # one row a second: the first minibatch end after two minutes; the writer may still be busy


def test_a_log_that_grew_is_learnt_as_if_it_had_been_whole(
    app: App, frame: pl.DataFrame, unbroken: Loaded, tmp_path: Path
) -> None:
    part = write_log(tmp_path / "examples", app, frame.head(900))
    first = train.run(app, part, tmp_path / "checkpoints")
    assert (first["examples"], first["pending"]) == (896, 4)
    (part / "complete.json").unlink()
    for path in sorted(write_log(tmp_path / "rest", app, frame, 300).iterdir()):
        path.rename(part / path.name)
    rest = train.run(app, part, tmp_path / "checkpoints")
    assert (rest["examples"], rest["pending"]) == (LEARNT, ROWS - LEARNT)
    assert_same(load_newest(tmp_path / "checkpoints", app.schema_id), unbroken)


def test_another_seed_gives_other_weights(app: App, log: Path, unbroken: Loaded, tmp_path: Path) -> None:
    train.run(small_app(app.folder, {"train": {"seed": 2}}), log, tmp_path)
    other = load_newest(tmp_path, app.schema_id)
    assert any(not tensor.equal(other.tensors[name]) for name, tensor in unbroken.tensors.items())
