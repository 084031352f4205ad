"""`rocket train`: co-train booster and light net on an example log; checkpoint and publish."""

import json
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from contracts.errors import ContractError
from deploy.progress import TerminalProgress
from flows import train as flow
from flows.settings import load_app_with_settings
from nodes.weight_stores import open_weights

app = typer.Typer(add_completion=False)


def instant_ms(text: str) -> int:
    """Epoch milliseconds from those digits, or from an ISO time; UTC where it names no zone.

    Raises:
        ContractError: it is neither.

    >>> instant_ms("1651622400000"), instant_ms("2022-05-04"), instant_ms("2022-05-04T02:00:00+02:00")
    (1651622400000, 1651622400000, 1651622400000)
    """
    if text.isdecimal() and text.isascii() and len(text) > 8:
        return int(text)
    try:
        when = datetime.fromisoformat(text)
    except ValueError as error:
        raise ContractError(f"'{text}' is no time: give 2022-05-04T00:00:00Z, or epoch milliseconds") from error
    return round((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() * 1000)


@contextmanager
def _stopped_by_signals() -> Iterator[threading.Event]:
    """An event that SIGTERM and Ctrl-C set: the minibatch at hand ends, a checkpoint is written, the exit is clean."""
    stop = threading.Event()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _note(figures: Mapping[str, Any]) -> str:
    return " ".join(f"{model} {row['logloss']:.4f}" for model, row in figures.items() if row["logloss"] is not None)


@app.command()
def train(
    examples: Annotated[Path, typer.Option(help="The example log's folder, as `rocket ingest` writes it.")],
    checkpoints: Annotated[
        Path, typer.Option(help="Folder of this trainer's checkpoints; it goes on from the newest.")
    ],
    app_name: Annotated[
        str, typer.Option("--app", help="A shipped app's name, or a folder with an app.toml.")
    ] = "adsim",
    weights: Annotated[
        str | None, typer.Option(help="Publish to redis://host:port, or to the folder of an embedded Valkey.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Hold out examples from that time on: ISO, or epoch ms.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Train anew, whatever checkpoints stand there.")] = False,
    sets: Annotated[list[str] | None, typer.Option("--set", help="section.key=value, over the app's file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The last line of stdout is one JSON object.")] = False,
) -> None:
    """Learn the log in one pass; SIGTERM ends it with a checkpoint, and the same command goes on from there."""
    loaded = load_app_with_settings(app_name, sets)
    until_ms = None if until is None else instant_ms(until)
    publish = loaded.config.publish
    opened = (
        nullcontext()
        if weights is None
        else open_weights(weights, loaded.name, schema_id=loaded.schema_id, keep=publish.keep, ttl_s=publish.ttl_s)
    )
    with _stopped_by_signals() as stop, TerminalProgress() as progress, opened as store:
        progress.stage("train")
        figures = flow.run(
            loaded,
            examples,
            checkpoints,
            store=store,
            until_ms=until_ms,
            resume=not fresh,
            on_progress=lambda done, total, shown: progress.advance(done, total, _note(shown)),
            stop=stop,
        )
    if as_json:
        print(json.dumps(figures))
        return
    print(
        f"{figures['examples']:,} examples learnt, {figures['pending']:,} pending, {figures['held_out']:,} held out, "
        f"{figures['redelivered']:,} refused as trained before"
    )
    for model, row in figures["progressive"].items():
        print(
            f"{model:<8} AUC {row['auc'] or float('nan'):.4f}  logloss {row['logloss']:.4f}  (predicted, then learnt)"
        )
    print(f"{figures['checkpoints']} checkpoints written to {checkpoints}, {figures['versions']} versions published")
    for decision in figures["decisions"]:
        if decision["outcome"] == "held":
            print(f"held at row {decision['position']:,}: {decision['reason']}")
