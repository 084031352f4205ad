"""Simulated traffic in real topics, skewed as a catch-up meets it, and `rocket ingest` on it as a process."""

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl
import psutil

from contracts.app import App, load_app
from contracts.sections import Kafka
from nodes.example_log import ExampleDirectory
from nodes.kafka_client import producer
from nodes.simulate import Faults, simulate

WAIT_S, DEDUPE_S, DISORDER_S = 10, 20, 2
SETTINGS = {
    "labels": {"wait_s": WAIT_S, "dedupe_s": DEDUPE_S},
    "ingest": {"disorder_s": DISORDER_S, "shards": 2, "chunk_rows": 2048},
    "live": {"backlog_rows": 300, "slot_s": 1, "idle_s": 1.5, "position_every_s": 0.5},
}
SETS = [
    word
    for section, values in SETTINGS.items()
    for name, value in values.items()
    for word in ("--set", f"{section}.{name}={value}")
]


def live_app() -> App:
    return load_app("adsim", SETTINGS)


def traffic(folder: Path, impressions: int, per_s: int) -> dict[str, Path]:
    """Files of impressions and clicks with the faults that the simulator plants."""
    rates = Faults(disorder_s=DISORDER_S, wait_s=WAIT_S, dedupe_s=DEDUPE_S)
    simulate(folder, impressions=impressions, seed=5, days=impressions / per_s / 86_400, rates=rates)
    return {stream: folder / f"{stream}.ndjson" for stream in ("impressions", "clicks")}


def skewed(line: bytes, number: int, count: int) -> int:
    """Of four partitions: 0 holds all of the time, 1 the first third, 2 the last third, 3 nothing."""
    third = number * 3 // count
    if hash_of(line) % 2 or third == 1:
        return 0
    return 1 if third == 0 else 2


def hash_of(line: bytes) -> int:
    return sum(line[-40:])


def produce(
    brokers: str, topics: dict[str, str], files: dict[str, Path], place: Callable[[bytes, int, int], int]
) -> None:
    """Each line as a message, in the order of its file."""
    writer = producer((brokers,), Kafka())
    for stream, topic in topics.items():
        lines = files[stream].read_bytes().split(b"\n")[:-1]
        for number, line in enumerate(lines):
            writer.send(topic, value=line, partition=place(line, number, len(lines)))
            if number % 10_000 == 0:
                writer.flush()
        writer.flush()
    writer.close()


class LiveIngest:
    """`rocket ingest` on two topics, as a process."""

    def __init__(self, urls: dict[str, str], out: Path, *words: str) -> None:
        self.out, self._said = out, (out.parent / f"{out.name}.err").open("ab")
        command = [sys.executable, "-m", "deploy.cli", "ingest", "--out", str(out), *SETS, "--json", *words]
        command += [word for stream, url in urls.items() for word in (f"--{stream}", url)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self._said, text=True)

    @property
    def rows(self) -> int:
        """Of the example log, so far."""
        return ExampleDirectory(self.out / "examples").rows() if (self.out / "examples").exists() else 0

    def until(self, done: Callable[["LiveIngest"], bool], timeout_s: float = 240) -> None:
        end = time.monotonic() + timeout_s
        while not done(self):
            assert self.process.poll() is None, f"it ended: {self.said()}"
            assert time.monotonic() < end, f"{self.rows} rows after {timeout_s} s: {self.said()}"
            time.sleep(0.1)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self._end()

    def kill_prism(self) -> None:
        """SIGKILL of its runner."""
        for child in psutil.Process(self.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):  # one that helps to start it ends meanwhile
                if child.name() == "prism":
                    child.kill()

    def stop(self) -> tuple[int, float, dict]:
        """SIGTERM: the exit code, how long it took, and the figures it told."""
        begun = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        told = self._end()
        return self.process.returncode, time.monotonic() - begun, json.loads(told.splitlines()[-1]) if told else {}

    def said(self) -> str:
        return (self.out.parent / f"{self.out.name}.err").read_text()[-2000:]

    def _end(self) -> str:
        told, _ = self.process.communicate(timeout=60)
        self._said.close()
        return told


def rows_of(out: Path, app: App) -> pl.DataFrame:
    return pl.concat([batch.frame for batch in ExampleDirectory(out / "examples").read(0, app.schema_id)])
