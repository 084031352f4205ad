"""`rocket versions`: what is published, who serves it, and what the gate held."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows.settings import load_app_with_settings
from flows.versions import listed
from nodes.weight_stores import open_weights

app = typer.Typer(add_completion=False)
#: Column -> figure of the gate.
_GATE = {"NE": "ne", "live NE": "live_ne", "calib.": "calibration"}


@app.command()
def versions(
    weights: Annotated[str, typer.Option(help="redis://host:port, or the folder of an embedded Valkey.")],
    held: Annotated[bool, typer.Option("--held", help="The candidates that were not published, and why.")] = False,
    count: Annotated[int, typer.Option(min=1, help="So many of the newest.")] = 20,
    app_name: Annotated[
        str, typer.Option("--app", help="A shipped app's name, or a folder with an app.toml.")
    ] = "adsim",
    sets: Annotated[list[str] | None, typer.Option("--set", help="section.key=value, over the app's file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The last line of stdout is one JSON object.")] = False,
) -> None:
    """List the versions in a weight store: when, why, gate figures, size, and who serves each now."""
    loaded = load_app_with_settings(app_name, sets)
    with open_weights(weights, loaded.name, key=loaded.config.publish.key, create=False) as store:
        found = listed(store, count=count)
    if as_json:
        print(json.dumps(found))
        return
    console = Console()
    console.print(_held_table(found["held"]) if held else _table(found["versions"]))
    for one in found["elsewhere"]:
        served = "the app's prior" if one["version"] is None else f"version {one['version']}"
        console.print(f"{one['member']} serves {served} since {_when(one['since_ms'])}", highlight=False)
    if found["held"] and not held:
        last = found["held"][-1]
        console.print(
            f"last held: {_when(last['at_ms'])}, row {last['position']:,}: {last['reason']} (--held lists more)",
            highlight=False,
            markup=False,
        )


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(
        caption=None if rows else "none is published; `rocket publish` or `rocket train --weights` publish one"
    )
    for name in ("", "v", "kind", "published", "rows", *_GATE, "MB"):
        table.add_column(name, no_wrap=True, justify="left" if name in {"", "kind", "published"} else "right")
    table.add_column("served by")
    table.add_column("why")
    for row in rows:
        table.add_row(
            "[green]live[/]" if row["live"] else "",
            str(row["version"]),
            row["kind"] if row["base_version"] is None else f"{row['kind']} of {row['base_version']}",
            _when(row["published_ms"]),
            f"{row['position']:,}",
            *_figures(row["gate"]),
            f"{row['bytes'] / 1e6:.1f}",
            Text("\n".join(row["served_by"])),
            Text(row["why"]),
        )
    return table


def _held_table(rows: list[dict[str, Any]]) -> Table:
    table = Table(caption=None if rows else "nothing was held")
    for name in ("held", "rows", "kind", *_GATE):
        table.add_column(name, no_wrap=True, justify="left" if name in {"held", "kind"} else "right")
    table.add_column("reason")
    for row in rows:
        figures = _figures(row["figures"])
        table.add_row(_when(row["at_ms"]), f"{row['position']:,}", row["kind"], *figures, Text(row["reason"]))
    return table


def _figures(gate: Mapping[str, Any]) -> list[str]:
    return [f"{gate[name]:.3f}" if isinstance(gate.get(name), (int, float)) else "-" for name in _GATE.values()]


def _when(at_ms: int) -> str:
    return f"{datetime.fromtimestamp(at_ms / 1000, UTC):%m-%d %H:%M:%S}"
