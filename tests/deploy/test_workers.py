"""Processes that do the same: all end together, one that dies comes back, and not for ever."""

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import ContractError, StoreError
from deploy.workers import run_workers


def work(*, stop: threading.Event, on_start: Callable[[dict[str, Any]], None], number: int) -> dict[str, Any]:
    on_start({"pid": os.getpid(), "number": number})
    stop.wait(60)
    return {"ended": number}


def refuse(*, stop: threading.Event, on_start: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    raise ContractError("no such topic")


def die(*, stop: threading.Event, on_start: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    on_start({"pid": os.getpid()})
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def killed_as_it_begins(
    *, stop: threading.Event, on_start: Callable[[dict[str, Any]], None], mark: str
) -> dict[str, Any]:
    if not Path(mark).exists():
        Path(mark).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return work(stop=stop, on_start=on_start, number=0)


class Told:
    """Who has started, and what is done when the n-th start is told."""

    def __init__(self, **acts: Callable[[int], object]) -> None:
        self.acts, self.starts = acts, list[tuple[int, int]]()

    def __call__(self, number: int, started: dict[str, Any]) -> None:
        self.starts.append((number, started["pid"]))
        self.acts.get(f"at{len(self.starts)}", lambda _: None)(started["pid"])


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_workers_run_until_they_are_told_to_stop_and_one_that_is_killed_comes_back() -> None:
    stop = threading.Event()
    told = Told(at2=lambda pid: os.kill(pid, signal.SIGKILL), at3=lambda _: stop.set())
    figures = run_workers(work, [{"number": 0}, {"number": 1}], on_start=told, stop=stop)
    assert figures == [{"ended": 0}, {"ended": 1}]
    killed, back = told.starts[1:]
    assert (killed[0], killed[1] != back[1]) == (back[0], True), "the one that was killed, and another process"
    assert all(gone(pid) for _, pid in told.starts)


def test_a_worker_that_cannot_begin_ends_all_with_its_sentence() -> None:
    with pytest.raises(StoreError, match="no such topic"):
        run_workers(refuse, [{}, {}], on_start=Told(), stop=threading.Event())


def test_a_worker_that_is_killed_before_it_began_comes_back(tmp_path: Path) -> None:
    stop = threading.Event()
    told = Told(at1=lambda _: stop.set())
    mark = str(tmp_path / "killed")
    assert run_workers(killed_as_it_begins, [{"mark": mark}], on_start=told, stop=stop) == [{"ended": 0}]
    assert Path(mark).exists()


def test_a_worker_that_dies_again_and_again_is_given_up() -> None:
    told = Told()
    with pytest.raises(StoreError, match="2 restarts within a minute did not help"):
        run_workers(die, [{}], on_start=told, stop=threading.Event(), restarts=2)
    assert len(told.starts) == 3


ORPHANS = """
import threading
from deploy.workers import run_workers
from tests.deploy.test_workers import work
if __name__ == "__main__":
    run_workers(work, [{"number": 0}, {"number": 1}], on_start=lambda n, s: print(s["pid"], flush=True),
                stop=threading.Event())
"""


def test_workers_end_when_their_parent_is_killed(tmp_path: Any) -> None:
    import subprocess
    import sys

    script = tmp_path / "parent.py"
    script.write_text(ORPHANS)
    with subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": os.getcwd()}
    ) as parent:
        assert parent.stdout is not None
        pids = [int(parent.stdout.readline()) for _ in range(2)]
        parent.kill()
    until_s = time.monotonic() + 20
    while not all(map(gone, pids)) and time.monotonic() < until_s:
        time.sleep(0.05)
    assert all(map(gone, pids))
