"""Which partitions are at their end, as the broker says: without that nobody is idle (`nodes.topic_clock`)."""

from collections.abc import Mapping
from typing import Any

from kafka import TopicPartition
from kafka.errors import KafkaError

from contracts.sections import Live
from nodes.source import BEFORE_ALL
from nodes.topic_clock import Standing

_TIMEOUT_MS = 1000
_ASKS = 4  # within `idle_s`


class EndWatch:
    """Asks the broker about partitions that give nothing, and notices so that it is away.

    Args:
        consumer: of the partitions.
        standings: of them, kept up to date here.
        live: its `idle_s` and `outage_s`.
    """

    def __init__(self, consumer: Any, standings: Mapping[TopicPartition, Standing], live: Live) -> None:
        self._consumer, self._standings = consumer, standings
        self._every_s, self._outage_s = live.idle_s / _ASKS, max(0.0, live.outage_s - live.idle_s)
        self._asked_s = -float("inf")

    def look(self, now_s: float) -> None:
        """Confirm the ends of what is quiet; no answer confirms nothing."""
        endless = {tp: standing for tp, standing in self._standings.items() if standing.end is None}
        quiet = [tp for tp, standing in endless.items() if now_s - standing.quiet_since_s >= self._every_s]
        if not quiet or now_s - self._asked_s < self._every_s:
            return
        self._asked_s = now_s
        try:
            ends = self._consumer.end_offsets(quiet, timeout_ms=_TIMEOUT_MS)
        except KafkaError:
            # Who writes is cut off too, each writer comes back in its own time, and sends then what it holds back.
            for standing in endless.values():
                grace_s = 0.0 if standing.newest_ms == BEFORE_ALL else self._outage_s
                standing.quiet_since_s = max(standing.quiet_since_s, now_s + grace_s)
            return
        for tp in quiet:
            standing, seen = endless[tp], self._consumer.highwater(tp)
            at_end = seen is not None and standing.offset >= max(ends[tp], seen)
            standing.confirmed_s = now_s if at_end else None
