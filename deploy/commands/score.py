"""`rocket score`: answer a file of ad requests with published weights."""

import json
from pathlib import Path
from typing import Annotated

import typer

from flows import score as flow
from flows.settings import load_app_with_settings
from nodes.weight_stores import open_weights

app = typer.Typer(add_completion=False)


@app.command()
def score(
    requests: Annotated[Path, typer.Option(help="One JSON request a line.")],
    weights: Annotated[str, typer.Option(help="redis://host:port, or the folder of an embedded Valkey.")],
    out: Annotated[Path, typer.Option(help="Answers, one JSON object a line; the scores beside as .parquet.")],
    app_name: Annotated[
        str, typer.Option("--app", help="A shipped app's name, or a folder with an app.toml.")
    ] = "adsim",
    version: Annotated[int | None, typer.Option(help="Which version; the current one by default.")] = None,
    sets: Annotated[list[str] | None, typer.Option("--set", help="section.key=value, over the app's file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The last line of stdout is one JSON object.")] = False,
) -> None:
    """Answer every request; exit 1 when the file or the version cannot be used."""
    loaded = load_app_with_settings(app_name, sets)
    with open_weights(
        weights, loaded.name, schema_id=loaded.schema_id, key=loaded.config.publish.key, create=False
    ) as store:
        figures = flow.run(loaded, requests, store, out, version=version)
    if as_json:
        print(json.dumps(figures))
        return
    refused = figures["refused"]
    print(
        f"{figures['requests']:,} requests with {figures['candidates']:,} candidates answered by version "
        f"{figures['model_version']}; refused: {refused['requests']:,} requests, {refused['candidates']:,} candidates"
    )
    if figures["timed_requests"]:
        print(
            f"one request: p50 {figures['p50_us']:,.0f} us, p99 {figures['p99_us']:,.0f} us "
            f"({figures['timed_requests']:,} timed one by one)"
        )
    print(f"{out} and {out.with_suffix('.parquet')}")
