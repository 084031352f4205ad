"""The local stack of one folder: brought up, looked at, taken down.

DIR/kafka     the broker's data          DIR/stack.json  where everything listens, for this user's eyes only
DIR/valkey    published weights          DIR/logs        what they all say
DIR/flink     Flink's checkpoints, where it was asked for
"""

import contextlib
import fcntl
import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from contracts.errors import RocketError, StoreError
from deploy.local.daemon import Daemon, write_private
from deploy.local.flink import FlinkJobServer
from deploy.local.java import find_java
from deploy.local.kafka_jars import find_jars, find_maven, jars_cache
from deploy.local.kafka_server import KafkaServer
from deploy.local.topics import make_topics
from deploy.local.valkey_server import ValkeyServer
from flows.prism import find_prism
from nodes.valkey_server import find_server

_LOCK_S = 120.0
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a stack, as it is now."""

    name: str
    state: str  #: up, hung (it runs, and does not answer) or down; ready for what is a file
    where: str
    pid: int | None = None


class Stack:
    """The stack of a folder.

    Args:
        folder: holds everything; made by `up`.
        kafka_port: None: where it was, else a free one.
        redis_port: likewise.
    """

    def __init__(self, folder: Path, *, kafka_port: int | None = None, redis_port: int | None = None) -> None:
        self.folder = folder.absolute()
        logs = self.folder / "logs"
        self.kafka = KafkaServer(self.folder / "kafka", port=kafka_port, log=logs / "kafka.log")
        self.valkey = ValkeyServer(self.folder / "valkey", port=redis_port, log=logs / "valkey.log")
        self.flink = FlinkJobServer(self.folder / "flink", log=logs / "flink.log")

    @property
    def _servers(self) -> tuple[Daemon, ...]:
        """Those that were ever asked for."""
        return (self.kafka, self.valkey, *((self.flink,) if self.flink.facts else ()))

    @property
    def begun(self) -> bool:
        """Whether anything was ever started here."""
        return self.folder.is_dir() and (self.file.exists() or any(server.facts for server in self._servers))

    @property
    def file(self) -> Path:
        """Where what runs is written down."""
        return self.folder / "stack.json"

    def up(
        self,
        *,
        partitions: int | None = None,
        prism: bool = True,
        flink: bool = False,
        say: Say = lambda _: None,
    ) -> dict[str, Any]:
        """Start what does not run, make the topics that are missing, write stack.json; returns its content.

        Args:
            partitions: of impressions and clicks; None: as they are, else four.
            prism: False leaves Prism out.
            flink: True starts a Flink job server, too; one that ran before is started again anyway.
            say: told what happens, a line each.

        Raises:
            RocketError: a part is missing or does not come up; what runs by then stays up.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"{self.folder}: cannot hold a stack ({error}); give a writable folder") from error
        with self._alone():
            _refuse_missing()
            find_jars()
            runner = _prism() if prism else None
            for server in dict.fromkeys((*self._servers, *((self.flink,) if flink else ()))):
                began = time.monotonic()
                known = server.facts.get("pid") is not None and self.file.exists()
                if not server.start():
                    say(f"{server.name} is up already on port {server.port}")
                else:
                    up = "had died and is up again" if known else "is up"
                    say(f"{server.name} {up} on port {server.port} after {time.monotonic() - began:.1f} s")
            content: dict[str, Any] = {
                "kafka": self.kafka.brokers,
                "redis": self.valkey.url,
                "prism": str(runner) if runner is not None else None,
                "pids": {"kafka": self.kafka.pid, "valkey": self.valkey.pid},
                "logs": str(self.folder / "logs"),
            }
            if self.flink.facts:
                content["flink"] = {"endpoint": self.flink.endpoint, "rest": self.flink.rest}
                content["pids"]["flink"] = self.flink.pid
            write_private(self.file, content)
            content["topics"] = make_topics(self.kafka.brokers, partitions)
            write_private(self.file, content)
        return content

    def status(self) -> list[Part]:
        """How each part is now; nothing is changed.

        Raises:
            StoreError: no stack was brought up in the folder.
        """
        content = self._content()
        parts = [
            self._part(self.kafka, content["kafka"]),
            self._part(self.valkey, f"127.0.0.1:{self.valkey.port}"),
        ]
        if content.get("flink"):
            parts.append(self._part(self.flink, self.flink.endpoint))
        if content.get("prism"):
            there = Path(content["prism"]).is_file()
            parts.append(Part("Prism", "ready" if there else "missing", content["prism"]))
        return parts

    def down(self, *, wipe: bool = False, say: Say = lambda _: None) -> list[str]:
        """Stop both servers cleanly; returns the names of those that ran.

        Args:
            wipe: remove what they stored, too.
            say: told what happens, a line each.

        Raises:
            StoreError: there is no such folder.
        """
        if not self.begun:
            raise StoreError(f"{self.folder}: no stack here; name the --dir that rocket up was given")
        ended = []
        with self._alone():
            for server in self._servers:
                if server.stop():
                    ended.append(server.name)
                    say(f"{server.name} is down")
            self.file.unlink(missing_ok=True)
            if wipe:
                self._wipe()
                say(f"{self.folder} is wiped")
        return ended

    def _wipe(self) -> None:
        """Remove what `up` made and nothing else."""
        for server in self._servers:
            if server.facts:
                shutil.rmtree(server.folder)
        for log in (self.folder / "logs").glob("*"):
            if log.name.startswith(("kafka.", "valkey.", "flink.")):
                log.unlink()
        (self.folder / "stack.lock").unlink()
        for folder in (self.folder / "logs", self.folder):
            with contextlib.suppress(OSError):  # somebody keeps something there
                folder.rmdir()

    def _part(self, server: Daemon, where: str) -> Part:
        pid = server.pid
        state = "down" if pid is None else "up" if server.answers() else "hung"
        return Part(server.name, state, where, pid)

    def _content(self) -> dict[str, Any]:
        try:
            found = json.loads(self.file.read_bytes())
        except FileNotFoundError:
            raise StoreError(
                f"{self.folder}: no stack is up here; start one with rocket up --dir {self.folder}"
            ) from None
        except ValueError as error:
            raise StoreError(f"{self.file}: is not JSON ({error}); remove it and run rocket up again") from error
        return dict(found)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """One `up` or `down` at a time in a folder."""
        with (self.folder / "stack.lock").open("w") as lock:
            deadline = time.monotonic() + _LOCK_S
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except OSError:
                    if time.monotonic() > deadline:
                        raise StoreError(
                            f"{self.folder}: another rocket up or down is at work there; wait for it"
                        ) from None
                time.sleep(0.05)
            yield


def _refuse_missing() -> None:
    """Say all that is missing at once, before anything starts."""
    missing = []
    for look in (find_java, find_server, *(() if jars_cache().is_dir() else (find_maven,))):
        try:
            look()
        except RocketError as error:
            missing.append(str(error))
    if missing:
        raise StoreError("; and ".join(missing))


def _prism() -> Path:
    try:
        return find_prism()
    except RocketError as error:
        raise StoreError(f"{error}; or leave it out with --no-prism") from error


def told(parts: list[Part]) -> list[dict[str, Any]]:
    """Parts as JSON tells them."""
    return [asdict(part) for part in parts]
