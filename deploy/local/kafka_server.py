"""A Kafka of our own for one folder: broker and controller in one JVM, on 127.0.0.1 alone."""

import secrets
import shutil
import socket
import string
import subprocess
from base64 import urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path

from kafka import KafkaAdminClient
from kafka.errors import KafkaError

from contracts.errors import StoreError
from deploy.local.daemon import Daemon, free_port
from deploy.local.java import FAST_START, find_java
from deploy.local.kafka_jars import find_jars

_TEMPLATES = Path(__file__).resolve().parents[1] / "kafka"
_ANSWER_MS = 5000


class KafkaServer(Daemon):
    """The Kafka of a folder; it outlives us, keeps its port and its data, and is found again.

    Args:
        folder: holds its data, configuration and record; made when missing.
        port: where it listens; None: where it did before, else a free one.
        log: of the broker; `kafka.log` in the folder when None. Its output before it can log goes to `….out`.
        heap_mb: of the JVM at most.
    """

    name = "Kafka"
    words = (" ERROR ", " FATAL ", "Exception", "Error:", "Error occurred")

    def __init__(self, folder: Path, *, port: int | None = None, log: Path | None = None, heap_mb: int = 512) -> None:
        super().__init__(folder, port=port, log=log)
        self._heap_mb = heap_mb

    @property
    def brokers(self) -> str:
        """`host:port` for clients."""
        return f"127.0.0.1:{self.port}"

    def answers(self) -> bool:
        """Whether it names its topics and is taken into its own cluster."""
        return broker_answers(self.port)

    def _prepared(self) -> Callable[[int], None]:
        java, jars = find_java(), find_jars()

        def begin(port: int) -> None:
            controller_port = free_port(frozenset({port}))
            jvm = [
                str(java), f"-Xmx{self._heap_mb}m", *FAST_START, f"-Drocket.log={self._log}",
                f"-Dlog4j2.configurationFile={_TEMPLATES / 'log4j2.properties'}", "-cp", f"{jars}/*",
            ]  # fmt: skip
            if not (self.folder / "data").is_dir():
                self._format(jvm, port, controller_port)
            self._configure("server.properties", port, controller_port, data="data")
            command = [*jvm, "kafka.Kafka", "server.properties"]
            self._spawn(command, log=self._log.with_suffix(".out"), port=port, controller_port=controller_port)

        return begin

    def _format(self, jvm: list[str], port: int, controller_port: int) -> None:
        """Format a folder beside, then rename: a start that is interrupted leaves no half of one."""
        shutil.rmtree(self.folder / "data.new", ignore_errors=True)
        self._configure("format.properties", port, controller_port, data="data.new")
        cluster = urlsafe_b64encode(b"\0" + secrets.token_bytes(15)).decode().rstrip("=")  # may not begin with a dash
        done = subprocess.run(  # noqa: S603  # the arguments are ours
            [*jvm, "kafka.tools.StorageTool", "format", "-t", cluster, "-c", "format.properties"],
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        if done.returncode != 0:
            told = " | ".join((done.stdout + done.stderr).strip().splitlines()[-3:])
            raise StoreError(f"{self.folder}: cannot be formatted for Kafka: {told[-600:]}")
        (self.folder / "data.new").rename(self.folder / "data")
        (self.folder / "format.properties").unlink()

    def _configure(self, name: str, port: int, controller_port: int, *, data: str) -> None:
        """`data` is relative to where it runs: a comma in the folder's name would make two folders of it."""
        template = string.Template((_TEMPLATES / "server.properties").read_text())
        (self.folder / name).write_text(template.substitute(port=port, controller_port=controller_port, data=data))


def broker_answers(port: int) -> bool:
    """Whether a broker on that port names its topics and is taken into its own cluster; at most about 10 s."""
    with socket.socket() as probe:  # cheap, and it says no without a word in anybody's log
        probe.settimeout(1)
        if probe.connect_ex(("127.0.0.1", port)) != 0:
            return False
    try:
        admin = KafkaAdminClient(
            bootstrap_servers=f"127.0.0.1:{port}", request_timeout_ms=_ANSWER_MS, bootstrap_timeout_ms=_ANSWER_MS
        )
        try:
            admin.list_topics()
            return bool(admin.describe_cluster()["brokers"])
        finally:
            admin.close()
    except (KafkaError, OSError):
        return False
