"""Commands of Rocket as processes of their own: started, watched, asked to end, and what they said."""

import contextlib
import json
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from contracts.errors import StoreError

_STOP_S = 30.0


class Child:
    """One `rocket` command, running while the `with` block runs.

    Args:
        words: the verb and its options.
        log: a file that takes what it says on stderr; stdout goes beside it, to `.out`.
        metrics_port: where it tells /readyz; None: it has none.
    """

    def __init__(self, words: Sequence[str | Path], log: Path, metrics_port: int | None = None) -> None:
        self.words, self.log, self._port = [str(word) for word in words], log, metrics_port
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Child":
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as told, self.log.with_suffix(".out").open("wb") as said:
            self._process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", "deploy.cli", *self.words], stdout=said, stderr=told, start_new_session=True
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process = self._process
        if process is not None and process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_S)
            if process.poll() is None:
                process.kill()
                process.wait()

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None  # noqa: S101
        return self._process.pid

    def alive(self) -> None:
        """Check that it runs.

        Raises:
            StoreError: it has ended; says what it said last.
        """
        assert self._process is not None  # noqa: S101
        code = self._process.poll()
        if code is not None:
            raise StoreError(f"`rocket {self.words[0]}` ended with {code}: {self._last_words()}")

    def wait_ready(self, timeout_s: float) -> None:
        """Wait until /readyz says 200.

        Raises:
            StoreError: it ended, or took longer.
        """
        deadline = time.monotonic() + timeout_s
        while not self._ready():
            self.alive()
            if time.monotonic() > deadline:
                raise StoreError(f"`rocket {self.words[0]}` is not ready after {timeout_s:g} s: {self._last_words()}")
            time.sleep(0.1)

    def stop(self, timeout_s: float = _STOP_S) -> tuple[float, dict[str, Any] | None]:
        """SIGTERM; how many seconds it took to end, and its figures where it was asked for them with `--json`.

        Raises:
            StoreError: it did not end with 0.
        """
        self.alive()
        assert self._process is not None  # noqa: S101
        began = time.monotonic()
        self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise StoreError(
                f"`rocket {self.words[0]}` goes on {timeout_s:g} s after SIGTERM: {self._last_words()}"
            ) from None
        took_s = time.monotonic() - began
        if code:
            raise StoreError(f"`rocket {self.words[0]}` ended with {code} on SIGTERM: {self._last_words()}")
        lines = self.log.with_suffix(".out").read_text(errors="replace").splitlines()
        told = next((line for line in reversed(lines) if line.startswith("{")), None)
        return took_s, json.loads(told) if told and "--json" in self.words else None

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/readyz", timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _last_words(self) -> str:
        said = self.log.read_text(errors="replace").splitlines()[-3:]
        return " | ".join(line.strip() for line in said)[-600:] or f"it said nothing; see {self.log}"
