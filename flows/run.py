"""Commands that run side by side until they are told to stop: what dies is started again, what cannot start is named.

SIGTERM ─▶ supervisor ─┬─▶ ingest ─▶ example log
                       └─▶ train  ◀──────┘
"""

import json
import shutil
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

from contracts.errors import RocketError

Say = Callable[[str], None]
#: Who was fenced out must not come back: it would fence out its successor.
_FENCED = ("another trainer has claimed", "has taken over")
_TICK_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """When a command that ended is started again, and when it is given up; seconds."""

    settled_s: float = 30.0  #: who has run that long can work; who fails sooner, the first time, never will
    first_delay_s: float = 0.2  #: before the first start anew; doubled with each further one
    longest_delay_s: float = 10.0
    most: int = 10  #: starts anew without having run for `settled_s` in between
    drain_s: float = 9.0  #: from SIGTERM until who has not ended is killed


@dataclass(slots=True)
class _Child:
    """One command, and what became of its processes."""

    name: str
    command: Sequence[str]
    process: "subprocess.Popen[str] | None" = None
    readers: list[threading.Thread] = field(default_factory=list)
    started_s: float = 0.0
    again_s: float | None = None  #: when it is started again
    restarts: int = 0
    in_a_row: int = 0  #: of them, since it last ran for long
    settled: bool = False  #: it has once run for long
    said: deque[str] = field(default_factory=lambda: deque(maxlen=50))  #: last lines on stderr
    told: str = ""  #: last line on stdout

    def sentence(self) -> str:
        """Why it ended, in its own words where it had some."""
        own = [line.removeprefix("rocket: ") for line in self.said if line.startswith("rocket: ")]
        last = own[-1] if own else next((line for line in reversed(self.said) if line.strip()), "it said nothing")
        code = None if self.process is None else self.process.returncode
        if code is not None and code < 0:
            return f"killed by {signal.Signals(-code).name}"
        return f"exit code {code}: {last}"

    def figures(self) -> dict[str, Any]:
        """What it told at its end, if that is a JSON object."""
        try:
            found = json.loads(self.told)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}


def run(
    commands: Mapping[str, Sequence[str]],
    *,
    stop: threading.Event,
    say: Say,
    patience: Patience | None = None,
    clock_s: Callable[[], float] = time.monotonic,
) -> dict[str, Any]:
    """Keep every command running until `stop`; then let all of them drain.

    Each is ended, as if by SIGTERM, also when this process dies (where `setpriv` is found).

    Args:
        commands: name -> program and arguments.
        stop: set it to pass SIGTERM on and wait.
        say: told what the commands say on stderr, and which of them is started again and why.
        patience: when to start again, and when to give up.
        clock_s: monotonic seconds.

    Returns:
        name -> what it told as JSON on its last line of stdout, and `restarts`.

    Raises:
        RocketError: one failed for good, or did not drain cleanly; the others were ended first.
    """
    terms = patience or Patience()
    children = [_Child(name, command) for name, command in commands.items()]
    failed: str | None = None
    try:
        for child in children:
            _start(child, say, clock_s())
        while failed is None and not stop.wait(_TICK_S):
            failed = next((why for child in children if (why := _looked_after(child, terms, say, clock_s()))), None)
    finally:
        undrained = _drain(children, terms.drain_s, clock_s)
    if failed is not None:
        raise RocketError(failed)
    if undrained:
        raise RocketError("; ".join(undrained))
    return {child.name: child.figures() | {"restarts": child.restarts} for child in children}


def _start(child: _Child, say: Say, now_s: float) -> None:
    dies_with_us = shutil.which("setpriv")
    prefix = [] if dies_with_us is None else [dies_with_us, "--pdeathsig", "TERM"]
    child.said.clear()
    child.told, child.started_s, child.again_s = "", now_s, None
    child.process = subprocess.Popen(  # noqa: S603
        [*prefix, *child.command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,  # Ctrl-C comes to us, and we pass it on
    )

    def listen(pipe: IO[str], *, is_stderr: bool) -> None:
        with pipe:
            for line in pipe:
                text = line.rstrip("\n")
                if is_stderr:
                    child.said.append(text)
                    say(f"{child.name}: {text.removeprefix('rocket: ')}")
                else:
                    child.told = text

    assert child.process.stdout is not None  # noqa: S101
    assert child.process.stderr is not None  # noqa: S101
    child.readers = [
        threading.Thread(target=listen, args=(child.process.stdout,), kwargs={"is_stderr": False}, daemon=True),
        threading.Thread(target=listen, args=(child.process.stderr,), kwargs={"is_stderr": True}, daemon=True),
    ]
    for reader in child.readers:
        reader.start()


def _looked_after(child: _Child, terms: Patience, say: Say, now_s: float) -> str | None:
    """Start it again when it has ended and its time has come; why it has failed for good, if it has."""
    if child.again_s is not None:
        if now_s >= child.again_s:
            child.restarts += 1
            _start(child, say, now_s)
        return None
    process = child.process
    assert process is not None  # noqa: S101
    if now_s - child.started_s >= terms.settled_s:
        child.settled, child.in_a_row = True, 0
    if process.poll() is None:
        return None
    _heard_out(child)
    why = child.sentence()
    if any(words in why for words in _FENCED):
        return f"{child.name} was fenced out ({why})"
    if process.returncode == 2 or (process.returncode == 1 and not child.settled and not child.restarts):
        return f"{child.name} cannot run ({why})"
    if child.in_a_row >= terms.most:
        return f"{child.name} ended {child.in_a_row + 1} times in a row, the last time with {why}"
    delay_s = min(terms.first_delay_s * 2**child.in_a_row, terms.longest_delay_s)
    child.in_a_row += 1
    child.again_s = now_s + delay_s
    say(f"{child.name}: ended ({why}); it is started again in {delay_s:.1f} s")
    return None


def _heard_out(child: _Child, timeout_s: float = 1.0) -> None:
    """Its last words; a grandchild that keeps the pipe open is not waited for."""
    for reader in child.readers:
        reader.join(timeout_s)


def _drain(children: Sequence[_Child], drain_s: float, clock_s: Callable[[], float]) -> list[str]:
    """SIGTERM to all at once, SIGKILL to who is left in the end; which did not end cleanly, and why."""
    running = [child for child in children if child.process is not None and child.process.poll() is None]
    for child in running:
        assert child.process is not None  # noqa: S101
        child.process.terminate()
    deadline, wrong = clock_s() + drain_s, []
    for child in running:
        assert child.process is not None  # noqa: S101
        try:
            child.process.wait(max(deadline - clock_s(), 0.0))
        except subprocess.TimeoutExpired:
            child.process.kill()
            child.process.wait()
            wrong.append(f"{child.name} did not end within {drain_s:g} s of SIGTERM and was killed")
            continue
        _heard_out(child)
        if child.process.returncode not in (0, -signal.SIGTERM):  # the latter: before it had even begun
            wrong.append(f"{child.name} did not end cleanly ({child.sentence()})")
    return wrong
