"""`rocket status`: how the local stack is."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

app = typer.Typer(add_completion=False)


@app.command()
def status(
    folder: Annotated[Path, typer.Option("--dir", help="As given to rocket up.")] = Path("runs/stack"),
    as_json: Annotated[bool, typer.Option("--json", help="The last line of stdout is one JSON object.")] = False,
) -> None:
    """Ask each part of the local stack whether it works; exit 1 when one does not."""
    from deploy.local.stack import Stack, told

    parts = Stack(folder).status()
    good = all(part.state in ("up", "ready") for part in parts)
    if as_json:
        print(json.dumps({"ok": good, "parts": told(parts)}))
    else:
        table = Table("", "part", "where", "process")
        for part in parts:
            colour = "green" if part.state in ("up", "ready") else "red"
            table.add_row(f"[{colour}]{part.state}[/]", part.name, part.where, str(part.pid or ""))
        Console().print(table)
    if not good:
        if not as_json:
            print(f"mend it: rocket up --dir {folder} (logs in {folder / 'logs'})")
        raise typer.Exit(1)
