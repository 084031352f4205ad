"""Fixtures that every test may use."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from contracts.app import App, load_app

if TYPE_CHECKING:
    from tests.kafka_broker import KafkaBroker

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def adsim() -> App:
    return load_app("adsim")


@pytest.fixture(scope="session")
def kuairand() -> App:
    return load_app("kuairand")


@pytest.fixture(scope="session")
def kuairand_dir() -> Path:
    """The real log; optional for users, a must with CI=true."""
    folder = ROOT.parent / "shared" / "data" / "kuairand"
    if not (folder / "log_0425_0430.parquet").is_file():
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI needs the KuaiRand log at {folder}")
        pytest.skip("no KuaiRand log here; give it with ../shared/data/kuairand")
    return folder


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("ROCKET_"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def valkey_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Valkey for the whole session; each test takes a model name of its own."""
    from nodes.embedded_valkey import EmbeddedValkey

    with EmbeddedValkey(tmp_path_factory.mktemp("valkey")) as valkey:
        yield valkey.url


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator["KafkaBroker"]:
    """A real Kafka for the whole session; each test takes topic names of its own, and none kills it."""
    from tests.kafka_broker import KafkaBroker, needs_kafka

    needs_kafka()
    broker = KafkaBroker(tmp_path_factory.mktemp("kafka"))
    yield broker
    broker.remove()


@pytest.fixture
def own_kafka(tmp_path: Path) -> Iterator[Callable[[], "KafkaBroker"]]:
    """Starts a Kafka of the test's own, which it may kill, stop and start again."""
    from tests.kafka_broker import KafkaBroker, needs_kafka

    needs_kafka()
    started: list[KafkaBroker] = []

    def start() -> KafkaBroker:
        started.append(KafkaBroker(tmp_path / f"kafka-{len(started)}"))
        return started[-1]

    yield start
    for broker in started:
        broker.remove()
