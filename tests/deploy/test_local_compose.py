"""deploy/compose.yaml brings up what `rocket up` does: the same topics, the same broker settings, the same Valkey."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

import deploy
from deploy.local.kafka_jars import kafka_version
from deploy.local.topics import EVENT_PARTITIONS, plan_topics
from nodes.valkey_server import config

_DEPLOY = Path(deploy.__file__).parent
_PLACES = {
    "listeners",
    "advertised.listeners",
    "controller.quorum.voters",
    "listener.security.protocol.map",
    "log.dirs",
}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.safe_load((_DEPLOY / "compose.yaml").read_text())


def test_its_topics_are_those_of_the_code(compose: dict[str, Any]) -> None:
    service = compose["services"]["topics"]
    (script,) = service["command"]
    assert service["environment"]["PARTITIONS"] == f"${{ROCKET_PARTITIONS:-{EVENT_PARTITIONS}}}"
    made = {
        name: (EVENT_PARTITIONS if partitions == '"$$PARTITIONS"' else int(partitions), retention, size)
        for name, partitions, retention, size in re.findall(r"^make (\S+) (\S+) (\S+) (\S+)$", script, re.MULTILINE)
    }
    assert made == {
        plan.name: (plan.partitions, plan.config["retention.ms"], plan.config["max.message.bytes"])
        for plan in plan_topics()
    }
    assert all(set(plan.config) == {"retention.ms", "max.message.bytes"} for plan in plan_topics())
    assert '--config "retention.ms=$$3" --config "max.message.bytes=$$4"' in script


def test_its_broker_has_the_settings_of_ours(compose: dict[str, Any]) -> None:
    environment = compose["services"]["kafka"]["environment"]
    theirs = {
        key.removeprefix("KAFKA_").lower().replace("_", "."): str(value)
        for key, value in environment.items()
        if key.startswith("KAFKA_") and key != "KAFKA_HEAP_OPTS"
    }
    lines = (_DEPLOY / "kafka" / "server.properties").read_text().splitlines()
    ours = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert {key: theirs[key] for key in ours.keys() - _PLACES} == {key: ours[key] for key in ours.keys() - _PLACES}
    assert theirs.keys() == ours.keys()
    assert environment["KAFKA_HEAP_OPTS"] == "-Xmx512m"


def test_its_images_are_the_versions_that_the_code_runs(compose: dict[str, Any]) -> None:
    images = {name: service["image"] for name, service in compose["services"].items()}
    kafka = f"apache/kafka:{kafka_version()}"
    assert images == {"kafka": kafka, "topics": kafka, "valkey": "valkey/valkey:9"}


def test_its_ports_are_open_to_this_machine_alone(compose: dict[str, Any]) -> None:
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert ports == ["127.0.0.1:9092:9092", "127.0.0.1:6379:6379"]


def test_its_valkey_forgets_as_little_as_ours(compose: dict[str, Any]) -> None:
    (script,) = compose["services"]["valkey"]["command"]
    (printed,) = re.findall(r"printf (.*?) > /data/valkey.conf", script, re.DOTALL)
    theirs = set(shlex.split(printed.replace("\\\n", ""))) - {"%s\\n"}
    ours = set(config(1, "").splitlines()) - {"port 1", "bind 127.0.0.1", "requirepass ", "dir .", "daemonize no", ""}
    assert theirs == ours | {"dir /data", "requirepass $$VALKEY_PASSWORD"}
