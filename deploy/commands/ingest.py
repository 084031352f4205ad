"""`rocket ingest`: events into the example log, from files, or from topics while they are written."""

import json
import sys
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from contracts.app import App
from deploy.memory import one_heap
from deploy.progress import TerminalProgress
from deploy.signals import stopped_by_signals
from flows.settings import load_app_with_settings
from nodes.kafka_url import is_kafka_url

app = typer.Typer(add_completion=False)


@app.command()
def ingest(
    impressions: Annotated[
        list[str], typer.Option("--impressions", help="NDJSON of impressions, repeat for more; or a kafka:// URL.")
    ],
    clicks: Annotated[list[str], typer.Option("--clicks", help="The same of clicks.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the example log, fates and dead letters.")],
    live: Annotated[bool, typer.Option("--live", help="Follow topics until SIGTERM.")] = False,
    until: Annotated[str | None, typer.Option(help="now: read topics to where they end, and settle all.")] = None,
    examples: Annotated[
        str | None, typer.Option("--examples", help="Topics: another folder for the example log, or a kafka:// URL.")
    ] = None,
    dead_letters: Annotated[
        str | None, typer.Option("--dead-letters", help="Topics: a kafka:// URL that they are written to as well.")
    ] = None,
    begin: Annotated[
        str, typer.Option(help="Topics, in a new folder: earliest, latest, ISO time or epoch ms.")
    ] = "earliest",
    runner: Annotated[
        str | None, typer.Option("--runner", help="Topics: prism, flink; embedded with --until now.")
    ] = None,
    job_endpoint: Annotated[str | None, typer.Option("--job-endpoint", help="host:port of a job server.")] = None,
    flink_rest: Annotated[
        str | None, typer.Option("--flink-rest", help="host:port, or host:from-to, of Flink's REST interface.")
    ] = None,
    worker_pool: Annotated[str | None, typer.Option("--worker-pool", help="host:port of Python workers.")] = None,
    metrics_port: Annotated[
        int | None, typer.Option("--metrics-port", min=0, max=65535, help="Topics: /metrics on 127.0.0.1.")
    ] = None,
    app_name: Annotated[str, typer.Option("--app", help="A shipped app, or the folder of yours.")] = "adsim",
    sets: Annotated[list[str] | None, typer.Option("--set", help="section.key=value over app.toml.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The last line of stdout is one JSON object.")] = False,
) -> None:
    """Check, join and featurise events; a run that was stopped or killed is simply run again."""
    topics = [is_kafka_url(source) for source in (*impressions, *clicks)]
    if any(topics) and not all(topics):
        raise typer.BadParameter("impressions and clicks come both from files, or both from topics")
    if any(topics) and (len(impressions), len(clicks)) != (1, 1):
        raise typer.BadParameter("one topic of impressions and one of clicks")
    if any(topics) and (live, until) not in {(True, None), (False, "now")}:
        raise typer.BadParameter("topics are followed with --live, or read to their end with --until now")
    if not any(topics) and (live or until or examples or dead_letters or runner or metrics_port is not None):
        raise typer.BadParameter(
            "--live, --until, --examples, --dead-letters, --runner and --metrics-port need kafka:// URLs"
        )
    loaded = load_app_with_settings(app_name, sets)
    if any(topics):
        where: dict[str, Any] = {"runner": runner or ("prism" if live else "embedded")}
        where |= {"job_endpoint": job_endpoint, "flink_rest": flink_rest, "worker_pool": worker_pool}
        both = {"impressions": impressions[0], "clicks": clicks[0]}
        figures = _topics(loaded, both, out, (examples, dead_letters), where, begin, metrics_port, live=live)
    else:
        figures = _files(loaded, [Path(path) for path in impressions], [Path(path) for path in clicks], out)
    for stream, rows in figures.get("streams", {}).items():
        typer.echo(f"{stream}: " + ", ".join(f"{rows[name]:,} {name.replace('_', '-')}" for name in rows))
    if "examples" in figures:
        typer.echo(f"{figures['examples']:,} examples, {figures['sampled_out']:,} sampled out, in {examples or out}")
    else:
        typer.echo(f"{figures['examples_in_log']:,} examples so far in {examples or out}; run it again to go on")
    if as_json:
        typer.echo(json.dumps(figures))


def _files(loaded: App, impressions: list[Path], clicks: list[Path], out: Path) -> dict[str, Any]:
    from flows import ingest as flow

    with TerminalProgress() as progress:
        progress.stage("ingest")
        return flow.run(loaded, impressions, clicks, out, on_progress=lambda _, done: progress.advance(done))


def _topics(
    loaded: App,
    both: dict[str, str],
    out: Path,
    into: tuple[str | None, str | None],
    where: dict[str, Any],
    begin: str,
    metrics_port: int | None,
    *,
    live: bool,
) -> dict[str, Any]:
    one_heap()
    # The embedded runner cannot be asked to stop: signals end it.
    with nullcontext() if where["runner"] == "embedded" else stopped_by_signals() as stop:
        from flows import ingest_live as flow
        from nodes.metrics_http import Metrics

        with TerminalProgress() as progress, Metrics("ingest") as metrics:
            if metrics_port is not None:
                print(f"metrics on http://127.0.0.1:{metrics.listen(metrics_port)}/metrics", file=sys.stderr)
            read = metrics.gauge("ctr_ingest_events_read", "Events read since this process began, repeats included.")
            progress.stage("ingest")

            def on_progress(_: str, done: int) -> None:
                read.set(done)
                progress.advance(done)
                metrics.ready(True)

            return flow.run(
                loaded,
                both["impressions"],
                both["clicks"],
                out,
                examples=into[0],
                dead_letters=into[1],
                cluster=flow.Cluster(**where),
                begin=_instant(begin),
                until="never" if live else "now",
                stop=stop,
                on_progress=on_progress,
                on_tick=metrics.heartbeat,
            )


def _instant(begin: str) -> Literal["earliest", "latest"] | int:
    """Where a new folder begins.

    >>> _instant("latest"), _instant("1700000000000"), _instant("2023-11-14T22:13:20+00:00")
    ('latest', 1700000000000, 1700000000000)
    """
    if begin == "earliest":
        return "earliest"
    if begin == "latest":
        return "latest"
    if begin.isdigit():
        return int(begin)
    try:
        at = datetime.fromisoformat(begin)
    except ValueError:
        raise typer.BadParameter(f"--begin {begin}: earliest, latest, epoch milliseconds or an ISO time") from None
    return round((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)
