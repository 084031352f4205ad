"""`rocket train`: co-train booster and light net on an example log; checkpoint and publish."""

import json
import os
import sys
import threading
from collections.abc import Mapping
from contextlib import ExitStack, closing, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from contracts.app import App
from contracts.errors import ContractError
from contracts.stores import WeightStore
from deploy.progress import TerminalProgress
from deploy.signals import on_signals, stopped_by_signals
from flows.settings import load_app_with_settings
from nodes.hasty_weights import HastyWeights
from nodes.kafka_url import is_kafka_url
from nodes.weight_stores import open_weights

if TYPE_CHECKING:
    from flows.train_start import Start

app = typer.Typer(add_completion=False)
_BROKER_S = 5.0  # SIGTERM is answered within 10 s
_RESTORE_S = 60.0  # a large checkpoint
_STORE_S = 2.0  # training is held back that long by a store that hangs, once


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


def _note(figures: Mapping[str, Any]) -> str:
    return " ".join(f"{model} {row['logloss']:.4f}" for model, row in figures.items() if row["logloss"] is not None)


@app.command()
def train(
    examples: Annotated[str, typer.Option(help="The example log: a folder, or kafka://host:port/topic.")],
    checkpoints: Annotated[
        Path, typer.Option(help="Folder of this trainer's checkpoints; it goes on from the newest.")
    ],
    app_name: Annotated[
        str, typer.Option("--app", help="A shipped app's name, or a folder with an app.toml.")
    ] = "adsim",
    weights: Annotated[
        str | None, typer.Option(help="Publish to redis://host:port, or to the folder of an embedded Valkey.")
    ] = None,
    live: Annotated[bool, typer.Option("--live", help="Follow a log that grows, until SIGTERM.")] = False,
    metrics_port: Annotated[
        int | None, typer.Option("--metrics-port", min=0, max=65535, help="With --live: /metrics on 127.0.0.1.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Hold out examples from that time on: ISO, or epoch ms.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Train anew, whatever checkpoints stand there.")] = False,
    light_from: Annotated[
        str | None,
        typer.Option(
            help="A new trainer's light net begins as the newest version there: redis://host:port, the folder of an "
            'embedded Valkey, or "weights" for those of --weights. A checkpoint goes before it.'
        ),
    ] = None,
    new_booster: Annotated[
        bool,
        typer.Option("--new-booster", help="Another booster than the checkpoint's begins anew; the light net stays."),
    ] = False,
    sets: Annotated[list[str] | None, typer.Option("--set", help="section.key=value, over the app's file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The last line of stdout is one JSON object.")] = False,
) -> None:
    """Learn the log in one pass; SIGTERM ends it with a checkpoint, and the same command goes on from there."""
    if live and until is not None:
        raise typer.BadParameter("--live never ends, so nothing can be held out; leave --until away")
    if metrics_port is not None and not live:
        raise typer.BadParameter("--metrics-port needs --live")
    loaded = load_app_with_settings(app_name, sets)
    until_ms = None if until is None else instant_ms(until)
    publish = loaded.config.publish
    opened = (
        nullcontext()
        if weights is None
        else open_weights(
            weights, loaded.name, schema_id=loaded.schema_id, keep=publish.keep, ttl_s=publish.ttl_s, key=publish.key
        )
    )
    if light_from == "weights" and weights is None:
        raise typer.BadParameter("--light-from weights needs --weights")
    where = examples if is_kafka_url(examples) else Path(examples)
    with on_signals(lambda: os._exit(0)):  # torch takes seconds, and before it there is nothing to save
        from flows import train as bounded
        from flows.train_start import Start

    with stopped_by_signals() as stop, TerminalProgress() as progress, opened as store, ExitStack() as stack:
        progress.stage("train")
        before = None if light_from is None else store
        if light_from not in {None, "weights", weights}:
            before = stack.enter_context(
                open_weights(str(light_from), loaded.name, schema_id=loaded.schema_id, key=publish.key, create=False)
            )
        start = Start(before, new_booster)
        if live:
            figures = _follow(loaded, where, checkpoints, store, stop, progress, metrics_port, start, resume=not fresh)
        else:
            figures = bounded.run(
                loaded,
                where,
                checkpoints,
                store=store,
                until_ms=until_ms,
                resume=not fresh,
                start=start,
                on_progress=lambda done, total, shown: progress.advance(done, total, _note(shown)),
                stop=stop,
            )
    if as_json:
        print(json.dumps(figures))
        return
    _say_live(figures, checkpoints) if live else _say(figures, checkpoints)


def _follow(
    app: App,
    where: str | Path,
    checkpoints: Path,
    store: WeightStore | None,
    stop: threading.Event,
    progress: TerminalProgress,
    metrics_port: int | None,
    start: "Start",
    *,
    resume: bool,
) -> dict[str, Any]:
    """Live training; a broker that does not answer must not hold back the answer to SIGTERM."""
    from flows import train_live
    from nodes.example_logs import open_examples
    from nodes.metrics_http import Metrics
    from nodes.train_metrics import TrainMetrics

    with Metrics("train") as metrics:
        metrics.heartbeat(may_take_s=_RESTORE_S)
        if metrics_port is not None:
            print(f"metrics on http://127.0.0.1:{metrics.listen(metrics_port)}/metrics", file=sys.stderr)
        measured = TrainMetrics(metrics)

        def on_beat(figures: dict[str, Any]) -> None:
            progress.advance(figures["position"], note=_note(figures["progressive"]))
            measured(figures)
            metrics.heartbeat()
            metrics.ready(True)

        kafka = app.config.kafka.model_copy(
            update={"request_timeout_s": min(app.config.kafka.request_timeout_s, _BROKER_S)}
        )
        with closing(open_examples(where, app, kafka)) as log:
            return train_live.run(
                app,
                log,
                checkpoints,
                called=str(where),
                stop=stop,
                store=None if store is None else HastyWeights(store, patience_s=_STORE_S),
                resume=resume,
                start=start,
                on_beat=on_beat,
            )


def _say(figures: Mapping[str, Any], checkpoints: Path) -> None:
    print(
        f"{figures['examples']:,} examples learnt, {figures['pending']:,} pending, {figures['held_out']:,} held out, "
        f"{figures['redelivered']:,} refused as trained before{_skipped(figures)}"
    )
    for model, row in figures["progressive"].items():
        print(
            f"{model:<8} AUC {row['auc'] or float('nan'):.4f}  logloss {row['logloss']:.4f}  (predicted, then learnt)"
        )
    print(f"{figures['checkpoints']} checkpoints written to {checkpoints}, {figures['versions']} versions published")
    for decision in figures["decisions"]:
        if decision["outcome"] == "held":
            print(f"held at row {decision['position']:,}: {decision['reason']}")


def _skipped(figures: Mapping[str, Any]) -> str:
    if not figures["skipped_batches"]:
        return ""
    return f", {figures['skipped_batches']:,} minibatches ({figures['skipped_rows']:,} rows) skipped as not finite"


def _say_live(figures: Mapping[str, Any], checkpoints: Path) -> None:
    held = ", ".join(f"{count} held ({kind})" for kind, count in sorted(figures["held"].items()))
    print(
        f"stopped at row {figures['position']:,}: {figures['examples']:,} examples learnt, {figures['pending']:,} "
        f"pending, {figures['redelivered']:,} refused as trained before{_skipped(figures)}"
    )
    print(
        f"{figures['checkpoints']} checkpoints written to {checkpoints}, {figures['versions']} versions published"
        + (f", {held}" if held else "")
    )
