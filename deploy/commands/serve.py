"""`rocket serve`: answer ad requests from Kafka with the newest published weights."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from contracts.names import topic
from deploy.signals import stopped_by_signals
from flows import serve_kafka as flow
from flows.settings import load_app_with_settings
from nodes.catalogue import load_catalogue
from nodes.kafka_url import KafkaUrl, parse_kafka_url
from nodes.redis_errors import masked

app = typer.Typer(add_completion=False)
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
        Path | None, typer.Option(help="Items (.parquet, .ndjson) whose candidates may come by id alone.")
    ] = None,
    metrics_port: Annotated[
        int | None, typer.Option(min=0, max=65_535, help="Tell /metrics, /healthz, /readyz there; 0: a free port.")
    ] = None,
    refresh_s: Annotated[float, typer.Option(min=0.01, help="Seconds between looks at the weight store.")] = 1.0,
    sets: Annotated[list[str] | None, typer.Option("--set", help="section.key=value, over the app's file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The last line of stdout is one JSON object.")] = False,
) -> None:
    """Answer every request; SIGTERM answers what was read, leaves the group and ends with exit code 0."""
    loaded = load_app_with_settings(app_name, sets)
    asked = parse_kafka_url(requests)
    answers = responses or str(KafkaUrl(asked.brokers, topic("responses")))

    def told(started: dict[str, Any]) -> None:
        line = (
            f"serving {requests} as {started['member'] or 'a member'} of group {started['group']}, answers to {answers}"
        )
        if started["metrics_port"] is not None:
            line += f"; http://127.0.0.1:{started['metrics_port']}/metrics, /healthz, /readyz"
        print(line, file=sys.stderr if as_json else sys.stdout, flush=True)

    with stopped_by_signals() as stop:
        figures = flow.run(
            loaded,
            requests,
            answers,
            weights,
            group=group or f"rocket-{loaded.name}",
            stop=stop,
            member=member,
            locks=_LOCKS,
            begin=begin,
            metrics_port=metrics_port,
            refresh_s=refresh_s,
            catalogue=None if catalogue is None else load_catalogue(loaded, catalogue),
            on_start=told,
        )
    if as_json:
        print(json.dumps(figures))
        return
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
