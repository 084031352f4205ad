"""`rocket up`, `status` and `down`: real processes from the first start to the wiped folder."""

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource

from contracts.names import topic
from deploy.local.stack import Stack
from deploy.local.topics import plan_topics
from tests.commands import refused, rocket
from tests.kafka_broker import needs_kafka

_IMPRESSIONS = topic("impressions")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Of a stack that is down at the end, whatever became of the test."""
    needs_kafka()
    yield tmp_path / "stack, a"
    stack = Stack(tmp_path / "stack, a")
    stack.kafka.kill()
    stack.valkey.kill()


def _begin_up(folder: Path, *words: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "deploy.cli", "up", "--dir", str(folder), "--no-prism", "--json", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _up(folder: Path, *words: str) -> tuple[dict[str, Any], str]:
    """As a process of its own, which the servers outlive; returns its JSON and what it said."""
    with _begin_up(folder, *words) as process:
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1]), err


def _write(brokers: str, value: bytes) -> None:
    producer = KafkaProducer(bootstrap_servers=brokers, acks="all")
    producer.send(_IMPRESSIONS, value, partition=3)
    producer.flush(30)
    producer.close()


def _read(brokers: str) -> list[bytes]:
    consumer = KafkaConsumer(bootstrap_servers=brokers, enable_auto_commit=False)
    place = TopicPartition(_IMPRESSIONS, 3)
    consumer.assign([place])
    consumer.seek_to_beginning(place)
    count = consumer.end_offsets([place])[place]
    found: list[bytes] = []
    for _ in range(100):
        if len(found) >= count:
            break
        found += [record.value for batch in consumer.poll(200).values() for record in batch]
    consumer.close()
    return found


def _assert_topics_are_as_planned(brokers: str) -> None:
    admin = KafkaAdminClient(bootstrap_servers=brokers)
    plans = plan_topics()
    there = {row["name"]: len(row["partitions"]) for row in admin.describe_topics([plan.name for plan in plans])}
    found = admin.describe_configs([ConfigResource("TOPIC", plan.name) for plan in plans])["topic"]
    admin.close()
    assert there == {plan.name: plan.partitions for plan in plans}
    for plan in plans:
        assert {key: found[plan.name][key]["value"] for key in plan.config} == plan.config


def test_a_stack_lives_dies_heals_and_is_wiped(folder: Path) -> None:
    content, _ = _up(folder)
    brokers = content["kafka"]
    assert stat.S_IMODE((folder / "stack.json").stat().st_mode) == 0o600
    assert json.loads((folder / "stack.json").read_bytes()) == content
    assert content["prism"] is None
    _assert_topics_are_as_planned(brokers)
    _write(brokers, b"one")
    with redis.Redis.from_url(content["redis"]) as client:
        client.set("k", "v")

    said = rocket("status", "--dir", folder, "--json")
    assert (said.code, json.loads(said.out)["ok"]) == (0, True)
    assert [part["state"] for part in json.loads(said.out)["parts"]] == ["up", "up"]

    said = rocket("up", "--dir", folder, "--no-prism", "--partitions", "8", "--json")
    assert (said.code, said.out) == (1, "")
    line = said.err.splitlines()[-1]
    assert "impressions.v1 has 4 partitions, not 8" in line
    assert "--partitions 4" in line
    line = refused(rocket("up", "--dir", folder, "--no-prism", "--kafka-port", "1", "--json"))
    assert f"Kafka is up on port {brokers.rpartition(':')[2]}, not 1" in line

    os.kill(content["pids"]["kafka"], signal.SIGKILL)
    said = rocket("status", "--dir", folder)
    assert said.code == 1
    assert "rocket up" in said.out
    two = [_begin_up(folder) for _ in range(2)]  # at once
    told = [process.communicate(timeout=120) for process in two]
    assert [process.returncode for process in two] == [0, 0], told
    one, other = (json.loads(out.splitlines()[-1]) for out, _ in told)
    assert one == other
    assert (one["kafka"], one["redis"], one["pids"]["valkey"]) == (brokers, content["redis"], content["pids"]["valkey"])
    assert sum("Kafka had died and is up again" in err for _, err in told) == 1
    assert sum("Kafka is up already" in err for _, err in told) == 1
    _write(brokers, b"two")

    said = rocket("down", "--dir", folder, "--json")
    assert json.loads(said.out) == {"stopped": ["Kafka", "Valkey"], "wiped": False}
    assert "no stack is up" in refused(rocket("status", "--dir", folder))
    assert rocket("down", "--dir", folder).out == "nothing ran\n"

    again, _ = _up(folder)
    assert (again["kafka"], again["redis"]) == (brokers, content["redis"])
    assert _read(brokers) == [b"one", b"two"]
    with redis.Redis.from_url(again["redis"]) as client:
        assert client.get("k") == b"v"

    (folder / "logs" / "mine.txt").write_text("kept")
    assert rocket("down", "--dir", folder, "--wipe").code == 0
    assert [path.relative_to(folder) for path in folder.rglob("*")] == [Path("logs"), Path("logs/mine.txt")]


def test_without_java_nothing_starts_and_one_sentence_says_all_that_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    monkeypatch.setenv("HOME", str(tmp_path))
    line = refused(rocket("up", "--dir", tmp_path / "stack"))
    assert "no `java` on PATH: install Java 17 or newer" in line
    assert "no `mvn` on PATH: install Maven" in line
    assert not (tmp_path / "stack" / "stack.json").exists()
    assert not (tmp_path / "stack" / "valkey").exists()


def test_a_folder_without_a_stack_is_named(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    for words in (("status",), ("down",), ("down", "--wipe")):
        assert "no stack" in refused(rocket(*words, "--dir", tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["logs"]


def test_a_broken_stack_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "stack.json").write_text("{")
    assert "stack.json: is not JSON" in refused(rocket("status", "--dir", tmp_path))
