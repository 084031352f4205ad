"""`rocket train --live` killed, stopped, continued and fenced while the log grows: the weights are those of the log."""

import json
import random
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest

from contracts.app import App
from contracts.segments import FeatureBatch
from flows import train
from model.checkpoint import load_newest
from nodes.example_log import ExampleDirectory
from nodes.freshness import read_versions
from nodes.redis_weights import RedisWeights
from tests.random_examples import random_examples, small_app, write_log

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("empty_valkey")]

ROWS, LEARNT = 6000, 5952  # minibatches of 64
SETS = ["labels.dedupe_s=1e6", "publish.every_s=0.2", "publish.gate.window_rows=128", "live.poll_s=0.01"]
SETS += ["publish.gate.max_logloss_increase=9", "publish.gate.calibration=[0.01, 99.0]", "train.checkpoint.every_s=0.3"]


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> App:
    return small_app(tmp_path_factory.mktemp("app") / "small", {"labels": {"dedupe_s": 1e6}})


@pytest.fixture(scope="module")
def frame(app: App) -> pl.DataFrame:
    return random_examples(app, ROWS)


class Grown:
    """A log that grows whenever it is asked to."""

    def __init__(self, app: App, frame: pl.DataFrame, path: Path) -> None:
        self.path, self.rows = path, 0
        self._app, self._frame, self._log, self._rng = app, frame, ExampleDirectory(path), random.Random(0)

    def grow(self, upto: int | None = None) -> None:
        end = min(self.rows + self._rng.choice([1, 40, 100, 200]) if upto is None else upto, ROWS)
        if end > self.rows:
            new = self._frame.slice(self.rows, end - self.rows)
            self._log.append(FeatureBatch(new, self.rows, self._app.schema_id), self._app.name)
            self.rows = end


STARTED: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def _ended() -> Iterator[None]:
    """Nothing is left running, also when a test fails."""
    yield
    while STARTED:
        process = STARTED.pop()
        process.kill()
        process.communicate()


def start(app: App, log: Path, folder: Path, weights: str | None = None, *more: str) -> subprocess.Popen[str]:
    words = [
        "train",
        "--live",
        "--app",
        str(app.folder),
        "--examples",
        str(log),
        "--checkpoints",
        str(folder),
        "--json",
    ]
    words += [word for given in SETS for word in ("--set", given)] + (["--weights", weights] if weights else [])
    process = subprocess.Popen(
        [sys.executable, "-m", "deploy.cli", *words, *more], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    STARTED.append(process)
    return process


def wait(process: subprocess.Popen[str], seen: Callable[[], bool], grow: Callable[[], None] = lambda: None) -> None:
    deadline = time.monotonic() + 120
    while not seen():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "nothing happened for two minutes"
        grow()
        time.sleep(0.02)


def ended(process: subprocess.Popen[str], number: int) -> tuple[int, str, str]:
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def page(address: str) -> str:
    with urllib.request.urlopen(address) as answer:
        return answer.read().decode()


def position(app: App, folder: Path) -> int:
    return load_newest(folder, app.schema_id).manifest.position if any(folder.glob("checkpoint-*")) else 0


def test_killed_twice_while_the_log_grows_it_ends_with_the_bytes_of_a_bounded_run(
    app: App, frame: pl.DataFrame, valkey_url: str, tmp_path: Path
) -> None:
    log, folder = Grown(app, frame, tmp_path / "examples"), tmp_path / "checkpoints"
    store = RedisWeights(valkey_url, app.name)
    for kill in (1, 2):
        before = position(app, folder)
        process = start(app, log.path, folder, valkey_url)
        wait(process, lambda before=before: position(app, folder) > before + 300, log.grow)
        assert ended(process, signal.SIGKILL)[0] == -signal.SIGKILL, kill
    process = start(app, log.path, folder, valkey_url, "--metrics-port", "0")
    assert process.stderr is not None
    address = process.stderr.readline().split()[-1]
    log.grow(ROWS)
    wait(process, lambda: position(app, folder) == LEARNT)
    wait(process, lambda: f"ctr_train_position_rows {LEARNT}.0" in page(address))
    asked = time.monotonic()
    code, out, err = ended(process, signal.SIGTERM)
    assert code == 0, err
    assert time.monotonic() - asked < 10
    done = json.loads(out.splitlines()[-1])
    assert (done["examples"], done["pending"], done["redelivered"]) == (LEARNT, ROWS - LEARNT, 0)
    train.run(app, write_log(tmp_path / "whole", app, frame), tmp_path / "bounded")
    found, expected = (load_newest(path, app.schema_id) for path in (folder, tmp_path / "bounded"))
    for file in ("model.safetensors", "optimizer.safetensors", "trained_ids.arrow", "state.json", "metrics.json"):
        assert (found.path / file).read_bytes() == (expected.path / file).read_bytes(), file
    versions = read_versions(folder / "versions.ndjson")
    assert [one.version for one in versions] == sorted({one.version for one in versions})
    assert [one.position for one in versions] == sorted({one.position for one in versions})
    assert sum(one.rows for one in versions) == versions[-1].position
    assert store.current_version() == versions[-1].version
    store.close()


def test_who_was_stopped_past_its_fence_writes_and_publishes_nothing_and_exits_with_1(
    app: App, frame: pl.DataFrame, valkey_url: str, tmp_path: Path
) -> None:
    log, folder = Grown(app, frame, tmp_path / "examples"), tmp_path / "checkpoints"
    store = RedisWeights(valkey_url, app.name)
    first = start(app, log.path, folder, valkey_url)
    wait(first, lambda: position(app, folder) > 300, log.grow)
    first.send_signal(signal.SIGSTOP)
    second = start(app, log.path, folder, valkey_url)
    wait(second, lambda: any(folder.glob("checkpoint-000002-*")), log.grow)
    first.send_signal(signal.SIGCONT)
    log.grow(ROWS)
    out, err = first.communicate(timeout=60)
    assert (first.returncode, out) == (1, "")
    (line,) = [line for line in err.splitlines() if "waiting for them" not in line and not line.startswith("train:")]
    assert line.startswith("rocket: ")
    assert "another trainer has claimed these checkpoints" in line or "has taken over" in line
    wait(second, lambda: position(app, folder) == LEARNT)
    assert ended(second, signal.SIGTERM)[0] == 0
    epochs = [manifest.epoch for manifest in store.versions()]
    assert epochs == sorted(epochs)
    assert load_newest(folder, app.schema_id).manifest.epoch == 2
    store.close()
