"""A server that outlives the command that started it, known again by what it left in its folder."""

import contextlib
import json
import os
import random
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from contracts.errors import StoreError

_FACTS = "server.json"
_TRIES = 3
_LEFT_RUNNING: list["subprocess.Popen[bytes]"] = []  # Python complains of children that are forgotten alive


class Daemon(ABC):
    """A server of one folder, started by one process and found, judged or ended by another.

    A process is ours when its number, its start time and its working folder are those on record: numbers are
    used again, and nobody else's process is ever signalled.
    """

    name: str  #: what sentences call it
    #: a line of its log that has one of them tells why it failed
    words: tuple[str, ...] = ("ERROR", "FATAL", "Exception", "Error:", "in use")

    def __init__(self, folder: Path, *, port: int | None = None, log: Path | None = None) -> None:
        self.folder = folder.absolute()
        self._asked_port = port
        self._log = (log or self.folder / f"{self.name.lower()}.log").absolute()
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> bool:
        """Start it unless it runs, and wait until it answers; returns whether it was started now.

        Raises:
            StoreError: something that it needs is missing, the port is taken, or it does not come up.
        """
        if self.process() is not None:
            if self._asked_port not in (None, self.port):
                raise StoreError(
                    f"{self.name} is up on port {self.port}, not {self._asked_port}; stop it first: rocket down"
                )
            self.wait_ready()
            return False
        begin = self._prepared()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._log.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"{self.folder}: cannot hold {self.name}'s data ({error}); give a writable folder"
            ) from error
        known = self._asked_port or self.facts.get("port")
        for left in range(_TRIES - 1, -1, -1):
            port = int(known or free_port())
            if known and port_taken(port):
                raise StoreError(
                    f"port {port} on 127.0.0.1 is taken by another process; stop that one, or give {self.name} another"
                )
            begin(port)
            try:
                self.wait_ready()
            except StoreError as error:
                self.kill()
                if known or not left or "in use" not in str(error):
                    raise
            else:
                break
        return True

    @abstractmethod
    def _prepared(self) -> Callable[[int], None]:
        """Find what it needs, and return what starts its process on a port by `_spawn`."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether it does its work now: asked as a client would, never only the port."""

    def wait_ready(self, timeout_s: float = 60.0) -> None:
        """Wait until it answers.

        Raises:
            StoreError: it ended, or did not within the time; says what its log says.
        """
        deadline = time.monotonic() + timeout_s
        while self._runs():
            if self.answers():
                return
            if time.monotonic() > deadline:
                raise StoreError(
                    f"{self.name} on port {self.port} runs but does not answer within {timeout_s:.0f} s; "
                    f"stop it and start it anew{self._last_words()}"
                )
            time.sleep(0.02)
        raise StoreError(f"{self.name} did not start on port {self.port}{self._last_words()}")

    def restart(self) -> None:
        """Stop it cleanly if it runs, and start it again on the same port and data."""
        self.stop()
        self.start()

    def _last_words(self) -> str:
        logs = [path for path in (self._log, self._log.with_suffix(".out")) if path.exists()]
        said = [line.strip() for path in logs for line in path.read_text(errors="replace").splitlines()]
        told = " | ".join([line for line in said if any(word in line for word in self.words)][-3:])
        return f": {told[-600:]}" if told else f"; see {self._log}"

    @property
    def facts(self) -> dict[str, Any]:
        """What is on record: `port`, and `pid` and `started` once it ran; empty when nothing is."""
        try:
            found = json.loads((self.folder / _FACTS).read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise StoreError(f"{self.folder / _FACTS}: cannot be read ({error}); remove it and try again") from error
        if not isinstance(found, dict):
            raise StoreError(f"{self.folder / _FACTS}: is not a JSON object; remove it and try again")
        return found

    @property
    def port(self) -> int:
        """Where it listens, or listened last.

        Raises:
            StoreError: it never ran here.
        """
        try:
            return int(self.facts["port"])
        except (KeyError, TypeError, ValueError):
            raise StoreError(f"{self.folder}: no {self.name} was started here; run rocket up") from None

    @property
    def pid(self) -> int | None:
        """Its process while it runs, else None."""
        process = self.process()
        return process.pid if process is not None else None

    def process(self) -> psutil.Process | None:
        """The process on record, if it still is that one and not a zombie."""
        facts = self.facts
        try:
            process = psutil.Process(int(facts["pid"]))
            if facts["started"] == _started(process) and Path(process.cwd()) == self.folder.resolve():
                return process
        except (KeyError, TypeError, ValueError, OSError, psutil.Error):
            pass  # nothing on record, nothing of that number, somebody else's, or a zombie, which has no folder
        return None

    def _runs(self) -> bool:
        """Whether it runs; of a child of ours the system itself tells."""
        return self._child.poll() is None if self._child is not None else self.process() is not None

    def stop(self, grace_s: float = 15.0) -> bool:
        """SIGTERM, and SIGKILL after the grace; what it stored stays. Returns whether there was one to stop."""
        return self._end(grace_s)

    def kill(self) -> bool:
        """SIGKILL, as a fault would; returns whether there was one to kill."""
        return self._end(0)

    def _end(self, grace_s: float) -> bool:
        process = self.process()
        with contextlib.suppress(psutil.NoSuchProcess):
            if process is not None and grace_s:
                process.terminate()
                with contextlib.suppress(psutil.TimeoutExpired):
                    self._gone(process, grace_s)
            if process is not None and process.is_running():
                process.kill()
                self._gone(process, 30)
        if self._child is not None:
            if self._child.poll() is None:  # on a machine short of everything its record could not be read
                self._child.kill()
            self._child.wait()
            _LEFT_RUNNING.remove(self._child)
            self._child = None
        return process is not None

    def _gone(self, process: psutil.Process, wait_s: float) -> None:
        if self._child is None:
            process.wait(wait_s)
            return
        try:
            self._child.wait(wait_s)  # ours to reap
        except subprocess.TimeoutExpired:
            raise psutil.TimeoutExpired(wait_s) from None

    def _spawn(
        self, command: list[str], *, feed: bytes = b"", log: Path | None = None, **facts: Any
    ) -> "subprocess.Popen[bytes]":
        """Start it in its folder, in a session of its own (Ctrl-C is for us), and put it on record.

        Args:
            command: its words.
            feed: goes to its stdin, where others cannot read it.
            log: takes what it says; `_log` when None. Of the start before, one is kept.
            facts: go on record.
        """
        log = log or self._log
        for old in {log, self._log}:
            if old.exists():
                old.replace(old.with_name(f"{old.name}.before"))
        with log.open("ab") as sink:
            child = subprocess.Popen(  # noqa: S603  # the arguments are ours
                command, stdin=subprocess.PIPE, stdout=sink, stderr=sink, cwd=self.folder, start_new_session=True
            )
        if child.stdin is not None:
            with contextlib.suppress(BrokenPipeError), child.stdin as pipe:
                pipe.write(feed)
        _LEFT_RUNNING.append(child)
        self._child = child
        with contextlib.suppress(psutil.Error):
            facts["started"] = _started(psutil.Process(child.pid))
        self._record({**facts, "pid": child.pid})
        return child

    def _record(self, facts: dict[str, Any]) -> None:
        write_private(self.folder / _FACTS, facts)


def _started(process: psutil.Process) -> float:
    """When a process began: in ticks since boot where they are told, for setting the clock moves epoch times."""
    try:
        return float(Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return float(process.create_time())


def write_private(path: Path, content: dict[str, Any]) -> None:
    """Write JSON whole or not at all, for this user's eyes only."""
    made = path.with_name(f"{path.name}.{os.getpid()}")
    with os.fdopen(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(content, file, indent=1)
        file.write("\n")
    made.replace(path)


def free_port(but: frozenset[int] = frozenset()) -> int:
    """A loopback port that nobody listens on, below those that systems hand to clients.

    A client that knocks at a dead server's port from that range could be given the very port, and hold it.
    """
    choose = random.SystemRandom()
    for _ in range(1000):
        port = choose.randrange(15_000, 32_000)
        if port not in but and not port_taken(port):
            return port
    raise StoreError("no free port between 15000 and 32000 on 127.0.0.1; stop some servers, or name a port")


def port_taken(port: int) -> bool:
    """Whether a server could not listen on that loopback port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False
