"""`rocket publish`: publish the light net of a checkpoint."""

import json
from pathlib import Path
from typing import Annotated

import typer

from flows import publish as flow
from flows.settings import load_app_with_settings
from nodes.weight_stores import open_weights

app = typer.Typer(add_completion=False)


@app.command()
def publish(
    checkpoints: Annotated[Path, typer.Option(help="The trainer's folder; its newest whole checkpoint is taken.")],
    weights: Annotated[str, typer.Option(help="redis://host:port, or the folder of an embedded Valkey.")],
    examples: Annotated[
        Path | None, typer.Option(help="The example log; the rows after the checkpoint are the gate's window.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Publish though the gate holds it.")] = False,
    why: Annotated[str, typer.Option(help="Stands on the record.")] = "by hand",
    app_name: Annotated[
        str, typer.Option("--app", help="A shipped app's name, or a folder with an app.toml.")
    ] = "adsim",
    sets: Annotated[list[str] | None, typer.Option("--set", help="section.key=value, over the app's file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The last line of stdout is one JSON object.")] = False,
) -> None:
    """Judge the newest checkpoint's light net and publish it; exit 1 when the gate holds it."""
    loaded = load_app_with_settings(app_name, sets)
    settings = loaded.config.publish
    with open_weights(
        weights, loaded.name, schema_id=loaded.schema_id, keep=settings.keep, ttl_s=settings.ttl_s, key=settings.key
    ) as store:
        figures = flow.run(loaded, checkpoints, store, examples=examples, force=force, why=why)
    if as_json:
        print(json.dumps(figures))
    elif figures["outcome"] == "published":
        print(f"version {figures['version']} of model '{loaded.name}' is live: {figures['reason']}")
    else:
        print(f"held, the live version stays: {figures['reason']}")
    if figures["outcome"] != "published":
        raise typer.Exit(1)
