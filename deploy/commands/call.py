"""`rocket call`: one ad request to the scorers, and its answer."""

import json
import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from contracts.app import App
from contracts.errors import ContractError
from contracts.names import topic
from contracts.serving import AdResponse
from flows.settings import load_app_with_settings
from nodes.ad_client import AdClient, read_answer
from nodes.clock import now_ms
from nodes.fake_traffic import requests as made_up
from nodes.kafka_url import KafkaUrl, parse_brokers, parse_kafka_url

app = typer.Typer(add_completion=False)


def topic_urls(to: str, responses: str | None) -> tuple[str, str]:
    """Where requests go and answers come from: the named topics, or the usual ones of those brokers.

    >>> topic_urls("kafka://h:9092", None)
    ('kafka://h:9092/ctr.requests.v1', 'kafka://h:9092/ctr.responses.v1')
    """
    named = bool(to.removeprefix("kafka://").partition("/")[2])
    brokers = parse_kafka_url(to).brokers if named else parse_brokers(to)
    requests = to if named else str(KafkaUrl(brokers, topic("requests")))
    return requests, responses or str(KafkaUrl(brokers, topic("responses")))


def _example(loaded: App, timeout_s: float) -> bytes:
    """A made-up request of now, with as long to live as we wait."""
    (line,) = made_up(loaded, 1, 3, seed=now_ms() % 1_000_003)
    tmax = {"tmax": max(1, min(60_000, round(timeout_s * 1000)))}
    named = {"id": f"call-{now_ms()}", "event_time_ms": now_ms()}
    return json.dumps(json.loads(line) | named | tmax).encode()


def _read(path: Path) -> bytes:
    if str(path) == "-":
        return sys.stdin.buffer.read().strip()
    try:
        return path.read_bytes().strip()
    except OSError as error:
        raise ContractError(f"{path}: cannot be read ({error.strerror}); give a file with one JSON request") from error


@app.command()
def call(
    to: Annotated[str, typer.Option(help="kafka://host:port, or with the /topic of the requests.")],
    request: Annotated[
        Path | None, typer.Option(help="File with one JSON request, or - for stdin; a made-up one by default.")
    ] = None,
    responses: Annotated[
        str | None, typer.Option(help="kafka://host:port/topic of the answers; ctr.responses.v1 there by default.")
    ] = None,
    app_name: Annotated[
        str, typer.Option("--app", help="A shipped app's name, or a folder with an app.toml.")
    ] = "adsim",
    timeout: Annotated[float, typer.Option(min=0.01, max=3600, help="Seconds until we give up.")] = 5.0,
    sets: Annotated[list[str] | None, typer.Option("--set", help="section.key=value, over the app's file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The last line of stdout is one JSON object.")] = False,
) -> None:
    """Ask once; exit 1 when no answer comes in time, or the answer is an error."""
    loaded = load_app_with_settings(app_name, sets)
    asked_at, answers_at = topic_urls(to, responses)
    asked = _read(request) if request is not None else _example(loaded, timeout)
    with AdClient(asked_at, answers_at, loaded.config.kafka) as client:
        began_ms = now_ms()
        record = client.ask(asked, timeout_s=timeout)
        took_ms = now_ms() - began_ms
    answer = read_answer(record.value, answers_at)
    if as_json:
        print(json.dumps(msgspec.to_builtins(answer) | {"waited_ms": took_ms}))
    else:
        _show(answer, took_ms)
    if answer.error is not None:
        raise typer.Exit(1)


def _show(answer: AdResponse, took_ms: int) -> None:
    if answer.error is not None:
        print(f"{answer.id}: refused, {answer.error.code}: {answer.error.detail}")
        return
    by = f"version {answer.model_version}" if answer.model_version else "no version"
    print(f"{answer.id}: {answer.source}, {by}, {took_ms} ms ({answer.took_us / 1000:.1f} ms of scoring)")
    for score in answer.scores:
        print(f"  {score.item_id}  " + (f"{score.pctr:.6f}" if score.pctr is not None else f"refused: {score.refused}"))
