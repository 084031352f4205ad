"""The whole loop, live: events into Kafka, weights out to Valkey, requests answered, and a count at the end.

sender ─▶ topics ─▶ rocket run (ingest ─▶ example log ─▶ train) ─▶ Valkey ─▶ rocket serve ◀─▶ asker
             └────────────── audit: every event and example again, by the rules alone ─────────────┘
"""

import contextlib
import itertools
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from contracts.app import App
from contracts.errors import StoreError
from deploy.live.asker import Asker, asked_figures, ids_only, write_catalogue
from deploy.live.children import Child
from deploy.live.sender import Sender
from deploy.live.topics import make_run_topics
from deploy.live.traffic import moved_to, prepare
from deploy.local.daemon import free_port, port_taken
from flows import audit
from flows.live_report import write_live_report
from flows.progress import Progress
from flows.run_folder import RunFolder
from flows.versions import listed
from flows.watch_memory import PeakMemory
from nodes.clock import now_ms
from nodes.example_log import ExampleDirectory
from nodes.freshness import read_versions, summed
from nodes.source import read_events
from nodes.weight_stores import open_weights

#: What a demo sets over the app: short waits, so that a minute shows the loop turn many times.
LIVE = (
    "labels.wait_s=10",
    "labels.dedupe_s=60",
    "ingest.disorder_s=2",
    "ingest.shards=1",  # one core's work: a slot costs per shard
    "live.idle_s=10",  # a traffic that stalls for less is waited for
    "publish.every_s=1.5",  # one that the gate holds leaves less than 5 s between two versions
    "publish.ttl_s=60",  # of versions that come every 2 s, a day's would fill gigabytes
    "publish.gate.window_rows=1024",
    "train.checkpoint={every_s = 10}",
    "serving.max_age_s=60",
)
REQUESTS_PER_S = 50
CANDIDATES = 20
_TMAX_MS = 1000
_LEAD_S = 4.0  # from the moving of event times until the first event leaves
_READY_S = 60.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What a live demo is to show."""

    seconds: float = 120.0
    per_s: float = 2200.0  #: impressions
    seed: int = 1
    runner: str = "prism"
    drain_s: float = 60.0  #: from the last event until the log must stand still, beside what waits explain


def run(
    app: App, out: Path, stack: dict[str, Any], plan: Plan, sets: Sequence[str], progress: Progress
) -> dict[str, Any]:
    """Run it on a stack that is up; returns the summary that it writes beside the report and the ledger.

    Args:
        app: with `LIVE` and `sets` laid over it.
        out: the run's folder.
        stack: what `rocket up` wrote.
        plan: how long, and how much.
        sets: what the commands are given with `--set`.
        progress: told how far it is.

    Raises:
        RocketError: a part of it failed; says which, and what it said last.
    """
    folder, brokers = RunFolder(out), stack["kafka"]
    folder.begin({"app": app.name, "live": {"seconds": plan.seconds, "per_s": plan.per_s, "seed": plan.seed}})
    urls = make_run_topics(brokers, f"demo-{now_ms():x}", app.config.kafka)
    progress.stage("simulate")
    files = prepare(app, folder.events, seconds=plan.seconds, per_s=plan.per_s, seed=plan.seed)
    shown = pl.concat(read.frame for read in read_events(files["impressions"], app.impressions, app, "impressions"))
    write_catalogue(shown, app, out / "catalogue.parquet")
    asks = round((plan.seconds + 30) * REQUESTS_PER_S)
    lines = ids_only(shown.head(20_000), app, asks, CANDIDATES, _TMAX_MS, plan.seed)
    given = [word for each in sets for word in ("--set", each)]
    with PeakMemory() as memory, contextlib.ExitStack() as children:
        loop, server = _start(app, folder, stack, urls, plan, given, children)
        for child in (loop, server):
            child.wait_ready(_READY_S)
        moved = moved_to(app, files, folder.events / "live", now_ms() + round((_LEAD_S + plan.seconds / 15) * 1000))
        with Asker(urls["requests"], urls["responses"], app.config.kafka, lines, REQUESTS_PER_S) as asker:
            with Sender(app, moved, urls) as sender:
                _watch(sender, (loop, server), folder, plan, progress)
            progress.stage("drain")
            _drain(app, folder, (loop, server), plan.drain_s)
            asked = asker.finish()
        stopped = {"run_s": loop.stop()[0], "serve_s": server.stop()[0]}
    progress.stage("audit")
    asked.write_parquet(out / "requests.parquet")
    log = ExampleDirectory(folder.examples).read(0, app.schema_id)
    found = audit.run(
        app,
        urls["impressions"],
        urls["clicks"],
        folder.ingest,
        log,
        checkpoints=folder.checkpoints,
        ledger=folder.ledger,
    )
    with open_weights(stack["redis"], app.name) as store:
        held = [one for one in listed(store)["held"] if one["at_ms"] >= (sender.first_ms or 0)]
    summary = _summary(app, folder, sender, found, asked, stopped) | {"peak_rss_mb": memory.mb, "held": held}
    folder.write_json("summary.json", summary)
    write_live_report(folder, app, asked)
    return summary


def _start(
    app: App,
    folder: RunFolder,
    stack: dict[str, Any],
    urls: dict[str, str],
    plan: Plan,
    given: list[str],
    children: contextlib.ExitStack,
) -> tuple[Child, Child]:
    """`rocket run` and `rocket serve`, started at once."""
    about = ["--app", str(app.folder), "--weights", stack["redis"], *given, "--json"]
    logs, ports = folder.root / "logs", _free_ports()
    events = ["--impressions", urls["impressions"], "--clicks", urls["clicks"], "--out", str(folder.root)]
    asked = [
        "--requests",
        urls["requests"],
        "--responses",
        urls["responses"],
        "--group",
        urls["requests"].split("/")[-1],
    ]
    items = ["--catalogue", str(folder.root / "catalogue.parquet"), "--refresh-s", "0.5"]
    runner = ["--runner", plan.runner]
    if plan.runner == "flink":
        runner += ["--job-endpoint", stack["flink"]["endpoint"], "--flink-rest", stack["flink"]["rest"]]
    loop = ["run", *events, *runner, "--metrics-port", str(ports[0]), *about]
    server = ["serve", *asked, *items, "--metrics-port", str(ports[1]), *about]
    return (
        children.enter_context(Child(loop, logs / "run.log", ports[0])),
        children.enter_context(Child(server, logs / "serve.log", ports[1])),
    )


def _free_ports() -> tuple[int, int]:
    """Of the trainer's metrics, whose next one is for ingest's; and of the scorer's."""
    trainer = next(port for port in iter(free_port, None) if not port_taken(port + 1))
    return trainer, free_port(frozenset({trainer, trainer + 1}))


def _watch(sender: Sender, children: Sequence[Child], folder: RunFolder, plan: Plan, progress: Progress) -> None:
    """Tell what goes by until all has been sent; a part that ends meanwhile ends the demo."""
    expected = round(plan.seconds * plan.per_s)
    progress.stage("live", expected)
    while not sender.wait(1.0):
        for child in children:
            child.alive()
        versions = read_versions(folder.versions)
        note = f"version {versions[-1].version}, {versions[-1].after_wait_s:.1f} s after wait" if versions else ""
        progress.advance(min(sender.sent["impressions"], expected), expected, note)


def _drain(app: App, folder: RunFolder, children: Sequence[Child], drain_s: float) -> None:
    """Wait until nothing more comes into the log, and the trainer has learnt what it can of it.

    Raises:
        StoreError: it goes on for longer than a wait can explain.
    """
    log, labels = ExampleDirectory(folder.examples), app.config.labels
    still_s = app.config.live.idle_s + app.config.ingest.disorder_s + 4 * app.config.live.slot_s + 2
    rows, since = log.rows(), time.monotonic()
    deadline = time.monotonic() + labels.wait_s + still_s + drain_s
    while time.monotonic() - since < labels.wait_s + still_s:
        time.sleep(0.25)
        for child in children:
            child.alive()
        if (now := log.rows()) != rows:
            rows, since = now, time.monotonic()
        if time.monotonic() > deadline:
            raise StoreError(f"{folder.examples}: still grows after the traffic ended; see {folder.root / 'logs'}")


def _summary(
    app: App, folder: RunFolder, sender: Sender, found: dict[str, Any], asked: pl.DataFrame, stopped: dict[str, float]
) -> dict[str, Any]:
    versions = read_versions(folder.versions)
    fresh, answers = summed(versions), asked_figures(asked)
    span_s = ((sender.last_ms or 0) - (sender.first_ms or 0)) / 1000
    while_sent = [one.created_ms for one in versions if one.created_ms <= (sender.last_ms or 0)]
    gaps = [(new - old) / 1000 for old, new in itertools.pairwise(while_sent)]
    return {
        "app": app.name,
        "schema_id": app.schema_id,
        "live": {
            "seconds": span_s,
            "impressions_per_s": sender.sent["impressions"] / span_s if span_s else 0.0,
            "freshness_after_wait_s_p50": fresh["freshness_after_wait_s_p50"],
            "freshness_after_wait_s_p99": fresh["freshness_after_wait_s_p99"],
            "gate_wait_s_p50": fresh["gate_wait_s_p50"],
            "versions": fresh["versions"],
            "longest_s_between_versions": max(gaps, default=None),
            "lost": found["lost"],
            "doubled": found["doubled"],
            "requests": answers["requests"],
            "unanswered": answers["unanswered"],
            "exact": found["exact"],
        },
        "audit": found,
        "requests": answers,
        "sent": sender.sent | {"behind_ms": sender.behind_ms},
        "stopped": stopped,
    }


def read_stack(folder: Path, runner: str) -> dict[str, Any]:
    """What `rocket up` wrote of the stack in a folder, with all that the runner needs.

    Raises:
        StoreError: none was brought up there, or without Flink where that is the runner.
    """
    try:
        content: dict[str, Any] = json.loads((folder / "stack.json").read_bytes())
    except (OSError, ValueError) as error:
        raise StoreError(
            f"{folder}: no local stack runs there; bring one up first: rocket up --dir {folder}"
        ) from error
    if runner == "flink" and "flink" not in content:
        raise StoreError(f"{folder}: its stack has no Flink; start it too: rocket up --flink --dir {folder}")
    return content
