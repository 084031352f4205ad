"""Prism, Beam's runner for one machine: where its binary is, and its life as our child process."""

import fcntl
import importlib.metadata
import logging
import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from contracts.errors import ContractError, StoreError

_LOG = logging.getLogger(__name__)
_MODULE = "github.com/apache/beam/sdks/v2/go/cmd/prism"
_START_S, _BUILD_S, _TRIES = 20.0, 1800.0, 3
#: While a worker answers, a thread of Prism for each bundle spins (2.77): with no more of them than bundles, what the
#: answer needs waits 10 ms for its turn. On two cores with two threads a bundle took twice the time and three times
#: the processor.
_THREADS = 4
#: Runs a command until it ends or our end of its stdin closes, which the system does however we end, SIGKILL included.
_LIFELINE = """
exec 3<&0
"$@" 3<&- </dev/null & child=$!
{ cat <&3 >/dev/null; kill -9 $child; } 2>/dev/null & watch=$!
exec 3<&-
trap 'kill $child 2>/dev/null' TERM INT
echo $child
exec >&-
wait $child; code=$?
kill $watch 2>/dev/null
exit $code
"""


def beam_version() -> str:
    """The version of Apache Beam that is installed, which Prism's must equal.

    Raises:
        ContractError: Beam is not installed.
    """
    try:
        return importlib.metadata.version("apache-beam")
    except importlib.metadata.PackageNotFoundError:
        raise ContractError("Prism needs Apache Beam here: pip install 'rocket-ctr[ingest]'") from None


def prism_cache() -> Path:
    """Where a Prism of Beam's version lies once it was built or fetched, per user."""
    return Path.home() / ".cache" / "rocket" / f"prism-{beam_version()}" / "prism"


def find_prism(*, build: bool = True) -> Path:
    """The Prism binary: on PATH, in the cache, else built with Go into the cache, else fetched by Beam itself.

    Building takes two to three minutes, once a user and Beam version; another process that needs it meanwhile waits.

    Args:
        build: False looks only, and neither builds nor fetches.

    Raises:
        ContractError: there is none, and it could not be made.
    """
    if on_path := shutil.which("prism"):
        return Path(on_path)
    cached = prism_cache()
    if cached.is_file():
        return cached
    if not build:
        raise ContractError(
            f"no Prism here: put prism of Beam {beam_version()} on PATH or at {cached}, or install Go and "
            "run rocket up, which builds it"
        )
    cached.parent.mkdir(parents=True, exist_ok=True)
    with (cached.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not cached.is_file():
            _make(cached)
    return cached


def _make(cached: Path) -> None:
    """Build it, or have Beam fetch it; it appears under its name whole."""
    go = shutil.which("go")
    with tempfile.TemporaryDirectory(dir=cached.parent) as folder:
        if go is not None:
            _LOG.warning("building Prism of Beam %s with Go, once; this takes two or three minutes", beam_version())
            made = _built(go, Path(folder))
        else:
            _LOG.warning("no Go here to build Prism with: Beam fetches its binary of %s, once", beam_version())
            made = _fetched(Path(folder))
        made.chmod(0o755)
        made.rename(cached)


def _built(go: str, folder: Path) -> Path:
    package = f"{_MODULE}@v{beam_version()}"
    try:
        done = subprocess.run(  # noqa: S603  # the arguments are ours
            ["/usr/bin/env", f"GOBIN={folder}", go, "install", package],
            capture_output=True,
            text=True,
            timeout=_BUILD_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ContractError(f"go install {package} took more than {_BUILD_S:.0f} s; run it by hand") from None
    if done.returncode != 0:
        told = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        raise ContractError(
            f"Prism cannot be built: go install {package} failed ({told}); mend that, or put prism on PATH"
        )
    return folder / "prism"


def _fetched(folder: Path) -> Path:
    from apache_beam.options.pipeline_options import PipelineOptions  # noqa: PLC0415  # heavy, and rarely needed
    from apache_beam.runners.portability.prism_runner import PrismJobServer  # noqa: PLC0415

    try:
        server = PrismJobServer(PipelineOptions([]))
        fetched = server.local_bin(server.path_to_binary())
        return Path(shutil.copy(fetched, folder / "prism"))
    except Exception as error:
        raise ContractError(
            f"Prism is not on PATH, Go is not installed, and Beam cannot fetch it ({error}); install Go 1.23 or newer, "
            "or put prism on PATH"
        ) from error


class Prism:
    """A Prism of our own, as a job server on a free port; it ends when we end, even by SIGKILL.

    Prism itself chooses the addresses that it listens on: the job port is open on every interface while it runs.
    """

    def __init__(self, *, log: Path | None = None) -> None:
        """Start one and wait until it answers, about 0.1 s.

        Args:
            log: a file that its warnings are added to; None keeps none.

        Raises:
            ContractError: there is no Prism binary and none could be made.
            StoreError: it does not come up.
        """
        binary = find_prism()
        for _ in range(_TRIES):
            port = _free_port()
            self.endpoint = f"127.0.0.1:{port}"
            self._child = _start(binary, port, log)
            self.pid = _told_pid(self._child)  #: of Prism itself, not of what holds its lifeline
            if _answers(self._child, port):
                return
            self.stop()  # another process may have taken the port between our look and its start
        told = f"see {log}" if log is not None else f"try {binary} --job_port {port}"
        raise StoreError(f"{binary}: Prism does not come up on {self.endpoint}; {told}")

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._child.poll() is None

    def ended(self, within_s: float) -> bool:
        """Whether it has ended by itself, or does within some seconds."""
        try:
            self._child.wait(within_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def stop(self) -> None:
        """End it and reap it; twice is once."""
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                pipe.close()  # the lifeline
        try:
            self._child.wait(5)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()

    def __enter__(self) -> "Prism":
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.stop()


def _start(binary: Path, port: int, log: Path | None) -> "subprocess.Popen[bytes]":
    threads = f"GOMAXPROCS={max(_THREADS, os.cpu_count() or 1)}"
    prism = [
        "/usr/bin/env",
        threads,
        str(binary),
        f"--job_port={port}",
        "--serve_http=false",
        "--log_level=warn",
        "--log_kind=text",
    ]
    command = ["/bin/sh", "-c", _LIFELINE, "prism", *prism]
    with Path("/dev/null").open("ab") if log is None else log.open("ab") as told:
        return subprocess.Popen(  # noqa: S603  # the arguments are ours
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=told,
            start_new_session=True,
        )


def _told_pid(child: "subprocess.Popen[bytes]") -> int:
    line = child.stdout.readline() if child.stdout is not None else b""
    return int(line or -1)


def _answers(child: "subprocess.Popen[bytes]", port: int) -> bool:
    until = time.monotonic() + _START_S
    while child.poll() is None and time.monotonic() < until:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return child.poll() is None
        time.sleep(0.02)
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
