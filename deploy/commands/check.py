"""`rocket check`: an app, and files against its data contracts."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from contracts.app import App
from deploy.progress import TerminalProgress
from flows import check_app
from flows.settings import load_app_with_settings

app = typer.Typer(add_completion=False)
_File = Annotated[Path | None, typer.Option(help="A file of JSON lines.")]


@app.command()
def check(
    app_name: Annotated[str, typer.Option("--app", help="An app: a name or a folder.")] = "adsim",
    impressions: _File = None,
    clicks: _File = None,
    requests: _File = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Line numbers to name for each breach.")] = 5,
    gx_rows: Annotated[int, typer.Option(min=1, help="Rows of a file that Great Expectations sees.")] = 100_000,
    strict: Annotated[bool, typer.Option("--strict", help="An id that stands twice is a breach.")] = False,
    write_docs: Annotated[
        Path | None, typer.Option(help="Write JSON Schemas and the AsyncAPI document into this folder.")
    ] = None,
    sets: Annotated[list[str] | None, typer.Option("--set", help="section.key=value over app.toml.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The last line of stdout is one JSON object.")] = False,
) -> None:
    """Validate an app, and files against its data contracts; exit 1 on any breach.

    Files are read as ingest and the scorer read them, and every row is checked twice: by Rocket's own check and by
    Great Expectations, whose suite is compiled from the same contract.
    """
    chosen = load_app_with_settings(app_name, sets)
    console = Console(stderr=as_json)
    given = {"impressions": impressions, "clicks": clicks, "requests": requests}
    files = {stream: path for stream, path in given.items() if path is not None}
    about = check_app.run(chosen)
    if write_docs is not None:
        about["docs"] = [str(path) for path in check_app.write_docs(chosen, write_docs)]
        console.print(f"wrote {', '.join(about['docs'])}", soft_wrap=True, highlight=False)
    if files:
        about = _check_files(chosen, files, limit=limit, gx_rows=gx_rows, strict=strict)
        for stream, found in about["files"].items():
            _show_file(console, stream, found, gx_rows)
    elif write_docs is None:
        _show_app(console, about)
    if as_json:
        typer.echo(json.dumps(about))
    if not about["ok"]:
        raise typer.Exit(1)


def _check_files(chosen: App, files: dict[str, Path], *, limit: int, gx_rows: int, strict: bool) -> dict[str, Any]:
    from flows import check as flow  # reads Great Expectations, which checking an app alone does not need

    with TerminalProgress() as progress:
        return flow.run(chosen, files, limit=limit, gx_rows=gx_rows, strict=strict, on_progress=progress)


def _show_app(console: Console, about: dict[str, Any]) -> None:
    table = Table("feature", "kind", "side", "reads", "gives", "rows", "nets")
    for row in about["features"]:
        rows = "" if row["rows"] is None else f"{row['rows']:,}"
        table.add_row(row["name"], row["kind"], row["side"], ", ".join(row["reads"]), row["gives"], rows, row["nets"])
    console.print(table)
    columns = ", ".join(f"{c['stream']} {c['version']} ({c['columns']} columns)" for c in about["contracts"])
    console.print(
        f"{about['app']}: good. schema_id {about['schema_id']}; {columns}; {about['light_rows']:,} embedding rows "
        f"in the light net, {about['booster_rows']:,} in all, {about['embedding_dim']} wide",
        soft_wrap=True,
        highlight=False,
    )


def _show_file(console: Console, stream: str, found: dict[str, Any], gx_rows: int) -> None:
    if found["breaches"]:
        table = Table("checked by", "rule, column", "rows", "first lines", "detail", title=f"{stream}: breaches")
        for breach in found["breaches"]:
            lines = ", ".join(map(str, breach["first_lines"]))
            more = ", …" if breach["rows"] > len(breach["first_lines"]) else ""
            rule = "\n".join(filter(None, (breach["rule"], breach["column"])))
            table.add_row(*map(Text, (breach["by"], rule, f"{breach['rows']:,}", lines + more, breach["detail"])))
        console.print(table)
    for note in found["notes"]:
        console.print(f"note: {note}", soft_wrap=True, highlight=False)
    sampled = f", picked from the file's (--gx-rows {gx_rows})" if found["gx_rows"] >= gx_rows else ""
    verdict = "the Polars check and it DISAGREE" if found["disagreements"] else "the Polars check agrees on each"
    console.print(
        f"{stream} {found['path']}: {found['lines']:,} lines, {found['good']:,} good. Great Expectations: "
        f"{found['gx_expectations']} expectations on {found['gx_rows']:,} rows{sampled}; {verdict}.",
        soft_wrap=True,
        highlight=False,
    )
