"""`rocket train` killed with SIGKILL at any moment, and started again, ends with the same bytes of weights."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from contracts.app import App
from flows import train
from model.checkpoint import Loaded, load_newest
from model.checkpoint_manifest import names
from tests.random_examples import random_examples, small_app, write_log

pytestmark = pytest.mark.e2e

ROWS, LEARNT = 20_000, 19_968  # minibatches of 64, a checkpoint every 5: a second or two of training


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> App:
    return small_app(tmp_path_factory.mktemp("app") / "small", {"labels": {"dedupe_s": 1e6}})


@pytest.fixture(scope="module")
def log(app: App, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_log(tmp_path_factory.mktemp("log") / "examples", app, random_examples(app, ROWS), 1024)


@pytest.fixture(scope="module")
def unkilled(app: App, log: Path, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    folder = tmp_path_factory.mktemp("unkilled")
    train.run(app, log, folder)
    return load_newest(folder, app.schema_id)


def start(app: App, log: Path, folder: Path) -> subprocess.Popen[str]:
    words = ["train", "--app", str(app.folder), "--examples", str(log), "--checkpoints", str(folder), "--json"]
    words += ["--set", "labels.dedupe_s=1e6", "--set", "train.checkpoint.every_s=1000"]
    return subprocess.Popen(
        [sys.executable, "-m", "deploy.cli", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_until(process: subprocess.Popen[str], seen) -> bool:
    """Watch the folder until `seen`; False when the process ended first."""
    deadline = time.monotonic() + 120
    while not seen():
        if process.poll() is not None:
            return False
        assert time.monotonic() < deadline, "nothing happened for two minutes"
        time.sleep(0.0005)
    return True


def killed_at(moment: str, app: App, log: Path, folder: Path, rng: random.Random) -> bool:
    """Start training, kill it at that moment of its life; False when it was done before."""
    before = set(names(folder))
    process = start(app, log, folder)
    moments = {
        "starting": lambda: True,
        "writing a checkpoint": lambda: any(folder.glob(".writing-*")),
        "after a rename": lambda: bool(set(names(folder)) - before),
        "removing an old one": lambda: any(folder.glob(".deleting-*")),
        "any": lambda: bool(set(names(folder)) - before),
    }
    try:
        alive = wait_until(process, moments[moment])
        time.sleep(rng.random() * {"starting": 5.0, "any": 0.5}.get(moment, 0.0))
        alive = alive and process.poll() is None
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.communicate()
    return alive


def assert_unharmed(app: App, log: Path, folder: Path, unkilled: Loaded) -> None:
    """Finish the training; the end must be that of the run never killed."""
    done = train.run(app, log, folder)
    assert (done["examples"], done["pending"], done["redelivered"]) == (LEARNT, ROWS - LEARNT, 0)
    found = load_newest(folder, app.schema_id)
    for file in ("model.safetensors", "optimizer.safetensors", "trained_ids.arrow", "state.json", "metrics.json"):
        assert (found.path / file).read_bytes() == (unkilled.path / file).read_bytes(), file
    trained = found.tables["trained_ids"]["example_id"]
    assert trained.n_unique() == trained.len() == LEARNT  # each settled example exactly once


def test_killed_at_three_moments_it_ends_with_the_same_bytes(
    app: App, log: Path, unkilled: Loaded, tmp_path: Path
) -> None:
    rng, kills = random.Random(0), 0
    for moment in ("writing a checkpoint", "after a rename", "any"):
        kills += killed_at(moment, app, log, tmp_path, rng)
    assert kills >= 2
    assert_unharmed(app, log, tmp_path, unkilled)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_ten_random_moments_it_ends_with_the_same_bytes(
    app: App, log: Path, unkilled: Loaded, tmp_path: Path
) -> None:
    rng, kills = random.Random(1), 0
    moments = ["starting", "writing a checkpoint", "after a rename", "removing an old one", "any"] * 2
    rng.shuffle(moments)
    for number, moment in enumerate(moments):
        kills += killed_at(moment, app, log, tmp_path / str(number // 5), rng)
        if number % 5 == 4:
            process = start(app, log, tmp_path / str(number // 5))
            _, err = process.communicate(timeout=250)
            assert process.returncode == 0, err
            assert_unharmed(app, log, tmp_path / str(number // 5), unkilled)
    assert kills >= 8


def test_sigterm_takes_a_checkpoint_and_exits_with_0(app: App, log: Path, unkilled: Loaded, tmp_path: Path) -> None:
    process = start(app, log, tmp_path)
    assert wait_until(process, lambda: bool(names(tmp_path)))
    asked = time.monotonic()
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert time.monotonic() - asked < 10
    done = json.loads(out.splitlines()[-1])
    assert done["stopped"]
    assert load_newest(tmp_path, app.schema_id).manifest.position == done["examples"] < LEARNT
    assert_unharmed(app, log, tmp_path, unkilled)
