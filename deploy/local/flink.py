"""A Flink of our own for one folder: Beam's job server with Flink inside, one JVM."""

import shutil
import socket
import string
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from contracts.sections import Flink
from deploy.local.daemon import Daemon, free_port, port_taken
from deploy.local.java import find_java
from deploy.local.maven import find_jars, rocket_cache

_FLINK = Path(__file__).resolve().parents[1] / "flink"
_REST_PORTS = 16  # jobs at a time: each has a Flink of its own
_DRIVER = "org.apache.beam.runners.flink.FlinkJobServerDriver"
_WARN = ("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-Dorg.slf4j.simpleLogger.showDateTime=true")


class FlinkJobServer(Daemon):
    """The job server of a folder; it outlives us, keeps its port, and is found again.

    Its jobs run inside it, so their state ends with it: what goes on after a restart is the flow's own position.

    Args:
        folder: holds its configuration, checkpoints and record; made when missing.
        port: where jobs are given to it; None: where it was before, else a free one.
        log: its warnings; `flink.log` in the folder when None.
        heap_mb: of the JVM at most; it takes about 300 MB more.
        flink: names the versions of Flink and of the job server.
    """

    name = "Flink"

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        log: Path | None = None,
        heap_mb: int = 512,
        flink: Flink | None = None,
    ) -> None:
        super().__init__(folder, port=port, log=log or folder / "flink.log")
        self._heap_mb, self._flink = heap_mb, flink or Flink()

    @property
    def endpoint(self) -> str:
        """`host:port` for --job-endpoint."""
        return f"127.0.0.1:{self.port}"

    @property
    def rest(self) -> str:
        """`host:from-to` for --flink-rest: where its jobs are listed and cancelled."""
        first = int(self.facts["rest_port"])
        return f"127.0.0.1:{first}-{first + _REST_PORTS - 1}"

    def answers(self) -> bool:
        """Whether it takes connections."""
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def _prepared(self) -> Callable[[int], None]:
        java, jars = find_java(), find_flink_jars(self._flink)
        return lambda port: self._launch(java, jars, port)

    def _launch(self, java: Path, jars: Path, port: int) -> None:
        conf = self.folder / "conf"
        conf.mkdir(exist_ok=True)
        shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)  # of jobs that ended with the last server
        config = string.Template((_FLINK / "config.yaml").read_text().partition("\n")[2])
        artifact_port, first = free_port(frozenset({port})), _free_range(_REST_PORTS, port)
        filled = config.substitute(folder=self.folder, rest_ports=f"{first}-{first + _REST_PORTS - 1}")
        (conf / "config.yaml").write_text(filled)
        command = [
            str(java), f"-Xmx{self._heap_mb}m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
            "-Djava.net.preferIPv4Stack=true", *_WARN, "-cp", f"{jars}/*", _DRIVER, "--flink-master", "[local]",
            "--job-host", "127.0.0.1", "--job-port", str(port), "--artifact-port", str(artifact_port),
            "--expansion-port", "-1", "--artifacts-dir", str(self.folder / "artifacts"), "--flink-conf-dir", str(conf),
        ]  # fmt: skip
        self._spawn(command, port=port, artifact_port=artifact_port, rest_port=first)


def _free_range(length: int, but: int) -> int:
    """The first of that many loopback ports in a row that nobody listens on."""
    while True:
        first = free_port()
        ports = range(first, first + length)
        if but not in ports and not any(port_taken(port) for port in ports):
            return first


def flink_jars(flink: Flink) -> Path:
    """Where the jars of these versions lie once Maven has brought them, per user."""
    digest = sha256((_FLINK / "pom.xml").read_bytes()).hexdigest()[:8]
    return rocket_cache() / f"flink-{flink.version}-beam-{flink.job_server}-{digest}"


def find_flink_jars(flink: Flink) -> Path:
    """The folder of the jars: from the cache, else Maven brings them (150 MB), once; others wait meanwhile.

    Raises:
        StoreError: there is no Maven, or it fails.
    """
    versions = (f"-Dflink.version={flink.version}", f"-Djob-server.version={flink.job_server}")
    return find_jars(
        "Flink", _FLINK / "pom.xml", flink_jars(flink), proof="beam-runners-flink-*.jar", settings=versions
    )
