"""`rocket ingest`: files of events into the example log."""

import json
from pathlib import Path
from typing import Annotated

import typer

from deploy.progress import TerminalProgress
from flows import ingest as flow
from flows.settings import load_app_with_settings

app = typer.Typer(add_completion=False)


@app.command()
def ingest(
    impressions: Annotated[list[Path], typer.Option("--impressions", help="NDJSON of impressions; repeat for more.")],
    clicks: Annotated[list[Path], typer.Option("--clicks", help="NDJSON of clicks; repeat for more.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the example log, fates and dead letters.")],
    app_name: Annotated[str, typer.Option("--app", help="A shipped app, or the folder of yours.")] = "adsim",
    sets: Annotated[list[str] | None, typer.Option("--set", help="section.key=value over app.toml.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The last line of stdout is one JSON object.")] = False,
) -> None:
    """Check, join and featurise events; a killed run is simply run again."""
    with TerminalProgress() as progress:
        progress.stage("ingest")
        figures = flow.run(
            load_app_with_settings(app_name, sets),
            impressions,
            clicks,
            out,
            on_progress=lambda _, done: progress.advance(done),
        )
    for stream, rows in figures["streams"].items():
        typer.echo(f"{stream}: " + ", ".join(f"{rows[name]:,} {name.replace('_', '-')}" for name in rows))
    typer.echo(f"{figures['examples']:,} examples, {figures['sampled_out']:,} sampled out, in {out}")
    if as_json:
        typer.echo(json.dumps(figures))
