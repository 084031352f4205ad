"""`rocket report`: a run's HTML page."""

from pathlib import Path
from typing import Annotated

import typer

from flows.report import write_report
from flows.run_folder import RunFolder

app = typer.Typer(add_completion=False)


@app.command()
def report(run: Annotated[Path, typer.Option("--run", help="A folder written by `rocket demo`.")]) -> None:
    """Write the report of a run again from its figures."""
    folder = RunFolder(run)
    write_report(folder)
    typer.echo(folder.report)
