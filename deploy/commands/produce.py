"""`rocket produce`: replay files of events into topics."""

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from contracts.errors import ContractError
from contracts.names import topic
from deploy.progress import TerminalProgress
from deploy.signals import stopped_by_signals
from flows.settings import load_app_with_settings
from nodes.clock import now_ms

app = typer.Typer(add_completion=False)
_HEADER_BYTES = 1024  # of a message, beside its line


@app.command()
def produce(
    to: Annotated[str, typer.Option("--to", help="kafka://host:port[,host:port]; the topics have their usual names.")],
    impressions: Annotated[
        list[Path] | None, typer.Option("--impressions", help="NDJSON of impressions; repeat for more.")
    ] = None,
    clicks: Annotated[list[Path] | None, typer.Option("--clicks", help="NDJSON of clicks; repeat for more.")] = None,
    events: Annotated[
        Path | None, typer.Option("--events", help="Folder with impressions.ndjson and clicks.ndjson.")
    ] = None,
    speed: Annotated[str, typer.Option(help="Event seconds a second: 1, 60, …; or max.")] = "max",
    from_now: Annotated[
        bool, typer.Option("--from-now", help="Move all event times, so that the first event happens now.")
    ] = False,
    headers: Annotated[bool, typer.Option("--headers", help="CloudEvents headers on each record.")] = False,
    app_name: Annotated[str, typer.Option("--app", help="A shipped app, or the folder of yours.")] = "adsim",
    sets: Annotated[list[str] | None, typer.Option("--set", help="section.key=value over app.toml.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The last line of stdout is one JSON object.")] = False,
) -> None:
    """Replay events in the order in which they arrived, keyed by impression id; SIGTERM ends it cleanly."""
    from nodes.kafka_produce import EventTopics, replay
    from nodes.kafka_url import parse_brokers
    from nodes.produce import EventFile, Pacer, arrivals

    loaded = load_app_with_settings(app_name, sets)
    kafka, (first_ms, last_ms) = loaded.config.kafka, loaded.config.ingest.event_times_ms
    found = _files(impressions, clicks, events)
    files = [EventFile(stream, path) for stream, path in found]
    pacer = Pacer(_speed(speed), lambda: time.monotonic_ns() // 1_000_000)
    with (
        stopped_by_signals() as stop,
        TerminalProgress() as progress,
        EventTopics(
            parse_brokers(to), [topic(file.stream) for file in files], kafka, now_ms, headers=headers
        ) as topics,
    ):
        progress.stage("produce")
        began = time.perf_counter()
        lines = arrivals(
            files,
            time_min_ms=first_ms,
            time_max_ms=last_ms,
            max_line_bytes=kafka.max_message_bytes - _HEADER_BYTES,
        )
        done = replay(lines, topics, pacer, stop, from_ms=now_ms() if from_now else None, on_progress=progress.advance)
        seconds = time.perf_counter() - began
    figures: dict[str, Any] = {
        "sent": topics.sent,
        "records": done,
        "seconds": round(seconds, 3),
        "records_per_s": round(done / max(seconds, 1e-9)),
        "stopped": stop.is_set(),
    }
    for name, count in topics.sent.items():
        print(f"{name}: {count:,} records")
    print(f"{done:,} records in {seconds:.1f} s, {figures['records_per_s']:,} a second" + ", stopped" * stop.is_set())
    if as_json:
        print(json.dumps(figures))


def _files(impressions: list[Path] | None, clicks: list[Path] | None, events: Path | None) -> list[tuple[str, Path]]:
    if (events is None) == (not impressions and not clicks):
        raise ContractError("produce: give either --events DIR, or --impressions FILE and --clicks FILE")
    if events is not None:
        impressions, clicks = [events / "impressions.ndjson"], [events / "clicks.ndjson"]
    return [("impressions", path) for path in impressions or []] + [("clicks", path) for path in clicks or []]


def _speed(text: str) -> float | None:
    """None for no pace at all.

    >>> _speed("60"), _speed("max")
    (60.0, None)
    """
    if text == "max":
        return None
    try:
        speed = float(text.removeprefix("x"))
    except ValueError:
        speed = 0.0
    if not 0 < speed < 1e9:
        raise ContractError(f"--speed {text}: is no rate; give a number above 0, such as 1 or 60, or max")
    return speed
