"""`rocket evaluate`: a run's held-out predictions, judged again from its files alone."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from flows import evaluate as flow
from flows.run_folder import RunFolder
from flows.settings import load_app_with_settings

app = typer.Typer(add_completion=False)
_METRICS = ("auc", "gauc", "logloss", "expected_logloss", "ne", "calibration")


@app.command()
def evaluate(
    run: Annotated[Path, typer.Option("--run", help="A folder written by `rocket demo`.")],
    sets: Annotated[list[str] | None, typer.Option("--set", help="section.key=value over app.toml.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The last line of stdout is one JSON object.")] = False,
) -> None:
    """AUC, GAUC, logloss, NE and calibration of every model, whole and by segment."""
    folder = RunFolder(run)
    judged = flow.run(load_app_with_settings(folder.read_json("run.json")["app"], sets), folder)
    table = Table("rows", "model", *(name.replace("_", " ") for name in _METRICS))
    parts = [("all", judged["test"])]
    parts += [
        (f"{row['segment']} = {row['value']} ({row['rows']:,})", {name: row[name] for name in judged["test"]})
        for row in judged["segments"]
    ]
    for where, figures in parts:
        for number, (model, row) in enumerate(figures.items()):
            cells = ["-" if row.get(metric) is None else f"{row[metric]:.4f}" for metric in _METRICS]
            table.add_row("" if number else where, model, *cells)
        table.add_section()
    Console(stderr=as_json).print(table)
    if as_json:
        typer.echo(json.dumps(judged))
