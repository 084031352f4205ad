"""The same topics on every runner give the same example log, row by row and in the same order (law 4)."""

import uuid
from pathlib import Path
from zlib import crc32

import polars as pl
import pytest

from contracts.app import App, load_app
from deploy.local.flink import FlinkJobServer
from flows import ingest, ingest_live
from flows.flink import jobs
from flows.ingest_live import Cluster
from nodes.kafka_client import producer
from nodes.ledger import read_fates
from nodes.simulate import Faults, simulate
from tests.flows.ingest_files import example_rows
from tests.kafka_broker import KafkaBroker

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
IMPRESSIONS = 3_000
RATES = Faults(late=0.01, duplicates=0.02, orphans=0.02, malformed=0.002)


@pytest.fixture(scope="module")
def app() -> App:
    # Hours of backlog pass in seconds: slots as long as a live app's would be timers without end.
    live = {"slot_s": 600, "max_lead_s": 7200, "position_every_s": 1}
    return load_app("adsim", {"live": live, "flink": {"checkpoint_s": 0.3}})


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("events")
    simulate(folder, impressions=IMPRESSIONS, seed=23, days=0.25, rates=RATES)
    return folder


def produced(kafka: KafkaBroker, events: Path, stream: str, app: App, *, partitions: int) -> str:
    """The file as a topic: lines keep their order, by a hash of them over all partitions but an empty last one."""
    topic = kafka.create(f"{stream}-{uuid.uuid4().hex[:8]}", partitions=partitions)
    used = max(1, partitions - 1)
    client = producer([kafka.brokers], app.config.kafka)
    for line in (events / f"{stream}.ndjson").read_bytes().splitlines():
        client.send(topic, value=line, partition=crc32(line[:40]) % used)
    client.flush()
    client.close()
    return kafka.url(topic)


@pytest.fixture(scope="module", params=[1, 4], ids=["one partition", "four, one empty"])
def topics(request, kafka: KafkaBroker, events: Path, app: App) -> tuple[int, str, str]:
    partitions = request.param
    streams = ("impressions", "clicks")
    return partitions, *(produced(kafka, events, stream, app, partitions=partitions) for stream in streams)


def fates(out: Path) -> pl.DataFrame:
    columns = ["stream", "origin", "line", "fate", "reason", "outcome"]
    return read_fates(out / "fates").select(columns).unique().sort(columns[:3])


def test_every_runner_gives_the_same_log(topics, events: Path, app: App, flink: FlinkJobServer, tmp_path: Path):
    partitions, impressions, clicks = topics
    clusters = {
        "embedded": Cluster(runner="embedded"),
        "prism": Cluster(runner="prism"),
        "flink": Cluster(runner="flink", job_endpoint=flink.endpoint, flink_rest=flink.rest),
    }
    figures = {
        name: ingest_live.run(app, impressions, clicks, tmp_path / name, cluster=cluster, until="now")
        for name, cluster in clusters.items()
    }
    rows = {name: example_rows(tmp_path / name, app) for name in clusters}
    assert rows["embedded"].height > 0.9 * IMPRESSIONS
    for name in ("prism", "flink"):
        assert rows[name].equals(rows["embedded"]), name
        assert fates(tmp_path / name).equals(fates(tmp_path / "embedded")), name
        counted = ("impressions_read", "clicks_read", "examples", "sampled_out", "late", "duplicate", "orphan")
        assert {key: figures[name][key] for key in counted} == {key: figures["embedded"][key] for key in counted}
    assert [job for job in jobs(flink.rest) if not job.ended] == []
    if partitions == 1:  # a topic of one partition is the file
        ingest.run(app, [events / "impressions.ndjson"], [events / "clicks.ndjson"], tmp_path / "files")
        assert rows["embedded"].equals(example_rows(tmp_path / "files", app))
