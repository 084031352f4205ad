"""`rocket rollback`: point the scorers at an earlier version."""

import json
from typing import Annotated

import typer

from flows.settings import load_app_with_settings
from flows.versions import roll_back
from nodes.weight_stores import open_weights

app = typer.Typer(add_completion=False)


@app.command()
def rollback(
    weights: Annotated[str, typer.Option(help="redis://host:port, or the folder of an embedded Valkey.")],
    to: Annotated[int, typer.Option(help="The version to go back to.")],
    why: Annotated[str, typer.Option(help="Stands on the record.")],
    wait_s: Annotated[float, typer.Option(min=0, help="So long the scorers may take to serve it.")] = 5.0,
    app_name: Annotated[
        str, typer.Option("--app", help="A shipped app's name, or a folder with an app.toml.")
    ] = "adsim",
    as_json: Annotated[bool, typer.Option("--json", help="The last line of stdout is one JSON object.")] = False,
) -> None:
    """Move the pointer to a version that is still held; versions published later get larger numbers all the same."""
    loaded = load_app_with_settings(app_name)
    key = loaded.config.publish.key
    with open_weights(weights, loaded.name, schema_id=loaded.schema_id, key=key, create=False) as store:
        done = roll_back(store, to, why, wait_s=wait_s)
    if as_json:
        print(json.dumps(done))
        return
    print(f"model '{loaded.name}': version {to} answers now, before it was {done['from']}; held: {done['held']}")
    hold_s = loaded.config.publish.rollback_hold_s
    print(
        f"a trainer publishes nothing over it for {hold_s:g} s (publish.rollback_hold_s), or until `rocket publish`"
        if hold_s
        else "a trainer may publish over it at once (publish.rollback_hold_s = 0)"
    )
    for one in done["serving"]:
        served = "the app's prior" if one["version"] is None else f"version {one['version']}"
        print(f"{one['member']} serves {served}" + ("" if one["version"] == to else ", not yet this one"))
    if not done["serving"]:
        print("no scorer has said lately what it serves")
