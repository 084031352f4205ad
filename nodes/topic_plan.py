"""What is to be read of some topics, and from where: found out once, before a pipeline is built."""

from collections.abc import Mapping
from contextlib import closing
from typing import Literal

from kafka import KafkaConsumer

from contracts.app import App
from contracts.errors import ContractError
from contracts.events import Mark
from nodes.kafka_client import begin_offsets, consumer, end_offsets, offsets_at, partitions_of
from nodes.kafka_url import KafkaUrl, parse_kafka_url
from nodes.source import BEFORE_ALL
from nodes.topic_partitions import Partition, refuse_gone

Begin = Literal["earliest", "latest"] | int  #: int: epoch milliseconds, by the broker's record timestamps
Until = Literal["never", "now"] | Mapping[str, int]


def plan_topics(
    app: App,
    sources: Mapping[str, str],
    *,
    start: Mapping[str, Mark],
    begin: Begin,
    until: Until,
) -> tuple[tuple[str, ...], list[tuple[Partition, Mark]]]:
    """The brokers, and every partition of the topics with the place to begin at.

    Args:
        app: its `kafka` and `live` settings.
        sources: "impressions" and "clicks" -> kafka:// URL; all on the same brokers.
        start: origin (topic:partition) -> place, from a position; of a topic that it names it must name all partitions.
        begin: where a topic is begun that `start` does not name.
        until: "now": read up to the offsets that the topics end at while this runs; origin -> offset: up to that.

    Raises:
        ContractError: an URL that is none, a topic that is missing or has other partitions than `start` knows, an
            offset that is gone.
        StoreError: no broker answers.
    """
    urls = {stream: parse_kafka_url(url) for stream, url in sources.items()}
    brokers = {url.brokers for url in urls.values()}
    if len(brokers) != 1:
        raise ContractError(f"{' and '.join(sources.values())}: are on different brokers; read both from one cluster")
    if len({url.topic for url in urls.values()}) != len(urls):
        raise ContractError(f"{next(iter(sources.values()))}: is named for two streams; each has a topic of its own")
    (cluster,) = brokers
    with closing(consumer(cluster, app.config.kafka)) as client:
        planned = [
            part for stream, url in urls.items() for part in _plan(app, stream, url, start, begin, until, client)
        ]
    return cluster, planned


def _plan(
    app: App,
    stream: str,
    url: KafkaUrl,
    start: Mapping[str, Mark],
    begin: Begin,
    until: Until,
    client: KafkaConsumer,
) -> list[tuple[Partition, Mark]]:
    kafka, live = app.config.kafka, app.config.live
    numbers = partitions_of(url.brokers, url.topic, kafka)
    begins = begin_offsets(url.brokers, url.topic, kafka, using=client)
    ends = end_offsets(url.brokers, url.topic, kafka, using=client)
    known = sorted(int(name.rpartition(":")[2]) for name in start if name.rpartition(":")[0] == url.topic)
    if known and known != sorted(numbers):
        raise ContractError(
            f"{url.topic}: has {len(numbers)} partitions, but {len(known)} when its position was written; events that "
            "changed partition would be judged anew: give another folder and ingest the topics again"
        )
    if begin == "earliest":
        firsts = begins
    elif begin == "latest":
        firsts = ends
    else:
        firsts = offsets_at(url.brokers, url.topic, kafka, begin, using=client)
    planned = []
    for number in numbers:
        partition = Partition(stream, url.topic, number, known=len(numbers))
        if until != "never":
            partition = partition._replace(end=ends[number] if until == "now" else until[partition.origin])
        mark = start.get(partition.origin) or Mark(partition.origin, firsts[number], BEFORE_ALL)
        if not begins[number] <= mark.offset <= ends[number]:
            refuse_gone(partition.origin, mark.offset, begins[number], ends[number], live.gone)
            mark = mark._replace(offset=begins[number])
        planned.append((partition, mark))
    return planned
