"""`rocket audit`: count every event and example again, from the topics, by the rules alone."""

import contextlib
import json
from pathlib import Path
from typing import Annotated

import typer

from flows import audit as flow
from flows.settings import load_app_with_settings
from nodes.example_logs import open_examples

app = typer.Typer(add_completion=False)


@app.command()
def audit(
    impressions: Annotated[str, typer.Option(help="kafka://host:port/topic, or a file of JSON lines.")],
    clicks: Annotated[str, typer.Option(help="The same of the clicks.")],
    out: Annotated[Path, typer.Option(help="The folder that `rocket ingest` wrote.")],
    examples: Annotated[str | None, typer.Option(help="The example log, where it is not in that folder.")] = None,
    checkpoints: Annotated[Path | None, typer.Option(help="The trainer's, for how many rows it has learnt.")] = None,
    ledger: Annotated[Path | None, typer.Option(help="Write one row an event, as Parquet.")] = None,
    app_name: Annotated[str, typer.Option("--app", help="A shipped app, or the folder of yours.")] = "adsim",
    sets: Annotated[list[str] | None, typer.Option("--set", help="section.key=value over app.toml.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The last line of stdout is one JSON object.")] = False,
) -> None:
    """Say whether each event met the fate that it must, and each example stands in the log once; exit 1 if not."""
    loaded = load_app_with_settings(app_name, sets)
    with contextlib.closing(open_examples(examples or out / "examples", loaded)) as log:
        figures = flow.run(
            loaded, impressions, clicks, out, log.read(0, loaded.schema_id), checkpoints=checkpoints, ledger=ledger
        )
    for stream, rows in figures["streams"].items():
        typer.echo(f"{stream}: " + ", ".join(f"{count:,} {name.replace('_', '-')}" for name, count in rows.items()))
    names = ("examples", "trained", "pending", "sampled_out", "lost", "doubled", "mislabelled", "unordered")
    typer.echo(", ".join(f"{figures[name]:,} {name.replace('_', ' ')}" for name in names if name in figures))
    typer.echo(
        f"{figures['unaccounted']:,} events without the right fate, {figures['wrongly_refused']:,} refused wrongly"
    )
    for sentence in figures["wrong"]:
        typer.echo(f"  {sentence}")
    typer.echo("exact" if figures["exact"] else "NOT exact")
    if as_json:
        typer.echo(json.dumps(figures))
    if not figures["exact"]:
        raise typer.Exit(1)
