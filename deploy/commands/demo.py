"""`rocket demo`: the whole loop in one go."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from deploy.progress import TerminalProgress
from flows import demo as flow
from flows.run_folder import RunFolder
from flows.settings import load_app_with_settings
from nodes.clock import now_ms

app = typer.Typer(add_completion=False)
_STACK = Path("runs/stack")


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", help="The run's folder.")],
    app_name: Annotated[str, typer.Option("--app", help="adsim, kuairand, or a folder with an app.toml.")] = "adsim",
    data: Annotated[Path | None, typer.Option("--data", help="Folder with the app's source files or events.")] = None,
    impressions: Annotated[int, typer.Option("--impressions", min=1000, help="How many to simulate.")] = 300_000,
    live: Annotated[bool, typer.Option("--live", help="On the stack of `rocket up`: Kafka in, versions out.")] = False,
    seconds: Annotated[float, typer.Option("--seconds", min=20, help="With --live: of traffic.")] = 125,
    per_s: Annotated[float, typer.Option("--per-s", min=1, help="With --live: impressions a second.")] = 2100,
    runner: Annotated[str, typer.Option("--runner", help="With --live: prism or flink.")] = "prism",
    stack: Annotated[Path, typer.Option("--stack", help="With --live: the folder of `rocket up`.")] = _STACK,
    sets: Annotated[list[str] | None, typer.Option("--set", help="section.key=value over app.toml.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The last line of stdout is one JSON object.")] = False,
) -> None:
    """Simulate or import events, ingest, co-train, publish, score held-out requests and judge them."""
    if live:
        _live(app_name, out, stack, sets or [], (seconds, per_s, runner), as_json=as_json)
        return
    chosen = load_app_with_settings(app_name, sets)
    with TerminalProgress() as progress:
        summary = flow.run(chosen, out, progress, impressions=impressions, data=data)
    console = Console(stderr=as_json)
    console.print(_quality(summary))
    console.print(_line(summary))
    console.print(f"Report: {RunFolder(out).report}")
    if as_json:
        typer.echo(json.dumps(summary))


def _live(
    app_name: str, out: Path, stack: Path, sets: list[str], traffic: tuple[float, float, str], *, as_json: bool
) -> None:
    """The loop on topics; exit code 1 where the count at the end is not exact, or a request got no answer."""
    from deploy.live import demo as live_demo  # needs Kafka's client, which the bounded demo does without

    seconds, per_s, runner = traffic
    # A model of its own: versions of an earlier demo, or of a real run on the same stack, are not this one's to judge.
    given = [*live_demo.LIVE, *sets, f"name={load_app_with_settings(app_name).name}-live-{now_ms():x}"]
    with TerminalProgress() as progress:
        summary = live_demo.run(
            load_app_with_settings(app_name, given),
            out,
            live_demo.read_stack(stack, runner),
            live_demo.Plan(seconds=seconds, per_s=per_s, runner=runner),
            given,
            progress,
        )
    console, figures = Console(stderr=as_json), summary["live"]
    table = Table("live", "")
    for name, value in figures.items():
        table.add_row(name.replace("_", " "), f"{value:,.2f}" if isinstance(value, float) else str(value))
    console.print(table)
    console.print(f"Report: {RunFolder(out).report}")
    if as_json:
        typer.echo(json.dumps(summary))
    if not figures["exact"] or figures["unanswered"]:
        raise typer.Exit(1)


def _quality(summary: dict[str, Any]) -> Table:
    names = [
        name
        for name in ("auc", "gauc", "logloss", "expected_logloss", "ne", "calibration")
        if any(row.get(name) is not None for row in summary["test"].values())
    ]
    table = Table("held out", *[name.replace("_", " ") for name in names])
    for model, row in summary["test"].items():
        table.add_row(model, *["-" if row.get(name) is None else f"{row[name]:.4f}" for name in names])
    return table


def _line(summary: dict[str, Any]) -> str:
    rows, train, serve = summary["rows"], summary["train"], summary["serve"]
    return (
        f"{rows['impressions_read']:,} impressions and {rows['clicks_read']:,} clicks read, "
        f"{rows['dead_lettered']:,} dead letters; "
        f"{train['examples']:,} examples learnt in {train['wall_seconds']:.0f} s, {train['checkpoints']} checkpoints, "
        f"{train['versions']} versions; {serve['requests']:,} requests answered by version {serve['model_version']}, "
        f"p50 {serve['p50_us']:,.0f} us, p99 {serve['p99_us']:,.0f} us; peak memory {summary['peak_rss_mb']:,.0f} MB"
    )
