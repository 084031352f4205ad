"""`rocket run`: live ingest and live training side by side, kept running until SIGTERM."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from deploy.signals import stopped_by_signals
from flows import run as flow
from flows.run_folder import RunFolder
from flows.settings import load_app_with_settings

app = typer.Typer(add_completion=False)


@app.command()
def run(
    impressions: Annotated[str, typer.Option("--impressions", help="kafka://host:port/topic of impressions.")],
    clicks: Annotated[str, typer.Option("--clicks", help="kafka://host:port/topic of clicks.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the run: example log, checkpoints, versions.")],
    weights: Annotated[str, typer.Option("--weights", help="redis://host:port, or the folder of an embedded Valkey.")],
    examples: Annotated[
        str | None, typer.Option("--examples", help="The example log elsewhere: a folder, or kafka://host:port/topic.")
    ] = None,
    runner: Annotated[str, typer.Option("--runner", help="prism on one machine, flink on many.")] = "prism",
    job_endpoint: Annotated[str | None, typer.Option("--job-endpoint", help="host:port of a job server.")] = None,
    flink_rest: Annotated[str | None, typer.Option("--flink-rest", help="As `rocket ingest` takes it.")] = None,
    worker_pool: Annotated[str | None, typer.Option("--worker-pool", help="host:port of Python workers.")] = None,
    metrics_port: Annotated[
        int | None,
        typer.Option("--metrics-port", min=0, max=65534, help="The trainer's /metrics; ingest's is the next."),
    ] = None,
    light_from: Annotated[
        str | None,
        typer.Option("--light-from", help='As `rocket train` takes it: where its light net begins, or "weights".'),
    ] = None,
    new_booster: Annotated[
        bool, typer.Option("--new-booster", help="As `rocket train` takes it: another booster begins anew.")
    ] = False,
    app_name: Annotated[str, typer.Option("--app", help="A shipped app, or the folder of yours.")] = "adsim",
    sets: Annotated[list[str] | None, typer.Option("--set", help="section.key=value over app.toml.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The last line of stdout is one JSON object.")] = False,
) -> None:
    """Start both again when they die, pass SIGTERM on, and end when both have drained."""
    load_app_with_settings(app_name, sets)  # what is wrong in it is told once, here
    folder = RunFolder(out)
    same = ["--app", app_name, *(word for given in sets or [] for word in ("--set", given)), "--json"]
    log = examples or str(folder.examples)
    events = ["--impressions", impressions, "--clicks", clicks, "--examples", log, "--out", str(folder.ingest)]
    events += ["--runner", runner]
    beside = {"--job-endpoint": job_endpoint, "--flink-rest": flink_rest, "--worker-pool": worker_pool}
    events += [word for option, value in beside.items() if value is not None for word in (option, value)]
    learnt = ["--examples", log, "--checkpoints", str(folder.checkpoints), "--weights", weights]
    learnt += [] if light_from is None else ["--light-from", light_from]
    learnt += ["--new-booster"] * new_booster
    if metrics_port is not None:
        learnt += ["--metrics-port", str(metrics_port)]
        events += ["--metrics-port", str(metrics_port + bool(metrics_port))]  # 0: each takes a free one
    rocket = [sys.executable, "-m", "deploy.cli"]
    commands = {
        "ingest": [*rocket, "ingest", "--live", *events, *same],
        "train": [*rocket, "train", "--live", *learnt, *same],
    }
    with stopped_by_signals() as stop:
        figures = flow.run(commands, stop=stop, say=lambda line: print(line, file=sys.stderr, flush=True))
    if as_json:
        print(json.dumps(figures))
        return
    for name, told in figures.items():
        print(f"{name}: drained, started again {told['restarts']} times")
