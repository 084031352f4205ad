"""The whole loop in one go, on bounded input.

simulate or import ─▶ ingest ─▶ co-train ─▶ gate ─▶ publish ─▶ score held-out requests ─▶ judge ─▶ report
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from contracts.app import App, shipped_apps
from contracts.errors import ContractError
from flows import evaluate, ingest, score, train
from flows.progress import Progress
from flows.report import write_report
from flows.run_folder import RunFolder
from flows.watch_memory import PeakMemory
from nodes.delayed import counts_once
from nodes.example_log import ExampleDirectory
from nodes.files import write_whole_frame
from nodes.import_kuairand import import_kuairand
from nodes.ledger import accepted_impressions, write_ledger
from nodes.requests import write_requests
from nodes.simulate import simulate
from nodes.weight_stores import open_weights

#: What names an accepted impression: an id may come again once `labels.dedupe_s` has passed.
_IMPRESSION = ["impression_id", "event_time_ms"]
#: The last part of the event time span that is never trained on.
HELD_OUT = 0.2


@dataclass
class _Stages:
    """What each stage took."""

    progress: Progress
    took: dict[str, dict[str, float]] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[dict[str, float]]:
        self.progress.stage(name, total)
        figures: dict[str, float] = {"rows": 0}
        wall, cpu = time.perf_counter(), time.process_time()
        yield figures
        figures["seconds"] = time.perf_counter() - wall
        figures["cpu_seconds"] = time.process_time() - cpu
        self.took[name] = figures


def run(
    app: App, out: Path, progress: Progress, *, impressions: int = 300_000, data: Path | None = None
) -> dict[str, Any]:
    """Run every stage of `app` into the folder `out` and return the summary (also written as summary.json).

    Args:
        app: "adsim" simulates its events; any other app needs `data`.
        out: the run's folder; a finished run in it is replaced.
        progress: told of the stages.
        impressions: how many to simulate.
        data: a folder with the app's source files (KuaiRand), or with impressions.ndjson and clicks.ndjson.

    Raises:
        RocketError: a stage failed; what stands in `out` until then stays.
    """
    run_folder, stages = RunFolder(out), _Stages(progress)
    about = {
        "app": str(app.folder) if app.name not in shipped_apps() else app.name,
        "description": app.config.description,
    }
    run_folder.begin(about)
    with PeakMemory() as memory:
        with stages.stage("events", impressions if data is None else None) as figures:
            events, figures["rows"] = _events(app, run_folder, progress, impressions, data)
        with stages.stage("ingest", int(figures["rows"])) as figures:
            rows = ingest.run(
                app,
                [events / "impressions.ndjson"],
                [events / "clicks.ndjson"],
                run_folder.ingest,
                on_progress=lambda _, done: progress.advance(done),
            )
            figures["rows"] = rows["impressions_read"] + rows["clicks_read"]
        cut_ms, prior = _cut(app, run_folder)
        publish = app.config.publish
        with open_weights(
            run_folder.weights, app.name, keep=publish.keep, ttl_s=publish.ttl_s, key=publish.key
        ) as store:
            with stages.stage("train", rows["examples"]) as figures:
                learnt = train.run(
                    app,
                    run_folder.examples,
                    run_folder.checkpoints,
                    store=store,
                    until_ms=cut_ms,
                    resume=False,
                    on_progress=lambda done, total, shown: progress.advance(done, total, _note(shown)),
                )
                figures["rows"] = learnt["examples"]
            if not learnt["versions"]:
                raise ContractError(_why_no_version(app, run_folder, learnt))
            with stages.stage("score") as figures:
                answered, scored = _score(app, run_folder, events, store, cut_ms)
                figures["rows"] = answered["candidates"]
            with stages.stage("evaluate") as figures:
                summary = _judge(app, run_folder, events, rows, learnt, answered, scored, cut_ms, prior)
                summary["serve"]["max_abs_logit_diff"] = evaluate.logit_difference(
                    app, run_folder.examples, cut_ms, store.fetch(answered["model_version"]), scored
                )
                figures["rows"] = scored.height
        summary["peak_rss_mb"] = memory.mb
    run_folder.write_json("train.json", learnt)
    run_folder.write_json(
        "run.json",
        about | {"cut_ms": cut_ms, "ingest": rows, "stages": stages.took},
    )
    run_folder.write_json("summary.json", summary)
    progress.stage("report")
    write_report(run_folder)
    return summary


def _why_no_version(app: App, run: RunFolder, learnt: Mapping[str, Any]) -> str:
    if not learnt["examples"]:
        return (
            f"{run.examples}: only {learnt['pending']:,} examples to train on, fewer than one minibatch of "
            f"{app.config.train.batch_rows:,}; give more events, or a smaller train.batch_rows"
        )
    reason = learnt["decisions"][-1]["reason"]
    return (
        f"{run.root}: no version was published, so there is nothing to score with; the gate held the last candidate: "
        f"{reason}; give more events, or loosen [publish.gate]"
    )


def _events(app: App, run: RunFolder, progress: Progress, impressions: int, data: Path | None) -> tuple[Path, int]:
    """Make or find the run's events; returns their folder, and how many were made."""
    if data is None:
        if app.name != "adsim":
            raise ContractError(f"the app '{app.name}' has no simulator: give its events with --data DIR")
        made = simulate(
            run.events,
            impressions=impressions,
            seed=app.config.train.seed,
            on_progress=progress.advance,
        )
        return run.events, int(made["impressions"] + made["clicks"])
    if app.name == "kuairand":
        made = import_kuairand(data, run.events, seed=app.config.train.seed)
        return run.events, int(made["impressions"] + made["clicks"])
    for name in ("impressions.ndjson", "clicks.ndjson"):
        if not (data / name).is_file():
            raise ContractError(
                f"{data / name}: is missing; --data takes a folder with impressions.ndjson and clicks.ndjson"
            )
    return data, 0


def _cut(app: App, run: RunFolder) -> tuple[int, float]:
    """Event time from which examples are held out, the last fifth of the span; and the CTR before it."""
    log = ExampleDirectory(run.examples)
    columns = ("event_time_ms", "role", "label", "kept_rate")
    labels = [batch.frame.select(columns) for batch in log.read(0, app.schema_id)]
    if not labels:
        raise ContractError(f"{run.examples}: ingest settled no example, so there is nothing to train on")
    frame = pl.concat(labels)
    first, last = frame["event_time_ms"][0], frame["event_time_ms"][-1]
    cut_ms = first + round((last - first) * (1 - HELD_OUT))
    weight = 1 / pl.col("kept_rate").cast(pl.Float64)
    before = frame.filter(pl.col("event_time_ms") < cut_ms)
    shown = weight.filter(counts_once(app.config.labels.mode)).sum()  # impressions, however often they are told
    ctr = before.select((pl.col("label") * weight).sum() / shown).item() if before.height else None
    return cut_ms, float(ctr or app.config.serving.prior_ctr)


def _note(shown: Mapping[str, Any]) -> str:
    return "  ".join(f"{model} {row['logloss']:.4f}" for model, row in shown.items() if row.get("logloss"))


def _score(app: App, run: RunFolder, events: Path, store: Any, cut_ms: int) -> tuple[dict[str, Any], pl.DataFrame]:
    """Held-out impressions as requests, answered by the published weights; one row an impression."""
    shown = accepted_impressions(app, events / "impressions.ndjson", run.ingest / "fates", from_ms=cut_ms)
    asked = write_requests(shown, app, run.requests)  # impression_id, event_time_ms, request_id, candidate
    answered = score.run(app, run.requests, store, run.answers)
    scores = pl.read_parquet(run.answers.with_suffix(".parquet"))
    keep = [name for name in app.config.evaluate.segments if name in shown.columns]
    scored = asked.join(scores, on=["request_id", "candidate"], how="left").join(
        shown.select("impression_id", "event_time_ms", *keep), on=_IMPRESSION, how="left"
    )
    return answered, scored


def _judge(
    app: App,
    run: RunFolder,
    events: Path,
    rows: dict[str, Any],
    learnt: dict[str, Any],
    answered: dict[str, Any],
    scored: pl.DataFrame,
    cut_ms: int,
    prior: float,
) -> dict[str, Any]:
    """Join every prediction to its label, write predictions, ledger and evaluation, and return the summary."""
    judged = evaluate.predict(app, run.examples, run.checkpoints, cut_ms, prior)
    extra = [name for name in app.config.evaluate.segments if name in scored.columns]
    predictions = judged.join(
        scored.select(*_IMPRESSION, "model_version", *extra, p_light="pctr"), on=_IMPRESSION, how="left"
    )
    truth = events / "truth.parquet"
    if truth.is_file():
        known = pl.read_parquet(truth, columns=["impression_id", "p_truth"]).unique("impression_id")
        predictions = predictions.join(known, on="impression_id", how="left")
    else:
        predictions = predictions.with_columns(p_truth=pl.lit(None, pl.Float64))
    write_whole_frame(run.predictions, predictions)
    evaluation = evaluate.run(app, run)
    run.write_json("evaluation.json", evaluation)
    used = write_ledger(run.ingest / "fates", run.examples, learnt["position"], cut_ms, run.ledger, app.config.labels)
    wanted = (
        "impressions_read", "clicks_read", "accepted", "duplicate", "late", "orphan", "dead_lettered", "examples",
        "sampled_out", "waiting",
    )  # fmt: skip
    return {
        "app": app.name,
        "schema_id": app.schema_id,
        "rows": {name: rows[name] for name in wanted}
        | {"trained": learnt["examples"], "pending": learnt["pending"], "held_out": learnt["held_out"]},
        "ledger": used,
        "progressive": learnt["progressive"],
        "test": evaluation["test"],
        "train": {
            name: learnt[name] for name in ("examples", "cpu_seconds", "wall_seconds", "checkpoints", "versions")
        },
        "serve": {
            name: answered[name] for name in ("requests", "candidates", "refused", "p50_us", "p99_us", "model_version")
        },
    }
