"""What a member of a group has, and how far behind it is: from what its fetches said, or by asking the brokers."""

from typing import Any, NamedTuple

from kafka import TopicPartition, errors


class Standing(NamedTuple):
    """What a member of a group has, and how far it is."""

    partitions: int  #: that it reads
    lag: int  #: records in them that it has not polled


def standing_of(consumer: Any, topic: str, *, ask: bool, max_wait_ms: int) -> Standing:
    """The standing of a `KafkaConsumer` that reads one topic.

    Each fetch tells the end of its partition. Asking costs a round trip, behind the fetch that waits at the broker, in
    which the caller does nothing else: 5 to 10 ms.

    Args:
        consumer: the member's.
        topic: that it reads.
        ask: whether brokers are reachable is to be known too, and ends that are newer than the last fetch.
        max_wait_ms: for an answer.

    Raises:
        KafkaError: asked, they do not answer in time, or refuse.
    """
    mine = list(consumer.assignment())
    try:
        ends = {} if ask else {part: consumer.highwater(part) for part in mine}
        if not mine or None in ends.values() or not ends:
            ends = consumer.end_offsets(mine or [TopicPartition(topic, 0)], timeout_ms=max_wait_ms)
        at = {part: consumer.position(part, timeout_ms=max_wait_ms) for part in mine}
    except errors.IllegalStateError:  # taken away between two lines
        mine, at = [], {}
    return Standing(len(mine), sum(max(0, ends[part] - (at[part] or 0)) for part in mine))
