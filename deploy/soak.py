"""The whole live loop under steady traffic for many minutes: does anything grow that should not?

stack ─▶ `deploy.live.demo` (sender, ingest, train, serve, asker, audit) ◀─ a look every 5 s at every process and folder
"""

import json
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import polars as pl
import typer
from rich.console import Console
from rich.table import Table

from contracts.errors import RocketError
from deploy.live import demo
from deploy.live.process_watch import ProcessWatch, files_in, growth, robust_slope
from deploy.local.stack import Stack
from deploy.progress import TerminalProgress
from flows.progress import Progress
from flows.run_folder import RunFolder
from flows.settings import load_app_with_settings

_WARM_UP = 1 / 3  # of the traffic: tables fill, allocators settle
#: The sender shares the machine. Where it stalls for longer than a quiet partition is waited for, event time goes on
#: without it, and what it sends then is late: counted, but no leak.
_SETS = ("live.idle_s=30",)
_LOOK_S, _COUNT_S = 5.0, 15.0
_DRAIN_S = 600.0  # on a machine that has other work the log may have minutes to make up

app = typer.Typer(add_completion=False)


@dataclass(slots=True)
class _Stages:
    """When each stage of the demo began, by the watch."""

    inner: Progress
    at_s: Callable[[], float]
    began: dict[str, float] = field(default_factory=dict)

    def stage(self, name: str, total: int | None = None) -> None:
        self.began[name] = self.at_s()
        self.inner.stage(name, total)

    def advance(self, done: int, total: int | None = None, note: str = "") -> None:
        self.inner.advance(done, total, note)


class _FileCount:
    """Counts the files of a run's folders while the `with` block runs."""

    def __init__(self, folder: RunFolder, at_s: Callable[[], float]) -> None:
        self._folders = [*(folder.ingest / name for name in ("fates", "dead_letters", "positions", "examples")),
                         folder.checkpoints]  # fmt: skip
        self._at_s, self._stop = at_s, threading.Event()
        self._thread = threading.Thread(target=self._count, name="file-count", daemon=True)
        self.rows: list[dict[str, float]] = []

    def __enter__(self) -> "_FileCount":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _count(self) -> None:
        while not self._stop.is_set():
            self.rows.append({"at_s": self._at_s(), **files_in(self._folders)})
            self._stop.wait(_COUNT_S)


def run(out: Path, *, minutes: float, per_s: float, seed: int, progress: Progress, sets: list[str]) -> dict[str, Any]:
    """Bring a stack up, let it work, take it down, and tell how everything grew.

    Args:
        out: takes the stack, the run, `samples.parquet` and `soak.json`.
        minutes: of traffic.
        per_s: impressions a second.
        seed: of the traffic.
        progress: told how far it is.
        sets: section.key=value over what the live demo sets.

    Returns:
        live (as of `rocket demo --live`), audit, processes (name -> figures of `growth`), files (folder -> count at the
        end and growth a minute), minutes, per_s, warm_up_s.

    Raises:
        RocketError: a part of it failed.
    """
    stack, given = Stack(out / "stack"), [*demo.LIVE, *_SETS, *sets]
    plan = demo.Plan(seconds=minutes * 60, per_s=per_s, seed=seed, drain_s=_DRAIN_S)
    try:
        content = stack.up()
        with (
            ProcessWatch("soak", _LOOK_S) as watch,
            _FileCount(RunFolder(out / "run"), lambda: watch.at_s) as counted,
        ):
            stages = _Stages(progress, lambda: watch.at_s)
            try:
                summary = demo.run(load_app_with_settings("adsim", given), out / "run", content, plan, given, stages)
            finally:
                watch.samples.write_parquet(out / "samples.parquet")
    finally:
        if stack.begun:  # else what went wrong is told, and not that there is nothing to stop
            stack.down()
    began_s, ended_s = stages.began["live"], stages.began["drain"]
    from_s = began_s + (ended_s - began_s) * _WARM_UP
    figures = {
        "minutes": minutes,
        "per_s": per_s,
        "warm_up_s": from_s - began_s,
        "live": summary["live"],
        "audit": summary["audit"],
        "processes": growth(watch.samples, from_s, ended_s),
        "files": _files(pl.DataFrame(counted.rows), from_s, ended_s),
    }
    (out / "soak.json").write_text(json.dumps(figures, indent=2) + "\n")
    return figures


def _files(counted: pl.DataFrame, from_s: float, until_s: float) -> dict[str, dict[str, float]]:
    steady = counted.filter(pl.col("at_s").is_between(from_s, until_s))
    at = steady["at_s"].to_list()
    return {
        name: {"last": float(counted[name][-1]), "per_minute": robust_slope(at, steady[name].to_list()) * 60}
        for name in counted.columns
        if name != "at_s"
    }


def _tables(figures: Mapping[str, Any], console: Console) -> None:
    table = Table("process", "RSS MB", "MB/h", "files open", "/h", "threads", "/h", "CPU", title="after warm-up")
    for name, row in figures["processes"].items():
        table.add_row(
            name,
            f"{row['rss_mb']:.0f}",
            f"{row['rss_mb_per_hour']:+.1f}",
            f"{row['fds']:.0f}",
            f"{row['fds_per_hour']:+.1f}",
            f"{row['threads']:.0f}",
            f"{row['threads_per_hour']:+.1f}",
            f"{row['cpu']:.2f}",
        )
    console.print(table)
    files = Table("folder", "files", "a minute")
    for name, row in figures["files"].items():
        files.add_row(name, f"{row['last']:.0f}", f"{row['per_minute']:+.1f}")
    console.print(files)


def _end(*_: object) -> None:
    """On SIGTERM: stop what was started, and leave; another one does not cut that short."""
    signal.signal(signal.SIGTERM, lambda *_: None)
    sys.exit(143)


@app.command()
def soak(
    minutes: Annotated[float, typer.Option("--minutes", min=0.5, help="Of traffic.")] = 15,
    per_s: Annotated[float, typer.Option("--per-s", min=1, help="Impressions a second.")] = 1200,
    out: Annotated[Path | None, typer.Option("--out", help="Keep everything there; by default nothing.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the traffic.")] = 1,
    sets: Annotated[list[str] | None, typer.Option("--set", help="section.key=value over app.toml.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The last line of stdout is one JSON object.")] = False,  # noqa: FBT002  # as typer takes it
) -> None:
    """Run the live loop under steady traffic; exit 1 where an example was lost or doubled."""
    signal.signal(signal.SIGTERM, _end)  # or the stack would outlive us
    with tempfile.TemporaryDirectory(prefix="soak-") as scratch, TerminalProgress() as progress:
        folder = Path(scratch) if out is None else out
        figures = run(folder, minutes=minutes, per_s=per_s, seed=seed, progress=progress, sets=sets or [])
    _tables(figures, Console(stderr=as_json))
    live = figures["live"]
    typer.echo(
        f"{live['impressions_per_s']:.0f} impressions/s, {live['lost']} lost, {live['doubled']} doubled, "
        f"{'exact' if live['exact'] else 'NOT exact'}, {live['unanswered']} of {live['requests']} requests unanswered",
        err=as_json,
    )
    if as_json:
        typer.echo(json.dumps(figures))
    if not live["exact"]:
        raise typer.Exit(1)


if __name__ == "__main__":
    try:
        app()
    except RocketError as error:
        typer.echo(f"rocket: {error}", err=True)
        sys.exit(1)
