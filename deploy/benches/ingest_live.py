"""Live ingest on Prism, from Kafka to the example log, against the same join written row by row with Beam state.

Events per CPU-second of this process and Prism together, on a broker of its own, whose time does not count; runs of
both sides interleaved; medians. What a run costs that has nothing to read is measured too, and left out of the ratio.
Rocket's side writes features and a log; the peer stops at the label, and its labels are checked to be Rocket's.
"""

import resource
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from contracts.app import App, load_app
from contracts.errors import ContractError
from deploy.benches.peers.row_join import label_rows
from deploy.live.topics import make_run_topics
from deploy.local.kafka_server import KafkaServer
from flows import ingest_live
from nodes.clock import now_ms
from nodes.example_log import ExampleDirectory
from nodes.kafka_produce import EventTopics, replay
from nodes.kafka_url import parse_kafka_url
from nodes.produce import EventFile, Pacer, arrivals
from nodes.simulate import Faults, simulate

_PER_S, _DAY_S = 2_000, 86_400  # impressions a second of event time
_SETTINGS = {"labels": {"wait_s": 10, "dedupe_s": 10}, "ingest": {"disorder_s": 2, "shards": 1}}
_STREAMS = ("impressions", "clicks")


class Spent(NamedTuple):
    """Processor seconds of one run."""

    python_s: float
    prism_s: float

    @property
    def total_s(self) -> float:
        """Of both."""
        return self.python_s + self.prism_s


class _Topics(NamedTuple):
    urls: dict[str, str]
    events: int


def run(quick: bool) -> dict[str, Any]:  # noqa: FBT001  # the form of every bench
    """300k impressions and their clicks (20k when quick) against the peer on 6,000 (1,000 when quick)."""
    app, repeats = load_app("adsim", _SETTINGS), 1 if quick else 3
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # or the broker would outlive us
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server = KafkaServer(folder / "kafka", heap_mb=512)
        server.start()
        try:
            few = _filled(app, server.brokers, folder / "few", 1_000 if quick else 6_000)
            many = _filled(app, server.brokers, folder / "many", 20_000 if quick else 300_000)
            none = _filled(app, server.brokers, folder / "none", 0)
            _refuse_other_labels(app, few, folder)
            sides: dict[str, Callable[[Path], object]] = {
                "rocket": lambda out: _ingest(app, many, out),
                "rocket_nothing": lambda out: _ingest(app, none, out),
                "row_by_row": lambda _: label_rows(app, few.urls),
                "row_by_row_nothing": lambda _: label_rows(app, none.urls),
            }
            spent: dict[str, list[Spent]] = {side: [] for side in sides}
            wall_s: dict[str, list[float]] = {side: [] for side in sides}
            for repeat in range(repeats):
                for side, work in sides.items():
                    began_s = time.perf_counter()
                    spent[side].append(_measured(lambda: work(folder / f"{side}-{repeat}")))  # noqa: B023  # called at once
                    wall_s[side].append(time.perf_counter() - began_s)
        finally:
            server.stop()
    return _figures(spent, wall_s, {"rocket": many.events, "row_by_row": few.events}) | {"repeats": repeats}


def _figures(
    spent: Mapping[str, list[Spent]], wall_s: Mapping[str, list[float]], events: Mapping[str, int]
) -> dict[str, Any]:
    """Medians and the ratio, each side without what an empty run costs it.

    >>> spent = {"rocket": [Spent(2, 1)], "rocket_nothing": [Spent(1, 0)], "row_by_row": [Spent(1, 1)]}
    >>> spent |= {"row_by_row_nothing": [Spent(1, 0)]}
    >>> found = _figures(spent, {side: [1.0] for side in spent}, {"rocket": 1000, "row_by_row": 100})
    >>> found["events_per_cpu_s"], found["rocket_over_row_by_row"]
    ({'rocket': 500.0, 'row_by_row': 100.0}, 5.0)
    """
    total = {side: statistics.median(one.total_s for one in runs) for side, runs in spent.items()}
    net = {side: total[side] - total[f"{side}_nothing"] for side in events}
    rates = {side: events[side] / net[side] for side in events}
    prism = {
        side: statistics.median(one.prism_s for one in spent[side])
        - statistics.median(one.prism_s for one in spent[f"{side}_nothing"])
        for side in events
    }
    return {
        "events_per_cpu_s": rates,
        "events_per_cpu_s_with_start": {side: events[side] / total[side] for side in events},
        "rocket_over_row_by_row": rates["rocket"] / rates["row_by_row"],
        "cpu_us_an_event": {side: net[side] / events[side] * 1e6 for side in events},
        "of_it_prism_us": {side: prism[side] / events[side] * 1e6 for side in events},
        "events_per_s": {side: events[side] / statistics.median(wall_s[side]) for side in events},
        "empty_run_cpu_s": {side: total[f"{side}_nothing"] for side in events},
        "events": dict(events),
    }


def _filled(app: App, brokers: str, folder: Path, impressions: int) -> _Topics:
    """Topics of four partitions each, with so many simulated impressions and their clicks."""
    urls = make_run_topics(brokers, folder.name, app.config.kafka)
    urls = {stream: urls[stream] for stream in _STREAMS}
    if not impressions:
        return _Topics(urls, 0)
    labels, ingest = app.config.labels, app.config.ingest
    rates = Faults(disorder_s=ingest.disorder_s, wait_s=labels.wait_s, dedupe_s=labels.dedupe_s)
    simulate(folder, impressions=impressions, seed=1, days=impressions / _PER_S / _DAY_S, rates=rates)
    lines = arrivals(
        [EventFile(stream, folder / f"{stream}.ndjson") for stream in _STREAMS],
        time_min_ms=ingest.event_times_ms[0],
        time_max_ms=ingest.event_times_ms[1],
        max_line_bytes=app.config.kafka.max_message_bytes,
    )
    names = [parse_kafka_url(urls[stream]).topic for stream in _STREAMS]
    with EventTopics((brokers,), names, app.config.kafka, now_ms) as topics:
        events = replay(lines, topics, Pacer(None, lambda: time.monotonic_ns() // 1_000_000), threading.Event())
    return _Topics(urls, events)


def _ingest(app: App, topics: _Topics, out: Path) -> None:
    ingest_live.run(app, topics.urls["impressions"], topics.urls["clicks"], out, until="now")


def _refuse_other_labels(app: App, topics: _Topics, folder: Path) -> None:
    """Both sides once, which warms them up: they must give the same impressions the same labels."""
    _ingest(app, topics, folder / "same")
    log = ExampleDirectory(folder / "same" / "examples").read(0, app.schema_id)
    rocket = {
        (name, at): label
        for batch in log
        for name, at, label in batch.frame.select("impression_id", "event_time_ms", "label").iter_rows()
    }
    peer = label_rows(app, topics.urls)
    if rocket != peer:
        other = sum(peer.get(key) != label for key, label in rocket.items()) + len(peer.keys() - rocket.keys())
        raise ContractError(
            f"{other} of {len(rocket)} labels of the row-wise join differ from Rocket's; one of the two is wrong"
        )


def _measured(work: Callable[[], object]) -> Spent:
    """What this process spent, and its children that ended meanwhile: Prism."""
    own_s, before = time.process_time(), resource.getrusage(resource.RUSAGE_CHILDREN)
    work()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    children_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Spent(time.process_time() - own_s, children_s)
