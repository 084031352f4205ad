"""`rocket report`: a run's HTML page."""

import json
from pathlib import Path
from typing import Annotated

import typer

from flows.report import write_report
from flows.run_folder import RunFolder

app = typer.Typer(add_completion=False)


@app.command()
def report(
    run: Annotated[Path, typer.Option("--run", help="A folder written by `rocket demo`.")],
    as_json: Annotated[bool, typer.Option("--json", help="The last line of stdout is one JSON object.")] = False,
) -> None:
    """Write the report of a run again from its figures."""
    folder = RunFolder(run)
    write_report(folder)
    typer.echo(json.dumps({"report": str(folder.report)}) if as_json else folder.report)
