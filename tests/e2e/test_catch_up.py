"""A backlog whose partitions are hours apart is caught up with exactly, in memory that does not grow with it."""

import gc
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import psutil
import pytest

from contracts.app import App, load_app
from deploy.live.process_watch import ProcessWatch, robust_slope
from flows import audit, ingest_live
from flows.ingest_live import Cluster
from nodes.example_log import ExampleDirectory
from nodes.simulate import Faults, simulate
from tests.kafka_broker import KafkaBroker
from tests.live_topics import produce

pytestmark = pytest.mark.e2e
#: Hours of event time pass in seconds: slots as short as live ones would be timers without end.
SETTINGS = {
    "labels": {"wait_s": 60, "dedupe_s": 120},
    "ingest": {"disorder_s": 10, "shards": 2},
}
RATES = Faults(late=0.01, duplicates=0.02, orphans=0.02, malformed=0.002, disorder_s=10, wait_s=60, dedupe_s=120)


@dataclass(frozen=True)
class CaughtUp:
    """One catch-up, and what it took."""

    ended: bool
    counted: dict  # of the audit
    events: int  # that are no dead letters
    seconds: float
    rss_mb: float  # this process and its runner at most, above what they held at the start
    rss_mb_per_million: float  # growth over the last two thirds, by events read


def hours_apart(line: bytes, number: int, count: int) -> int:
    """Of four partitions: 0 holds half of all the time, 1 what is left of the first hours, 2 of the last, 3 nothing."""
    if sum(line[-40:]) % 2:
        return 0
    return 1 if number < count * 2 // 3 else 2


def backlog(kafka: KafkaBroker, folder: Path, impressions: int, hours: float) -> dict[str, str]:
    """Topics of the simulated hours, written before anybody reads."""
    simulate(folder, impressions=impressions, seed=17, days=hours / 24, rates=RATES)
    files = {stream: folder / f"{stream}.ndjson" for stream in ("impressions", "clicks")}
    topics = {stream: kafka.create(kafka.name(stream), partitions=4) for stream in files}
    produce(kafka.brokers, topics, files, hours_apart)
    for path in files.values():
        path.unlink()
    return {stream: kafka.url(topic) for stream, topic in topics.items()}


def catch_up(app: App, urls: dict[str, str], out: Path, cluster: Cluster) -> CaughtUp:
    """Follow the backlog to its end, watching what this process and its runner hold."""
    read: list[tuple[float, int]] = []
    gc.collect()
    began_mb, began_s = psutil.Process().memory_info().rss / 1e6, time.monotonic()
    with ProcessWatch("ingest", 0.5) as watch:
        figures = ingest_live.run(
            app,
            **urls,
            out=out,
            cluster=cluster,
            until="now",
            on_progress=lambda _, done: read.append((watch.at_s, done)),
        )
    seconds = time.monotonic() - began_s
    held = watch.samples.filter(pl.col("name").is_in(["ingest", "prism"]))
    sums = held.group_by("at_s").agg(pl.col("rss_mb").sum()).sort("at_s")
    events = np.interp(sums["at_s"].to_numpy(), *np.array(read).T) / 1e6
    late = events >= events[-1] / 3
    log = ExampleDirectory(out / "examples").read(0, app.schema_id)
    return CaughtUp(
        counted=audit.run(app, urls["impressions"], urls["clicks"], out, log),
        events=read[-1][1],
        seconds=seconds,
        rss_mb=float(sums["rss_mb"].max()) - began_mb,
        rss_mb_per_million=robust_slope(events[late].tolist(), sums["rss_mb"].to_numpy()[late].tolist()),
        ended=figures["ended"],
    )


def told(name: str, done: CaughtUp) -> None:
    """Figures for who runs pytest with `-s`."""
    rows = {"events": done.events, "seconds": done.seconds, "events_per_s": done.events / done.seconds}
    rows |= {"rss_mb": done.rss_mb, "rss_mb_per_million": done.rss_mb_per_million}
    sys.stdout.write(f"{name} {json.dumps(rows)}\n")


def test_a_backlog_hours_apart_is_caught_up_with_exactly(kafka: KafkaBroker, tmp_path: Path):
    app = load_app("adsim", SETTINGS)
    done = catch_up(app, backlog(kafka, tmp_path / "events", 40_000, 4), tmp_path / "out", Cluster())
    told("prism", done)
    assert done.ended
    assert done.counted["exact"], done.counted["wrong"]
    assert done.counted["examples"] > 35_000


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("runner", ["prism", "flink"])
def test_a_million_events_hours_apart_are_caught_up_with_in_bounded_state(
    kafka: KafkaBroker, tmp_path: Path, runner: str, request: pytest.FixtureRequest
):
    cluster = Cluster()
    if runner == "flink":
        server = request.getfixturevalue("flink")
        cluster = Cluster(runner="flink", job_endpoint=server.endpoint, flink_rest=server.rest)
    app = load_app("adsim", SETTINGS | {"flink": {"checkpoint_s": 2}})
    done = catch_up(app, backlog(kafka, tmp_path / "events", 950_000, 4), tmp_path / "out", cluster)
    told(runner, done)
    assert done.counted["exact"], done.counted["wrong"]
    assert done.events > 1_000_000
    # A million events are 300 MB as JSON: state holds the minutes that wait, not the hours that were read.
    assert done.rss_mb_per_million < 150
