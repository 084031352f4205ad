"""`rocket rollback`: point the scorers at an earlier version."""

import json
from typing import Annotated

import typer

from flows.settings import load_app_with_settings
from nodes.weight_stores import open_weights

app = typer.Typer(add_completion=False)


@app.command()
def rollback(
    weights: Annotated[str, typer.Option(help="redis://host:port, or the folder of an embedded Valkey.")],
    to: Annotated[int, typer.Option(help="The version to go back to.")],
    why: Annotated[str, typer.Option(help="Stands on the record.")],
    app_name: Annotated[
        str, typer.Option("--app", help="A shipped app's name, or a folder with an app.toml.")
    ] = "adsim",
    as_json: Annotated[bool, typer.Option("--json", help="The last line of stdout is one JSON object.")] = False,
) -> None:
    """Move the pointer to a version that is still held; versions published later get larger numbers all the same."""
    loaded = load_app_with_settings(app_name)
    with open_weights(
        weights, loaded.name, schema_id=loaded.schema_id, key=loaded.config.publish.key, create=False
    ) as store:
        before = store.current_version()
        store.rollback(to, why)
        held = [manifest.version for manifest in store.versions()]
    if as_json:
        print(json.dumps({"model": loaded.name, "from": before, "to": to, "why": why, "held": held}))
    else:
        print(f"model '{loaded.name}': version {to} answers now, before it was {before}; held: {held}")
