"""One structured line about a request that took long: enough to see where its time went, and to find its trace."""

import json
import logging
import time
from collections.abc import Callable

from contracts.serving import AdResponse
from contracts.stores import Record
from nodes.reply_headers import traceparent_of

_log = logging.getLogger(__name__)
_EVERY_S = 1.0


class SlowRequests:
    """Tells of requests that took longer than `slow_ms`, at most one a second; says how many it kept to itself.

    The line is "slow request " and a JSON object: id, took_ms (from the record's timestamp until its answer was safe),
    queue_ms (until it was polled), read_ms and score_ms (of its whole micro-batch), candidates, model, version, source
    or error, traceparent where the request had one, and unsaid: slow ones since the last line.

    Args:
        slow_ms: an answer that took longer is slow.
        clock_s: monotonic seconds.
    """

    def __init__(self, slow_ms: float, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._slow_ms, self._clock_s = slow_ms, clock_s
        self._next_s, self._unsaid = float("-inf"), 0

    def look(self, record: Record, response: AdResponse, *, polled_ms: int, safe_ms: int, read_us: int) -> bool:
        """Whether it was slow; a record without a timestamp never is."""
        took_ms = safe_ms - record.timestamp_ms
        if not record.timestamp_ms or took_ms <= self._slow_ms:
            return False
        now_s = self._clock_s()
        if now_s < self._next_s:
            self._unsaid += 1
            return True
        told = {
            "id": response.id,
            "took_ms": took_ms,
            "queue_ms": max(0, polled_ms - record.timestamp_ms),
            "read_ms": read_us / 1000,
            "score_ms": max(0, response.took_us - read_us) / 1000,
            "candidates": len(response.scores),
            "model": response.model,
            "version": response.model_version,
            "source": response.source,
            "error": response.error.code if response.error else None,
            "traceparent": traceparent_of(record),
            "unsaid": self._unsaid,
        }
        said = {name: value for name, value in told.items() if value is not None}
        _log.warning("slow request %s", json.dumps(said))
        self._next_s, self._unsaid = now_s + _EVERY_S, 0
        return True
