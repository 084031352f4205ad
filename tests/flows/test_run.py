"""Two commands side by side: drained together, started again when they die, given up when they cannot run."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from typer.main import get_command

from contracts.errors import RocketError
from deploy.commands import train
from flows import run as flow
from tests.commands import refused, rocket

QUICK = flow.Patience(settled_s=0.5, first_delay_s=0.01, longest_delay_s=0.05, most=3, drain_s=2.0)
#: Says who it is, then waits for SIGTERM, drains and tells its figures.
GOOD = """
import json, os, signal, sys, time
def drain(*_):
    print("draining"); print(json.dumps({"rows": 5})); sys.exit(0)
signal.signal(signal.SIGTERM, drain)
with open(sys.argv[1], "a") as file:
    file.write(f"{os.getpid()}\\n")
while True:
    time.sleep(0.01)
"""
STUBBORN = GOOD.replace("signal.signal(signal.SIGTERM, drain)", "signal.signal(signal.SIGTERM, signal.SIG_IGN)")


def python(code: str, *words: str | Path) -> list[str]:
    return [sys.executable, "-c", code, *map(str, words)]


def pids(path: Path) -> list[int]:
    return [int(line) for line in path.read_text().split()] if path.exists() else []


class Supervised:
    """A supervisor in a thread of its own."""

    def __init__(self, commands: dict[str, list[str]], patience: flow.Patience = QUICK) -> None:
        self.stop, self.said = threading.Event(), list[str]()
        self.done: dict[str, dict] = {}
        self.error: Exception | None = None

        def work() -> None:
            try:
                self.done = flow.run(commands, stop=self.stop, say=self.said.append, patience=patience)
            except Exception as error:  # shown to the test
                self.error = error

        self._thread = threading.Thread(target=work)
        self._thread.start()

    def until(self, seen: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 20
        while not seen():
            assert self.error is None, self.error
            assert time.monotonic() < deadline, self.said
            time.sleep(0.01)

    def ended(self) -> None:
        self._thread.join(20)
        assert not self._thread.is_alive()
        if self.error is not None:
            raise self.error


def test_sigterm_is_passed_on_and_both_drain(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    supervised = Supervised({"ingest": python(GOOD, one), "train": python(GOOD, two)})
    supervised.until(lambda: bool(pids(one) and pids(two)))
    supervised.stop.set()
    supervised.ended()
    assert supervised.done == {"ingest": {"rows": 5, "restarts": 0}, "train": {"rows": 5, "restarts": 0}}
    assert not any(psutil.pid_exists(pid) for pid in pids(one) + pids(two))


def test_who_is_killed_is_started_again_and_the_other_runs_on(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    supervised = Supervised({"ingest": python(GOOD, one), "train": python(GOOD, two)})
    supervised.until(lambda: bool(pids(one) and pids(two)))
    for kills in (1, 2):
        os.kill(pids(two)[-1], signal.SIGKILL)
        supervised.until(lambda kills=kills: len(pids(two)) == kills + 1)
    supervised.stop.set()
    supervised.ended()
    assert (len(pids(one)), supervised.done["train"]["restarts"], supervised.done["ingest"]["restarts"]) == (1, 2, 0)
    assert sum("train: ended (killed by SIGKILL); it is started again in" in line for line in supervised.said) == 2


def test_who_cannot_run_ends_both_with_its_own_sentence(tmp_path: Path) -> None:
    wrong = "import sys; print('rocket: no topic ctr.impressions.v1; rocket up makes it', file=sys.stderr); sys.exit(1)"
    one = tmp_path / "one"
    supervised = Supervised({"train": python(GOOD, one), "ingest": python(wrong)})
    with pytest.raises(RocketError, match=r"^ingest cannot run \(exit code 1: no topic ctr.impressions.v1; rocket up"):
        supervised.ended()
    assert not any(psutil.pid_exists(pid) for pid in pids(one))


def test_wrong_usage_is_never_tried_twice(tmp_path: Path) -> None:
    supervised = Supervised({"ingest": python("import sys; sys.exit(2)")})
    with pytest.raises(RocketError, match="ingest cannot run"):
        supervised.ended()


def test_who_dies_again_and_again_is_given_up(tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    dying = GOOD.replace("while True:", "os.kill(os.getpid(), signal.SIGSEGV)\nwhile True:")
    supervised = Supervised({"train": python(dying, starts)})
    with pytest.raises(RocketError, match="train ended 4 times in a row, the last time with killed by SIGSEGV"):
        supervised.ended()
    assert len(pids(starts)) == 4


def test_who_failed_after_having_run_for_long_is_started_again(tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    later = GOOD.replace("while True:", "time.sleep(1.0) if os.path.getsize(sys.argv[1]) < 9 else None\n"
                                        "if os.path.getsize(sys.argv[1]) < 9: sys.exit(1)\nwhile True:")  # fmt: skip
    supervised = Supervised({"train": python(later, starts)})
    supervised.until(lambda: len(pids(starts)) == 2)
    supervised.stop.set()
    supervised.ended()
    assert supervised.done["train"]["restarts"] == 1


def test_who_was_fenced_out_does_not_come_back(tmp_path: Path) -> None:
    fenced = "another trainer has claimed these checkpoints (epoch 2, ours is 1)"
    late = f"import sys, time; time.sleep(0.8); print('rocket: {fenced}', file=sys.stderr); sys.exit(1)"
    supervised = Supervised({"train": python(late)})
    with pytest.raises(RocketError, match=r"train was fenced out .*another trainer has claimed"):
        supervised.ended()


def test_who_does_not_drain_is_killed_and_named(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    supervised = Supervised({"ingest": python(STUBBORN, one), "train": python(GOOD, two)})
    supervised.until(lambda: bool(pids(one) and pids(two)))
    supervised.stop.set()
    with pytest.raises(RocketError, match="ingest did not end within 2 s of SIGTERM and was killed"):
        supervised.ended()
    assert not any(psutil.pid_exists(pid) for pid in pids(one) + pids(two))


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv of util-linux")
def test_a_supervisor_that_is_killed_takes_both_with_it(tmp_path: Path) -> None:
    code = (
        "import sys, threading; from flows import run\n"
        "run.run({'a': sys.argv[1:5], 'b': sys.argv[1:4] + sys.argv[5:]}, stop=threading.Event(), say=print)"
    )
    one, two = tmp_path / "one", tmp_path / "two"
    process = subprocess.Popen([sys.executable, "-c", code, *python(GOOD, one), str(two)])
    try:
        deadline = time.monotonic() + 20
        while not (pids(one) and pids(two)):
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
    for pid in pids(one) + pids(two):
        psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=10)
        assert not psutil.pid_exists(pid)


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """The commands that `rocket run` would have started."""
    given: dict[str, list[str]] = {}

    def run(commands: dict[str, list[str]], *, stop: threading.Event, say: Callable[[str], None]) -> dict:
        given.update(commands)
        return {name: {"restarts": 0} for name in commands}

    monkeypatch.setattr(flow, "run", run)
    return given


def test_the_command_gives_each_part_its_words(tmp_path: Path, given: dict[str, list[str]]) -> None:
    events = ["--impressions", "kafka://h:1/i", "--clicks", "kafka://h:1/c"]
    out = tmp_path / "run"
    said = rocket("run", *events, "--out", out, "--weights", "redis://h:2/0", "--set", "labels.wait_s=10")
    assert (said.code, said.out) == (
        0,
        "ingest: drained, started again 0 times\ntrain: drained, started again 0 times\n",
    )
    same = ["--app", "adsim", "--set", "labels.wait_s=10", "--json"]
    log = ["--examples", str(out / "ingest" / "examples")]
    ingest = ["ingest", "--live", *events, *log, "--out", str(out / "ingest"), "--runner", "prism", *same]
    where = [*log, "--checkpoints", str(out / "checkpoints")]
    assert given["ingest"] == [sys.executable, "-m", "deploy.cli", *ingest]
    assert given["train"][3:] == ["train", "--live", *where, "--weights", "redis://h:2/0", *same]
    refused(rocket("run", *events, "--out", out, "--weights", "redis://h:2/0", "--set", "labels.wait_s=no"))


@pytest.mark.parametrize("where", ["weights", "redis://h:3/1"])
def test_the_command_tells_its_trainer_where_to_begin(tmp_path: Path, given: dict[str, list[str]], where: str) -> None:
    places = [
        "--impressions",
        "kafka://h:1/i",
        "--clicks",
        "kafka://h:1/c",
        "--out",
        tmp_path,
        "--weights",
        "redis://h:2",
    ]
    assert rocket("run", *places, "--light-from", where, "--new-booster").code == 0
    words = given["train"][given["train"].index("train") + 1 :]
    understood = get_command(train.app).make_context("train", words).params
    assert (understood["light_from"], understood["new_booster"], understood["live"]) == (where, True, True)
    assert not {"--light-from", "--new-booster"} & {*given["ingest"]}
