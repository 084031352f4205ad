"""`rocket down`: stop the local stack."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False)


@app.command()
def down(
    folder: Annotated[Path, typer.Option("--dir", help="As given to rocket up.")] = Path("runs/stack"),
    wipe: Annotated[bool, typer.Option("--wipe", help="Remove its data and logs, too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The last line of stdout is one JSON object.")] = False,
) -> None:
    """Stop the local stack cleanly; its data stays unless it is wiped."""
    from deploy.local.stack import Stack

    def say(line: str) -> None:
        print(line, file=sys.stderr if as_json else sys.stdout, flush=True)

    ended = Stack(folder).down(wipe=wipe, say=say)
    if as_json:
        print(json.dumps({"stopped": ended, "wiped": wipe}))
    elif not ended:
        print("nothing ran")
