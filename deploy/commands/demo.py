"""`rocket demo`: the whole loop in one go."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from deploy.progress import TerminalProgress
from flows import demo as flow
from flows.run_folder import RunFolder
from flows.settings import load_app_with_settings

app = typer.Typer(add_completion=False)


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", help="The run's folder.")],
    app_name: Annotated[str, typer.Option("--app", help="adsim, kuairand, or a folder with an app.toml.")] = "adsim",
    data: Annotated[Path | None, typer.Option("--data", help="Folder with the app's source files or events.")] = None,
    impressions: Annotated[int, typer.Option("--impressions", min=1000, help="How many to simulate.")] = 300_000,
    sets: Annotated[list[str] | None, typer.Option("--set", help="section.key=value over app.toml.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The last line of stdout is one JSON object.")] = False,
) -> None:
    """Simulate or import events, ingest, co-train, publish, score held-out requests and judge them."""
    chosen = load_app_with_settings(app_name, sets)
    with TerminalProgress() as progress:
        summary = flow.run(chosen, out, progress, impressions=impressions, data=data)
    console = Console(stderr=as_json)
    console.print(_quality(summary))
    console.print(_line(summary))
    console.print(f"Report: {RunFolder(out).report}")
    if as_json:
        typer.echo(json.dumps(summary))


def _quality(summary: dict[str, Any]) -> Table:
    names = [
        name
        for name in ("auc", "gauc", "logloss", "expected_logloss", "ne", "calibration")
        if any(row.get(name) is not None for row in summary["test"].values())
    ]
    table = Table("held out", *[name.replace("_", " ") for name in names])
    for model, row in summary["test"].items():
        table.add_row(model, *["-" if row.get(name) is None else f"{row[name]:.4f}" for name in names])
    return table


def _line(summary: dict[str, Any]) -> str:
    rows, train, serve = summary["rows"], summary["train"], summary["serve"]
    return (
        f"{rows['impressions_read']:,} impressions and {rows['clicks_read']:,} clicks read, "
        f"{rows['dead_lettered']:,} dead letters; "
        f"{train['examples']:,} examples learnt in {train['wall_seconds']:.0f} s, {train['checkpoints']} checkpoints, "
        f"{train['versions']} versions; {serve['requests']:,} requests answered by version {serve['model_version']}, "
        f"p50 {serve['p50_us']:,.0f} us, p99 {serve['p99_us']:,.0f} us; peak memory {summary['peak_rss_mb']:,.0f} MB"
    )
