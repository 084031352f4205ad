"""What the end-to-end tests share."""

import os
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from contracts.sections import Flink
from tests.bad_events import Ingested, ingest_bad_events

if TYPE_CHECKING:
    from deploy.local.flink import FlinkJobServer


@pytest.fixture(scope="session")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Ingested:
    return ingest_bad_events(tmp_path_factory.mktemp("bad"))


@pytest.fixture
def empty_valkey(valkey_url: str) -> None:
    """For tests whose processes publish under the app's own name, as others before them did."""
    import redis

    with redis.Redis.from_url(valkey_url) as client:
        client.flushall()


@pytest.fixture(scope="session")
def flink(tmp_path_factory: pytest.TempPathFactory) -> Iterator["FlinkJobServer"]:
    """A real Flink behind Beam's job server, for the whole session; each test takes a job name of its own."""
    from deploy.local.flink import FlinkJobServer, flink_jars

    missing = [] if shutil.which("java") else ["java"]
    missing += [] if flink_jars(Flink()).is_dir() or shutil.which("mvn") else ["mvn"]
    if missing:
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI needs {' and '.join(missing)} on PATH for a real Flink")
        pytest.skip(f"no real Flink here: {' and '.join(missing)} not on PATH")
    server = FlinkJobServer(tmp_path_factory.mktemp("flink"), heap_mb=384)
    server.start()
    yield server
    server.kill()
