"""How much waits in topics before they are followed, and from when it is."""

import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from statistics import median_low

from kafka import TopicPartition
from kafka.errors import KafkaError

from contracts.app import App
from contracts.events import Mark
from nodes.kafka_client import consumer, end_offsets
from nodes.source import BEFORE_ALL, EventReader
from nodes.topic_partitions import Consumer, Partition

_LOOK = 8  # records at each end of a partition: one of them may be broken, or from another time
_LOOK_S = 5.0  # at most; what is not seen by then is left out
_POLL_MS = 100
_FETCH_BYTES = 65_536  # a partition


def backlog_of(
    app: App, brokers: tuple[str, ...], planned: Sequence[tuple[Partition, Mark]]
) -> tuple[int, int, int] | None:
    """Events that wait, and about the first and the last of their times (epoch milliseconds); None: there are none.

    A look at some records at both ends of each partition: good for choosing how to catch up, not for counting.

    Args:
        app: whose contracts the events keep.
        brokers: host:port each.
        planned: partitions and where each will be begun (`nodes.topic_plan.plan_topics`).

    Raises:
        StoreError: no broker answers.
    """
    spans = {}
    with closing(consumer(brokers, app.config.kafka, max_partition_fetch_bytes=_FETCH_BYTES)) as client:
        topics = {partition.topic for partition, _ in planned}
        ends = {topic: end_offsets(brokers, topic, app.config.kafka, using=client) for topic in topics}
        for partition, mark in planned:
            end = ends[partition.topic][partition.number]
            end = end if partition.end is None else min(partition.end, end)
            if end > mark.offset:
                spans[TopicPartition(partition.topic, partition.number)] = partition, mark.offset, end
        if not spans:
            return None
        heads = _times(app, client, spans, {at: begin for at, (_, begin, _) in spans.items()})
        tails = _times(app, client, spans, {at: max(begin, end - _LOOK) for at, (_, begin, end) in spans.items()})
    if not heads or not tails:
        return None
    first_ms, last_ms = min(map(median_low, heads)), max(map(median_low, tails))
    return sum(end - begin for _, begin, end in spans.values()), first_ms, max(first_ms, last_ms)


def _times(
    app: App,
    client: Consumer,
    spans: Mapping[TopicPartition, tuple[Partition, int, int]],
    places: Mapping[TopicPartition, int],
) -> list[list[int]]:
    """Of each partition the event times of good events from a place on."""
    client.assign(list(places))
    for at, offset in places.items():
        client.seek(at, offset)
    left, found, until_s = set(places), dict[TopicPartition, list[bytes | None]](), time.monotonic() + _LOOK_S
    while left and time.monotonic() < until_s:
        try:  # with a bound on records the client would go on with one partition
            polled = client.poll(timeout_ms=_POLL_MS, max_records=sys.maxsize)
        except KafkaError:
            break
        for at, records in polled.items():
            found.setdefault(at, []).extend(record.value for record in records)
        for at in list(left):
            place = client.position(at, timeout_ms=0)
            if len(found.get(at, ())) >= _LOOK or (place is not None and place >= spans[at][2]):
                left.remove(at)
    times = []
    for at, values in found.items():
        partition = spans[at][0]
        contract = app.impressions if partition.stream == "impressions" else app.clicks
        reader = EventReader(contract, app, stream=partition.stream, origin=partition.origin, newest_ms=BEFORE_ALL)
        seen = reader.read_records(values[:_LOOK], range(min(len(values), _LOOK)))
        if seen.frame.height:
            times.append(seen.frame[contract.role("event_time")].to_list())
    return times
