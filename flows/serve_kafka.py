"""The scorer on Kafka: a member of a consumer group, a weight store beside it, and what it tells of itself.

topic of requests ─▶ flows.serve ─▶ topic of responses
                        ▲   ├─▶ /metrics, /healthz, /readyz
         weight stores ─┘   └─▶ snapshots
"""

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import Any

from contracts.app import App
from contracts.errors import ContractError
from flows.serve import serve
from nodes.arms import models_of
from nodes.catalogue import CatalogueSource
from nodes.clock import now_ms
from nodes.kafka_logs import open_kafka_log
from nodes.member_name import member_name
from nodes.metrics_http import Metrics
from nodes.serve_metrics import ServeMetrics
from nodes.snapshot_sinks import open_snapshots
from nodes.thread_turns import short_turns
from nodes.weight_stores import open_weights

#: Answers that the brokers did not take within that time are made again, then past their deadline.
ANSWER_S = 3.0
ALIVE_S = 10.0
#: An empty poll waits that long; one that finds something does not.
POLL_MS = 100


def run(
    app: App,
    requests: str,
    responses: str,
    weights: str | Path,
    *,
    group: str,
    stop: threading.Event,
    member: str | None = None,
    locks: Path | None = None,
    begin: str = "earliest",
    metrics_port: int | None = None,
    max_requests: int = 128,
    refresh_s: float = 1.0,
    catalogue: CatalogueSource | None = None,
    snapshots: str | None = None,
    on_start: Callable[[dict[str, Any]], None] | None = None,
    clock_ms: Callable[[], int] = now_ms,
) -> dict[str, Any]:
    """Answer the requests of a topic until `stop`, as one of a group that shares its partitions.

    Args:
        app: whose requests they are.
        requests: kafka://… URL of the topic of requests.
        responses: kafka://… URL of the topic of answers, on the same brokers.
        weights: redis://host:port, or the folder of an embedded Valkey, with the versions of every model that the
            settings serve; out of reach, the prior answers.
        group: of scorers.
        stop: ends it: what was polled is answered and committed, and the group is left.
        member: a name that no other process of the group has, and that this one has again when it is started again.
        locks: a folder where such a name is found, if `member` gives none.
        begin: where a group that never committed begins: "earliest" or "latest".
        metrics_port: of 127.0.0.1; 0 takes a free one, None tells nothing.
        max_requests: of one micro-batch.
        refresh_s: seconds between looks at the weight store.
        catalogue: the items whose candidates may come by id alone.
        snapshots: a folder or kafka://… URL that takes a row per scored candidate; None: none are kept.
        on_start: told once, before the first poll: group, member, metrics_port.
        clock_ms: epoch milliseconds, as the brokers stamp records.

    Returns:
        As `flows.serve.serve`, and commits_failed, joined_again, partitions_lost: how often requests had to come again.

    Raises:
        ContractError: a URL is none, requests and responses are one topic, or the port is taken.
        StoreError: no broker answers, a topic is missing, or there is no such weight store.
        FencedError: another process has taken this member's name.
    """
    if requests == responses:
        raise ContractError(f"{requests}: requests and answers need two topics; give another --responses")
    config = app.config
    with (
        short_turns(),
        Metrics("serve", alive_s=ALIVE_S) as metrics,
        ExitStack() as opened,
        _named(member, locks, f"{requests} {group}") as name,
        open_kafka_log(
            requests,
            responses,
            group,
            config.kafka,
            reply_topics=config.serving.reply_topics,
            member=name,
            begin=begin,
            answer_s=ANSWER_S,
        ) as log,
    ):
        stores = {
            name: opened.enter_context(
                open_weights(weights, name, schema_id=app.schema_id, key=config.publish.key, create=False)
            )
            for name in models_of(app)
        }
        sink = None if snapshots is None else opened.enter_context(open_snapshots(snapshots, config.kafka))
        told = ServeMetrics(metrics, clock_ms)
        port = None if metrics_port is None else metrics.listen(metrics_port)
        if on_start:
            on_start({"group": group, "member": name, "metrics_port": port})
        figures = serve(
            app,
            log,
            log,
            stores,
            stop=stop,
            clock_ms=clock_ms,
            poll_ms=POLL_MS,
            max_requests=max_requests,
            refresh_s=refresh_s,
            reply_topics={log.responses.topic, *config.serving.reply_topics},
            catalogue=catalogue,
            metrics=told,
            standing=log.standing,
            snapshots=sink,
        )
        return figures | {key: log.counts[key] for key in ("commits_failed", "joined_again", "partitions_lost")}


def _named(member: str | None, locks: Path | None, group: str) -> AbstractContextManager[str | None]:
    return nullcontext(member) if member is not None or locks is None else member_name(locks, group)
