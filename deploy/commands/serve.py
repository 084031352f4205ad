"""`rocket serve`: answer ad requests from Kafka with the newest published weights."""

import json
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from contracts.names import topic
from deploy.signals import stopped_by_signals
from deploy.workers import run_workers
from flows import serve_kafka as flow
from flows.settings import load_app_with_settings
from nodes.catalogue_topic import open_catalogue
from nodes.kafka_url import KafkaUrl, parse_kafka_url
from nodes.redis_errors import masked

app = typer.Typer(add_completion=False)
_NOTHING: dict[str, Any] = {"requests": 0, "by_source": {}, "errors": {}, "swaps": 0, "weights_refused": {},
                            "last_refusal": None, "model_version": None, "left": 0}  # fmt: skip
_LOCKS = Path.home() / ".cache" / "rocket" / "serve"


@app.command()
def serve(
    requests: Annotated[str, typer.Option(help="kafka://host:port/topic of the requests.")],
    weights: Annotated[str, typer.Option(help="redis://host:port, or the folder of an embedded Valkey.")],
    responses: Annotated[
        str | None, typer.Option(help="kafka://host:port/topic of the answers; ctr.responses.v1 there by default.")
    ] = None,
    app_name: Annotated[
        str, typer.Option("--app", help="A shipped app's name, or a folder with an app.toml.")
    ] = "adsim",
    group: Annotated[
        str | None, typer.Option(help="Consumer group whose members share the requests; rocket-<app> by default.")
    ] = None,
    member: Annotated[
        str | None,
        typer.Option(help="This scorer's own name in the group, kept over restarts; by default one per host is found."),
    ] = None,
    begin: Annotated[
        Literal["earliest", "latest"], typer.Option(help="Where a group begins that never answered anything.")
    ] = "earliest",
    catalogue: Annotated[
        str | None,
        typer.Option(help="Items (.parquet, .ndjson, kafka://host:port/topic) whose candidates may come by id alone."),
    ] = None,
    metrics_port: Annotated[
        int | None, typer.Option(min=0, max=65_535, help="Tell /metrics, /healthz, /readyz there; 0: a free port.")
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, max=256, help="Processes of one group; the metrics of the n-th are on port + n.")
    ] = 1,
    snapshots: Annotated[
        str | None, typer.Option(help="Folder, or kafka://host:port/topic, for a row per scored candidate.")
    ] = None,
    refresh_s: Annotated[float, typer.Option(min=0.01, help="Seconds between looks at the weight store.")] = 1.0,
    sets: Annotated[list[str] | None, typer.Option("--set", help="section.key=value, over the app's file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The last line of stdout is one JSON object.")] = False,
) -> None:
    """Answer every request; SIGTERM answers what was read, leaves the group and ends with exit code 0."""
    loaded = load_app_with_settings(app_name, sets)
    answers = responses or str(KafkaUrl(parse_kafka_url(requests).brokers, topic("responses")))
    options: dict[str, Any] = {
        "app_name": app_name,
        "sets": sets,
        "requests": requests,
        "responses": answers,
        "weights": weights,
        "group": group or f"rocket-{loaded.name}",
        "begin": begin,
        "catalogue": catalogue,
        "snapshots": snapshots,
        "refresh_s": refresh_s,
    }

    def told(number: int, started: dict[str, Any]) -> None:
        line = (
            f"serving {requests} as {started['member'] or 'a member'} of group {started['group']}, answers to {answers}"
        )
        if workers > 1:
            line = f"worker {number}: {line}"
        if started["metrics_port"] is not None:
            line += f"; http://127.0.0.1:{started['metrics_port']}/metrics, /healthz, /readyz"
        print(line, file=sys.stderr if as_json else sys.stdout, flush=True)

    with stopped_by_signals() as stop:
        if workers == 1:
            options |= {"member": member, "metrics_port": metrics_port}
            figures = serve_one(stop=stop, on_start=lambda started: told(0, started), **options)
        else:
            many = [
                options
                | {
                    "member": member and f"{member}-{number}",
                    "metrics_port": metrics_port and metrics_port + number,  # 0 takes a free one each
                }
                for number in range(workers)
            ]
            figures = summed([_NOTHING, *run_workers(serve_one, many, on_start=told, stop=stop)])
    if as_json:
        print(json.dumps(figures))
    else:
        _show(figures)


def serve_one(
    *,
    app_name: str,
    sets: list[str] | None,
    catalogue: str | None,
    stop: threading.Event,
    on_start: Callable[[dict[str, Any]], None],
    **options: Any,
) -> dict[str, Any]:
    """One scorer, in this process; as `flows.serve_kafka.run`, from what can be handed to another process."""
    loaded = load_app_with_settings(app_name, sets)
    with open_catalogue(loaded, catalogue) as items:
        return flow.run(loaded, stop=stop, on_start=on_start, catalogue=items, locks=_LOCKS, **options)


def summed(workers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The figures of all workers as those of one: numbers added, the newest version, the last refusal told.

    >>> summed([{"requests": 1, "by_source": {"model": 1}}, {"requests": 2, "by_source": {}}, {}])
    {'requests': 3, 'by_source': {'model': 1}}
    """
    whole: dict[str, Any] = {}
    for figures in workers:
        for name, value in figures.items():
            before = whole.get(name)
            if isinstance(value, dict):
                whole[name] = summed([before or {}, value])
            elif name == "model_version":
                whole[name] = max(filter(None, (before, value)), default=None)
            elif isinstance(value, int):
                whole[name] = (before or 0) + value
            else:
                whole[name] = value or before
    return whole


def _show(figures: dict[str, Any]) -> None:
    by = ", ".join(f"{count:,} {name}" for name, count in {**figures["by_source"], **figures["errors"]}.items())
    print(f"{figures['requests']:,} requests answered" + (f": {by}" if by else ""))
    print(
        f"{figures['swaps']} versions swapped in, "
        + (f"the last one {figures['model_version']}" if figures["model_version"] else "none: the prior answered")
    )
    if figures["last_refusal"]:
        print(
            f"weights refused {sum(figures['weights_refused'].values())} times, the last time since "
            f"{masked(figures['last_refusal'])}"
        )
    if figures["left"]:
        print(f"{figures['left']} requests left to the next scorer: the brokers took no answers")
