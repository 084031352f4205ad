"""`rocket bench`: each stage against a named peer in the same run; medians and ratios."""

import importlib
import inspect
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from contracts.errors import RocketError, did_you_mean
from deploy import benches
from deploy.bench_options import BenchOptions
from deploy.bench_results import columns_of, figures_and_tables, shown, write_results

app = typer.Typer(add_completion=False)
_UNBOUND = 10_000  #: columns
#: Options that only some stages have a use for.
_ONLY = {"variants": ("quality", "hints"), "impressions": ("hints",), "peer_python": ("train", "quality")}


def _stages() -> list[str]:
    """Modules of `deploy.benches`; one that is named after a stage and more is a part of it."""
    stems = [path.stem for path in Path(benches.__path__[0]).glob("*.py") if path.stem != "__init__"]
    whole = [stem for stem in stems if not any(stem.startswith(f"{other}_") for other in stems)]
    return sorted(stem.replace("_", "-") for stem in whole)


def _run_of(stage: str) -> Callable[..., dict[str, Any]]:
    run: Callable[..., dict[str, Any]] = importlib.import_module(f"deploy.benches.{stage.replace('-', '_')}").run
    return run


def _takes(run: Callable[..., Any], *names: str) -> bool:
    return not {*names}.isdisjoint(inspect.signature(run).parameters)


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def _refuse_unused(stage: str, options: BenchOptions) -> None:
    """An option that would change nothing is a misunderstanding; `--out` serves every stage."""
    named = ("data", "seeds", "peer_python", "variants", "impressions")
    given = [name for name in named if getattr(options, name) is not None]
    given += ["device"] if options.device != "auto" else []
    for name in given:
        only = _ONLY.get(name)
        if stage == "all" and name != "peer_python":
            raise RocketError(
                f"--{_dashed(name)} is a stage's own and `all` has many; measure one stage, as in `rocket bench paper`"
            )
        if only is not None and stage not in {*only, "all"}:
            raise RocketError(
                f"--{_dashed(name)} is for `rocket bench {'` and `'.join(only)}`, not for {stage}; leave it out"
            )
        if stage != "all" and not _takes(_run_of(stage), "options", name):
            raise RocketError(f"`rocket bench {stage}` has no use for --{_dashed(name)}; leave it out")


def _measure(stage: str, options: BenchOptions, *, quick: bool) -> dict[str, Any]:
    run = _run_of(stage)
    if _takes(run, "options"):
        return run(quick, options)
    return run(quick, peer_python=options.peer_python) if _takes(run, "peer_python") else run(quick)


def _console(*, stderr: bool) -> Console:
    """Where tables go; they are whole where no terminal bounds them, as in a file or a pipe."""
    console = Console(stderr=stderr)
    return console if console.is_terminal else Console(stderr=stderr, width=_UNBOUND)


def _print(stage: str, results: dict[str, Any], console: Console) -> None:
    figures, tables = figures_and_tables(results)
    for name, rows in tables.items():
        table = Table(*columns_of(rows), title=f"rocket bench {stage}: {name}", title_justify="left")
        for row in rows:
            table.add_row(*(shown(row.get(column)) for column in columns_of(rows)))
        console.print(table)
    table = Table("figure", "value", title=f"rocket bench {stage}", title_justify="left")
    for name, value in figures.items():
        table.add_row(name, shown(value))
    console.print(table)


@app.command()
def bench(
    stage: Annotated[str, typer.Argument(help="A stage, or `all`; without one they are listed.")] = "",
    quick: Annotated[bool, typer.Option("--quick", help="Small inputs and few repeats: checks that it runs.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The last line of stdout is one JSON object.")] = False,
    data: Annotated[Path | None, typer.Option(help="Folder of real data, for a stage that reads some.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the results: JSON, CSV, Markdown, pictures.")] = None,
    seeds: Annotated[int | None, typer.Option(help="How many seeds a median is of, for a stage that has some.")] = None,
    device: Annotated[str, typer.Option(help="Of torch: auto, cpu or cuda, for a stage that trains.")] = "auto",
    peer_python: Annotated[
        Path | None,
        typer.Option(help="With `train` or `quality`: a Python that has fuxictr (or deepctr-torch), measured beside."),
    ] = None,
    variants: Annotated[
        str | None,
        typer.Option(help="With `quality` or `hints`: only these rows of the table, between semicolons."),
    ] = None,
    impressions: Annotated[
        int | None, typer.Option(help="With `hints`: impressions of each simulated world; 0 with --data: none of them.")
    ] = None,
) -> None:
    """Measure a stage of Rocket against its peers."""
    stages = _stages()
    if not stage:
        typer.echo("stages: " + ", ".join(stages) + ", all")
        return
    if stage != "all" and stage not in stages:
        raise RocketError(f"no stage '{stage}' to measure; {did_you_mean(stage, stages)}")
    named = None if variants is None else tuple(name for part in variants.split(";") if (name := part.strip()))
    options = BenchOptions(data, out, seeds, device, peer_python, named, impressions)
    _refuse_unused(stage, options)
    results: dict[str, Any] = {}
    for name in stages if stage == "all" else [stage]:
        told = options if name in _ONLY["peer_python"] else replace(options, peer_python=None)
        results[name] = _measure(name, told, quick=quick)
        _print(name, results[name], _console(stderr=as_json))
        if out is not None:
            write_results(out, name, results[name], told.command(name, quick=quick))
    if as_json:
        typer.echo(json.dumps(results if stage == "all" else results[stage]))
