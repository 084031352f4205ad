"""`rocket simulate`: ad traffic with a known true click probability."""

import json
import time
from pathlib import Path
from typing import Annotated, Literal

import typer

from deploy.progress import TerminalProgress
from nodes.simulate import Drift, Faults, simulate

app = typer.Typer(add_completion=False)


@app.command()
def command(
    out: Annotated[Path, typer.Option("--out", help="Folder to write into.")],
    impressions: Annotated[int, typer.Option(min=1, help="How many ads are shown.")] = 300_000,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random: the same seed gives the same bytes.")] = 1,
    days: Annotated[float, typer.Option(help="Event time that the log spans.")] = 5.0,
    duplicates: Annotated[float, typer.Option(min=0, max=1, help="Share of events that are sent again.")] = 0.01,
    late: Annotated[float, typer.Option(min=0, max=1, help="Share of events that arrive beyond the disorder.")] = 0.002,
    orphans: Annotated[
        float, typer.Option(min=0, max=1, help="Clicks without an impression, a share of the clicks.")
    ] = 0.002,
    malformed: Annotated[float, typer.Option(min=0, max=1, help="Damaged copies, a share of the events.")] = 0.001,
    drift: Annotated[
        float, typer.Option(min=0, max=10, help="How far likings swing, in logits (standard deviation).")
    ] = Drift().logits,
    drift_hours: Annotated[float, typer.Option(help="Hours until they are back.")] = Drift().period_h,
    drift_over: Annotated[
        Literal["category", "campaign"], typer.Option(help="What each swing belongs to.")
    ] = "category",
    drift_swings: Annotated[
        int, typer.Option(min=1, max=16, help="Sines that it is the sum of; from 2 on nothing ever comes back.")
    ] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="The last line of stdout is one JSON object.")] = False,
) -> None:
    """Write impressions.ndjson, clicks.ndjson, truth.parquet and simulation.json."""
    rates = Faults(duplicates=duplicates, late=late, orphans=orphans, malformed=malformed)
    started = time.process_time()
    with TerminalProgress(quiet=as_json) as progress:
        progress.stage("simulate", impressions)
        summary = simulate(
            out,
            impressions=impressions,
            seed=seed,
            days=days,
            rates=rates,
            drift=Drift(drift, drift_hours, drift_over, drift_swings),
            on_progress=progress.advance,
        )
    summary["cpu_seconds"] = time.process_time() - started
    if as_json:
        typer.echo(json.dumps(summary))
        return
    for stream, fates in summary["expected"].items():
        typer.echo(f"{stream}: " + ", ".join(f"{count:,} {name}" for name, count in fates.items()))
    typer.echo(f"CTR {summary['ctr']:.4f}; written to {out}")
