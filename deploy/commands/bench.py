"""`rocket bench`: each stage against a named peer in the same run; medians and ratios."""

import importlib
import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from contracts.errors import RocketError, did_you_mean
from deploy import benches

app = typer.Typer(add_completion=False)


def _stages() -> list[str]:
    """Modules of `deploy.benches`; one that is named after a stage and more is a part of it."""
    stems = [path.stem for path in Path(benches.__path__[0]).glob("*.py") if path.stem != "__init__"]
    whole = [stem for stem in stems if not any(stem.startswith(f"{other}_") for other in stems)]
    return sorted(stem.replace("_", "-") for stem in whole)


def _rows(figures: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in figures.items():
        if isinstance(value, dict):
            rows += _rows(value, f"{prefix}{key}.")
        else:
            rows.append((prefix + key, f"{value:,.4g}" if isinstance(value, float) else str(value)))
    return rows


@app.command()
def bench(
    stage: Annotated[str, typer.Argument(help="A stage, or `all`; without one they are listed.")] = "",
    quick: Annotated[bool, typer.Option("--quick", help="Small inputs and few repeats: checks that it runs.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The last line of stdout is one JSON object.")] = False,
) -> None:
    """Measure a stage of Rocket against its peers."""
    stages = _stages()
    if not stage:
        typer.echo("stages: " + ", ".join(stages) + ", all")
        return
    if stage != "all" and stage not in stages:
        raise RocketError(f"no stage '{stage}' to measure; {did_you_mean(stage, stages)}")
    figures: dict[str, Any] = {}
    for name in stages if stage == "all" else [stage]:
        figures[name] = importlib.import_module(f"deploy.benches.{name.replace('-', '_')}").run(quick)
        table = Table("figure", "value", title=f"rocket bench {name}", title_justify="left")
        for row in _rows(figures[name]):
            table.add_row(*row)
        Console(stderr=as_json).print(table)
    if as_json:
        typer.echo(json.dumps(figures if stage == "all" else figures[stage]))
