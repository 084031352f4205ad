"""N processes that do the same: started together, each started again where it dies, ended together.

                 ┌─▶ worker 0
parent ─ spawn ──┼─▶ worker 1        SIGTERM to the parent ends each; a parent that is killed ends them, too
                 └─▶ …
"""

import logging
import multiprocessing
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

from contracts.errors import RocketError, StoreError
from deploy.cli import tell_warnings
from deploy.signals import stopped_by_signals

_log = logging.getLogger(__name__)
_RESTARTS, _WINDOW_S = 5, 60.0  # so many within that time, of all workers together; then something is wrong for good
_PAUSE_S, _MOST_S = 0.2, 5.0  # before a restart; doubled with each within the window
_STOP_S = 30.0  # that an end may take
_LOOK_S = 0.2


@dataclass
class _Worker:
    """One place among the workers, and who fills it now."""

    number: int
    process: SpawnProcess
    said: Connection
    started: bool = False  #: it has once done what it should
    figures: dict[str, Any] = field(default_factory=dict)
    failed: str = ""  #: the sentence that it ended with
    again_s: float | None = None  #: when it is started again, monotonic


def run_workers(
    target: Callable[..., dict[str, Any]],
    options: Sequence[Mapping[str, Any]],
    *,
    on_start: Callable[[int, dict[str, Any]], None],
    stop: threading.Event,
    restarts: int = _RESTARTS,
) -> list[dict[str, Any]]:
    """Run `target(stop=…, on_start=…, **options[n])` in a process each until `stop`; the figures that each ended with.

    A worker that dies is started again after a pause that grows. Its figures are lost: those of its successor count.

    Args:
        target: at the top of a module: the processes are spawned.
        options: of each worker.
        on_start: number of a worker and what it told when it began; again after each restart.
        stop: ends all.
        restarts: of all workers within a minute; one more ends all.

    Raises:
        StoreError: too many restarts, or a worker ended by itself before it began; with what it said last.
    """
    context = multiprocessing.get_context("spawn")

    def start(number: int) -> _Worker:
        said, say = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(say, target, dict(options[number])), name=f"worker-{number}")
        process.start()
        say.close()
        return _Worker(number, process, said)

    workers = [start(number) for number in range(len(options))]
    try:
        _watch(workers, start, on_start, stop, restarts)
    finally:
        _end(workers, on_start)
    if failed := [worker for worker in workers if worker.failed]:
        raise StoreError(f"worker {failed[0].number}: {failed[0].failed}")
    return [worker.figures for worker in workers]


def _watch(
    workers: list[_Worker],
    start: Callable[[int], _Worker],
    on_start: Callable[[int, dict[str, Any]], None],
    stop: threading.Event,
    restarts: int,
) -> None:
    died_s: deque[float] = deque()
    while not stop.is_set():
        wait([worker.said for worker in workers if not worker.said.closed], _LOOK_S)
        for worker in workers:
            _hear(worker, on_start)
            now_s = time.monotonic()
            if worker.again_s is not None and now_s >= worker.again_s:
                workers[worker.number] = start(worker.number)
                workers[worker.number].started = worker.started
            elif worker.again_s is None and not worker.process.is_alive():
                _hear(worker, on_start)  # its last word may have come since
                why = worker.failed or f"ended with {worker.process.exitcode}"
                if not worker.started and (worker.process.exitcode or 0) >= 0:  # a signal says nothing of its settings
                    raise StoreError(why)
                while died_s and now_s - died_s[0] > _WINDOW_S:
                    died_s.popleft()
                died_s.append(now_s)
                if len(died_s) > restarts:
                    raise StoreError(f"worker {worker.number} {why}; {restarts} restarts within a minute did not help")
                pause_s = min(_MOST_S, _PAUSE_S * 2 ** (len(died_s) - 1))
                worker.again_s, worker.failed = now_s + pause_s, ""
                _log.warning("worker %d %s; it is started again in %.1f s", worker.number, why, pause_s)


def _hear(worker: _Worker, on_start: Callable[[int, dict[str, Any]], None]) -> None:
    """What it has said since."""
    while not worker.said.closed and worker.said.poll():
        try:
            kind, what = worker.said.recv()
        except EOFError:
            worker.said.close()
            return
        if kind == "started":
            worker.started = True
            on_start(worker.number, what)
        elif kind == "figures":
            worker.figures = what
        else:
            worker.failed = what


def _end(workers: Sequence[_Worker], on_start: Callable[[int, dict[str, Any]], None]) -> None:
    for worker in workers:
        if worker.process.is_alive():
            worker.process.terminate()
    until_s = time.monotonic() + _STOP_S
    for worker in workers:
        worker.process.join(max(0.0, until_s - time.monotonic()))
        _hear(worker, on_start)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()
            worker.failed = worker.failed or f"did not end within {_STOP_S:g} s"
        worker.said.close()


def _work(say: Connection, target: Callable[..., dict[str, Any]], options: dict[str, Any]) -> None:
    """The whole of a worker's process."""
    tell_warnings()
    with stopped_by_signals() as stop:
        parent = multiprocessing.parent_process()
        assert parent is not None  # noqa: S101  # it was spawned
        threading.Thread(target=_outlive, args=(parent, stop), daemon=True).start()
        try:
            figures = target(stop=stop, on_start=lambda what: say.send(("started", what)), **options)
        except RocketError as error:
            say.send(("failed", str(error)))
            raise SystemExit(1) from None
        say.send(("figures", figures))


def _outlive(parent: Any, stop: threading.Event) -> None:
    """Nobody is left who would end us."""
    parent.join()
    stop.set()
