"""Past messages that the client cannot read: a damaged batch, or a header whose name is not UTF-8.

Anyone who may write to a topic can put such a message there. kafka-python (3.0.12) raises once, and the next poll of
that consumer spins for ever, unless it is moved first.
"""

import time
from collections.abc import Sequence
from contextlib import closing

from kafka import KafkaConsumer, TopicPartition, errors

from contracts.sections import Kafka
from nodes.kafka_client import consumer

_POLL_MS = 50


def skip_damage(reader: KafkaConsumer, brokers: Sequence[str], kafka: Kafka) -> dict[TopicPartition, tuple[int, int]]:
    """Move a consumer whose poll raised `CorruptRecordError` behind what cannot be read.

    The readable messages that follow a damaged one in its batch are skipped with it: the client cannot reach them.

    Args:
        reader: moved, so that it can be polled again.
        brokers: host:port of some of them.
        kafka: how they are spoken to.

    Returns:
        Partition -> the first offset skipped, and the one that is read next; empty where all can be read.
    """
    skipped: dict[TopicPartition, tuple[int, int]] = {}
    for part in sorted(reader.assignment()):
        at = reader.position(part)
        after = readable_from(part, at, brokers, kafka)
        if after != at:
            reader.seek(part, after)
            skipped[part] = at, after
    return skipped


def readable_from(part: TopicPartition, offset: int, brokers: Sequence[str], kafka: Kafka) -> int:
    """The first offset from `offset` on at which something can be read, or the end."""
    with closing(consumer(brokers, kafka, max_partition_fetch_bytes=1)) as probe:
        probe.assign([part])
        end, at = probe.end_offsets([part])[part], offset
        give_up = time.monotonic() + kafka.request_timeout_s
        while at < end and time.monotonic() < give_up:
            probe.seek(part, at)
            try:
                while probe.position(part) < end and time.monotonic() < give_up:
                    if probe.poll(timeout_ms=_POLL_MS, max_records=1):
                        return at
            except errors.CorruptRecordError:
                at += 1
            else:
                return at
        return at
