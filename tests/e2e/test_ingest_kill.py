"""Kill -9 of `rocket ingest` at random points: readers see whole segments, a rerun completes to the same bytes."""

import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from contracts.app import load_app
from flows import ingest
from nodes.example_log import ExampleDirectory
from nodes.simulate import simulate
from tests.flows.ingest_files import fates

pytestmark = pytest.mark.e2e
SETTINGS = {"ingest": {"segment_rows": 32, "chunk_rows": 2_048}}
APP = load_app("adsim", SETTINGS)
SEGMENTS = 6_000 // 32


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("events")
    simulate(folder, impressions=6_000, seed=5)
    return folder


@pytest.fixture(scope="module")
def whole(events: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody killed."""
    out = tmp_path_factory.mktemp("whole") / "out"
    ingest.run(APP, [events / "impressions.ndjson"], [events / "clicks.ndjson"], out)
    return out


class Reader(threading.Thread):
    """Reads the log from its beginning again and again, as a trainer that just started would."""

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self.folder, self.stop, self.reads, self.rows = folder, threading.Event(), 0, 0
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            while not self.stop.is_set():
                row = 0
                for batch in ExampleDirectory(self.folder).read(0, APP.schema_id):
                    if batch.first_row != row:
                        raise AssertionError(f"row {row} is missing")
                    row = batch.next_row
                if row < self.rows:
                    raise AssertionError(f"the log shrank from {self.rows} to {row}")
                self.rows, self.reads = row, self.reads + 1
                time.sleep(0.03)
        except BaseException as error:
            self.failure = error


def start(events: Path, out: Path) -> subprocess.Popen[bytes]:
    sets = [word for key, value in SETTINGS["ingest"].items() for word in ("--set", f"ingest.{key}={value}")]
    return subprocess.Popen(
        [
            sys.executable, "-m", "deploy.cli", "ingest", "--impressions", str(events / "impressions.ndjson"),
            "--clicks", str(events / "clicks.ndjson"), "--out", str(out), *sets,
        ],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def kill_at(child: subprocess.Popen[bytes], out: Path, segments: int, delay_s: float) -> None:
    """SIGKILL once that many segments stand (-1: once the run has begun), and `delay_s` more have passed."""
    begun = time.monotonic()
    while child.poll() is None and time.monotonic() - begun < 120:
        stand = len(list((out / "examples").glob("segment-*.arrow"))) if (out / "examples").exists() else -2
        if stand >= segments:
            time.sleep(delay_s)
            break
        time.sleep(0.001)
    child.send_signal(signal.SIGKILL)
    child.wait(30)


def kills_and_a_rerun(events: Path, whole: Path, out: Path, points: list[tuple[int, float]]) -> list[int]:
    """Kill run after run into `out`, let one finish, compare; the segments that stood after each kill."""
    reader, stood = Reader(out / "examples"), []
    reader.start()
    for segments, delay_s in points:
        kill_at(start(events, out), out, segments, delay_s)
        stood.append(len(list((out / "examples").glob("segment-*.arrow"))))
    figures = ingest.run(APP, [events / "impressions.ndjson"], [events / "clicks.ndjson"], out)
    time.sleep(0.05)
    reader.stop.set()
    reader.join(30)
    assert reader.failure is None, reader.failure
    assert reader.reads > 0
    kept = {path.name: path.read_bytes() for path in (whole / "examples").iterdir()}
    assert {path.name: path.read_bytes() for path in (out / "examples").iterdir()} == kept
    assert reader.rows == figures["examples"]
    assert fates(out).equals(fates(whole))
    assert not list(out.rglob(".*"))
    return stood


def test_four_kills_at_random_points_and_a_rerun(events, whole, tmp_path):
    draw = random.Random()
    points = [
        (-1, draw.uniform(0, 0.5)),
        (draw.randint(1, 60), 0.0),
        (draw.randint(1, 120), draw.uniform(0, 0.05)),
        (draw.randint(121, SEGMENTS - 10), 0.0),
    ]
    stood = kills_and_a_rerun(events, whole, tmp_path / "out", points)
    assert max(stood) > 0, "no kill came while segments were written"


@pytest.mark.slow
def test_twenty_kills_at_random_points_and_a_rerun(events, whole, tmp_path):
    draw = random.Random()
    points = sorted((draw.randint(-1, SEGMENTS - 5), draw.uniform(0, 0.01)) for _ in range(20))
    kills_and_a_rerun(events, whole, tmp_path / "out", points)
