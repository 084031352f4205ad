"""`rocket explain`: what each feature of a candidate adds to its score."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from contracts.errors import ContractError
from flows import explain as flow
from flows.settings import load_app_with_settings
from nodes.weight_stores import open_weights

app = typer.Typer(add_completion=False)
_NARROW = 40  # characters of a value


@app.command()
def explain(
    request: Annotated[Path, typer.Option(help="File with one JSON request a line, or - for stdin.")],
    weights: Annotated[str | None, typer.Option(help="redis://host:port, or the folder of an embedded Valkey.")] = None,
    checkpoints: Annotated[Path | None, typer.Option(help="Or a trainer's folder: its newest checkpoint.")] = None,
    candidate: Annotated[str | None, typer.Option(help="Item id of the candidate; the first by default.")] = None,
    line: Annotated[int, typer.Option(min=1, help="Which line of the file.")] = 1,
    version: Annotated[int | None, typer.Option(help="Which version; the current one by default.")] = None,
    top: Annotated[int, typer.Option(min=1, help="Rows of the table.")] = 20,
    app_name: Annotated[
        str, typer.Option("--app", help="A shipped app's name, or a folder with an app.toml.")
    ] = "adsim",
    sets: Annotated[list[str] | None, typer.Option("--set", help="section.key=value, over the app's file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The last line of stdout is one JSON object.")] = False,
) -> None:
    """Name the features with the largest contributions to one score; together they make the logit.

    Each is a Shapley value, in logits, against the same request with every feature missing.
    """
    if (weights is None) == (checkpoints is None):
        raise typer.BadParameter("give --weights or --checkpoints, one of the two")
    loaded = load_app_with_settings(app_name, sets)
    message, link = _line(request, line), loaded.config.labels.link
    of: dict[str, Any]
    if weights is not None:
        key = loaded.config.publish.key
        with open_weights(weights, loaded.name, schema_id=loaded.schema_id, key=key, create=False) as store:
            found = store.fetch(version)
        arrays, of, link = found.arrays, {"model_version": found.manifest.version}, found.manifest.link  # type: ignore[assignment]
    else:
        from flows.checkpoint_light import light_of

        name, arrays = light_of(loaded, Path(str(checkpoints)))
        of = {"checkpoint": name}
    told = of | flow.run(loaded, message, arrays, candidate=candidate, link=link)
    if as_json:
        print(json.dumps(told))
        return
    _show(told, top)


def _line(path: Path, number: int) -> bytes:
    try:
        text = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except OSError as error:
        raise ContractError(f"{path}: cannot be read ({error.strerror}); give a file with one JSON request") from error
    lines = [line for line in text.split(b"\n") if line.strip()]
    if number > len(lines):
        raise ContractError(f"{path}: has {len(lines)} lines, and --line says {number}; give one that is there")
    return lines[number - 1]


def _show(told: dict[str, Any], top: int) -> None:
    which = f"version {told['model_version']}" if "model_version" in told else told["checkpoint"]
    print(
        f"{told['item_id']}: predicted CTR {told['pctr']:.4f} (logit {told['logit']:+.4f}) by {which}; with every "
        f"feature missing {told['reference_pctr']:.4f} (logit {told['reference']:+.4f})"
    )
    table = Table("feature", "value", "adds", "wide", "pairs", "mlp")
    for row in told["contributions"][:top]:
        parts = [f"{row[name]:+.4f}" for name in ("total", "wide", "pairs", "mlp")]
        table.add_row(row["feature"], Text(row["value"][:_NARROW]), *parts)
    Console().print(table)
    left = told["contributions"][top:]
    if left:
        print(f"{len(left)} more add {sum(row['total'] for row in left):+.4f} together")
