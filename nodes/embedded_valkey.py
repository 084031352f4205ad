"""A Valkey of our own for one folder: started on a free loopback port, its data kept in that folder.

Who opens the folder first owns the server and stops it at the end; who opens it meanwhile is a guest. The owner is
whoever holds the lock on `owner.lock`, which the system releases when that process dies: the next one to open the
folder then adopts a server that was left running.
"""

import contextlib
import fcntl
import json
import os
import secrets
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from contracts.errors import StoreError
from nodes.valkey_server import alive, config, feed, find_server, free_port, kill

_ADDRESS = "valkey.json"
_START_S = 15.0
_STOP_S = 15.0
_TRIES = 5


class EmbeddedValkey:
    """The Valkey of a folder, running while the `with` block runs.

    Args:
        folder: holds its append-only file; made when missing.
        create: False: a folder that does not exist is an error.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, EmbeddedValkey(Path(folder)) as valkey:
    ...     valkey.url.startswith("redis://:"), valkey.owned
    (True, True)
    """

    def __init__(self, folder: Path, *, create: bool = True) -> None:
        self.folder = folder.absolute()
        self._create = create
        self._lock: IO[bytes] | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._address: dict[str, Any] = {}

    @property
    def url(self) -> str:
        """Where it listens, with its password."""
        return f"redis://:{self._address['password']}@127.0.0.1:{self._address['port']}/0"

    @property
    def pid(self) -> int:
        """The server's process."""
        return int(self._address["pid"])

    @property
    def owned(self) -> bool:
        """Whether this one stops the server at the end."""
        return self._lock is not None

    def __enter__(self) -> "EmbeddedValkey":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the server, or find the one that runs.

        Raises:
            StoreError: it cannot be started; says what its log says.
        """
        if not self.folder.is_dir() and not self._create:
            raise StoreError(
                f"{self.folder}: no such folder; give the folder that `rocket train` published to, or redis://..."
            )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = (self.folder / "owner.lock").open("ab")
        except OSError as error:
            raise StoreError(f"{self.folder}: cannot hold a Valkey's data ({error}); give a writable folder") from error
        deadline = time.monotonic() + _START_S
        try:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    if self._running():
                        lock.close()
                        return
                else:
                    if not self._running():
                        self._launch(find_server())
                    self._lock = lock
                    return
                if time.monotonic() > deadline:
                    raise StoreError(
                        f"{self.folder}: another process holds this folder, but its Valkey does not answer; "
                        f"stop that process and try again"
                    )
                time.sleep(0.02)
        except BaseException:
            lock.close()
            raise

    def stop(self) -> None:
        """Stop the server if this one owns it: it saves first; a guest only lets go."""
        if self._lock is None:
            return
        try:
            if self._child is not None:
                self._child.terminate()
                try:
                    self._child.wait(_STOP_S)
                except subprocess.TimeoutExpired:
                    self._child.kill()
                    self._child.wait()
            else:
                self._end_adopted()
            (self.folder / _ADDRESS).unlink(missing_ok=True)
        finally:
            self._child = None
            self._lock.close()
            self._lock = None

    def _end_adopted(self) -> None:
        """A server that another process left behind: it answered with our folder's password, so it is ours."""
        with self._client() as client:
            try:
                client.shutdown()
            except redis.RedisError:
                return
        deadline = time.monotonic() + _STOP_S
        while time.monotonic() < deadline and alive(self.pid):
            time.sleep(0.02)

    def _client(self) -> Any:
        return redis.Redis.from_url(self.url, socket_timeout=2, socket_connect_timeout=2, retry=Retry(NoBackoff(), 0))

    def _running(self) -> bool:
        """Whether the server of the address file answers to its password."""
        try:
            address = json.loads((self.folder / _ADDRESS).read_bytes())
            self._address = {"pid": int(address["pid"]), "port": int(address["port"]), "password": address["password"]}
        except (OSError, ValueError, KeyError, TypeError):
            return False
        with self._client() as client:
            try:
                return bool(client.ping())
            except redis.exceptions.BusyLoadingError:
                return True
            except redis.RedisError:
                return False

    def _launch(self, binary: Path) -> None:
        """Start the server on a free port; another one may take that port first, so try some."""
        said = ""
        for _ in range(_TRIES):
            port, password = free_port(), secrets.token_hex(16)
            log = self.folder / "valkey.log"
            start = log.stat().st_size if log.exists() else 0
            with log.open("ab") as sink:
                child = subprocess.Popen(  # noqa: S603
                    [str(binary), "-"],
                    stdin=subprocess.PIPE,
                    stdout=sink,
                    stderr=sink,
                    cwd=self.folder,
                    start_new_session=True,  # Ctrl-C ends us; we then end it, after the last publish
                )
            with contextlib.suppress(BrokenPipeError):
                feed(child, config(port, password))
            self._address = {"pid": child.pid, "port": port, "password": password}
            if self._answers(child):
                self._child = child
                self._write_address()
                return
            kill(child)
            said = log.read_bytes()[start:].decode(errors="replace")
            if "in use" not in said:
                break
        last = [line for line in said.splitlines() if line.strip()][-3:]
        raise StoreError(f"{self.folder}: its Valkey did not start: {' | '.join(last)[-600:] or 'no word in its log'}")

    def _answers(self, child: subprocess.Popen[bytes]) -> bool:
        deadline = time.monotonic() + _START_S
        with self._client() as client:
            while time.monotonic() < deadline and child.poll() is None:
                try:
                    client.ping()
                except redis.RedisError:
                    time.sleep(0.01)
                else:
                    return child.poll() is None
        return False

    def _write_address(self) -> None:
        """Whole or not at all, and for this user's eyes only."""
        made = self.folder / f"{_ADDRESS}.{os.getpid()}"
        with os.fdopen(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(self._address, file)
        made.replace(self.folder / _ADDRESS)
