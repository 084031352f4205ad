"""`rocket init`: a new app to start from, small and commented, that passes `rocket check`."""

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from contracts.app import load_app
from contracts.errors import ContractError, StoreError
from nodes.files import write_whole

app = typer.Typer(add_completion=False)
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")


def write_app(folder: Path, name: str | None = None) -> list[Path]:
    """Write an `app.toml` and its three contracts.

    Args:
        folder: made if it is not there; other files in it are left alone.
        name: of the app; by default that of the folder, in lower case.

    Returns:
        The files written.

    Raises:
        ContractError: the name cannot be one.
        StoreError: one of the files is there already, or the folder cannot be written.
    """
    chosen = name or re.sub(r"[^a-z0-9_-]+", "_", folder.resolve().name.lower()).strip("_-")
    if not _NAME.fullmatch(chosen):
        raise ContractError(
            f"'{chosen}' cannot name an app: a lower-case letter, then letters, digits, _ or -; give one with --name"
        )
    templates = sorted(Path(str(files("deploy") / "templates" / "app")).iterdir())
    for template in templates:
        if (folder / template.name).exists():
            raise StoreError(f"{folder / template.name} is there already; give another folder, or remove it first")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for template in templates:
            text = template.read_text(encoding="utf-8").replace("@NAME@", chosen)
            write_whole(folder / template.name, text.encode())
    except OSError as error:
        raise StoreError(f"{folder}: cannot be written ({error.strerror}); give a folder that can") from error
    return [folder / template.name for template in templates]


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where the app shall live.")],
    name: Annotated[str | None, typer.Option(help="Name of the app; by default that of the folder.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The last line of stdout is one JSON object.")] = False,
) -> None:
    """Write a new app to start from; refuses to overwrite."""
    written = write_app(folder, name)
    made = load_app(folder)
    for path in written:
        typer.echo(f"wrote {path}", err=as_json)
    typer.echo(
        f"Put your columns into the contracts and your features into app.toml, then: rocket check --app {folder}",
        err=as_json,
    )
    if as_json:
        about = {"app": made.name, "folder": str(folder), "schema_id": made.schema_id}
        typer.echo(json.dumps(about | {"files": [str(path) for path in written]}))
