"""`rocket produce`: what it says, what it refuses, and how it is stopped."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts.names import topic
from contracts.sections import Kafka
from nodes.kafka_client import end_offsets
from tests.commands import refused, rocket

DATA = Path(__file__).parents[1] / "data" / "adsim"
FILES = ("--impressions", DATA / "good.impressions.ndjson", "--clicks", DATA / "good.clicks.ndjson")
FAST = ("--set", "kafka.connect_timeout_s=0.5")


@pytest.fixture(scope="module")
def brokers(kafka) -> Iterator[str]:
    for stream in ("impressions", "clicks"):
        kafka.create(topic(stream), partitions=2)
    yield f"kafka://{kafka.brokers}"
    for stream in ("impressions", "clicks"):
        kafka.delete(topic(stream))


def test_it_replays_files_and_gives_its_figures(brokers):
    said = rocket("produce", *FILES, "--to", brokers, "--json")
    figures = json.loads(said.out.splitlines()[-1])
    lines = [len(path.read_bytes().splitlines()) for path in FILES[1::2]]
    assert (said.code, said.out.splitlines()[0]) == (0, f"ctr.impressions.v1: {lines[0]:,} records")
    assert figures["sent"] == {"ctr.impressions.v1": lines[0], "ctr.clicks.v1": lines[1]}
    assert (figures["records"], figures["stopped"]) == (sum(lines), False)


def test_sigterm_ends_it_cleanly(brokers, tmp_path):
    for name in ("impressions", "clicks"):
        (tmp_path / f"{name}.ndjson").write_bytes((DATA / f"good.{name}.ndjson").read_bytes())
    before = end_offsets(brokers.removeprefix("kafka://"), topic("impressions"), Kafka())
    words = ["produce", "--events", str(tmp_path), "--to", brokers, "--speed", "0.01", "--from-now", "--json"]
    running = subprocess.Popen(
        [sys.executable, "-m", "deploy.cli", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while end_offsets(brokers.removeprefix("kafka://"), topic("impressions"), Kafka()) == before:
        assert running.poll() is None
        time.sleep(0.2)
    began = time.monotonic()
    running.send_signal(signal.SIGTERM)
    out, err = running.communicate(timeout=20)
    assert (running.returncode, time.monotonic() - began < 10) == (0, True), err
    figures = json.loads(out.splitlines()[-1])
    assert figures["stopped"]
    assert sum(figures["sent"].values()) == figures["records"] > 0


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--to", "kafka://127.0.0.1:1", *FILES, *FAST), "no broker answers"),
        (("--to", "127.0.0.1:1", *FILES), "is no Kafka URL"),
        (("--to", "kafka://127.0.0.1:1/topic", *FILES), "names a topic where only brokers belong"),
        (("--to", "kafka://127.0.0.1:1"), "give either --events DIR"),
        (("--to", "kafka://127.0.0.1:1", *FILES, "--speed", "fast"), "--speed fast: is no rate"),
        (("--to", "kafka://127.0.0.1:1", *FILES, "--speed", "0"), "--speed 0: is no rate"),
    ],
)
def test_what_cannot_work_is_one_sentence(words, why):
    assert why in refused(rocket("produce", *words))


def test_a_missing_topic_and_a_missing_file_are_one_sentence(brokers, kafka, tmp_path):
    assert "cannot be read" in rocket("produce", "--impressions", tmp_path / "absent", "--to", brokers).err
    kafka.delete(topic("clicks"))
    assert "ctr.clicks.v1: no such topic" in refused(rocket("produce", *FILES, "--to", brokers))
    kafka.create(topic("clicks"))
