"""The scorer's loop: requests come from one log, answers go to another.

requests ─▶ poll ─▶ answer with the newest version ─▶ append answers ─▶ commit
                          ▲
        weight store ─▶ fetch, verify, warm up, swap (background)
"""

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from contracts.app import App
from contracts.serving import AdResponse
from contracts.stores import EventLog, Record, WeightStore
from nodes.clock import now_ms
from nodes.light_numpy import one_thread
from nodes.refresh import Refresher
from nodes.score import LightScorer, expired

_PASSED_ON = frozenset({"kafka_correlationId", "kafka_replyTopic", "traceparent", "tracestate"})
_MAX_HEADERS, _MAX_HEADER_BYTES = 32, 4096
_encode = msgspec.json.Encoder().encode


def serve(
    app: App,
    requests: EventLog,
    responses: EventLog,
    weights: WeightStore,
    *,
    stop: threading.Event,
    clock_ms: Callable[[], int] = now_ms,
    poll_ms: int = 5,
    max_requests: int = 128,
    refresh_s: float = 1.0,
) -> dict[str, Any]:
    """Answer every request at least once with the newest version that fits, until `stop` is set.

    Answers are safe before their requests are committed, so a crash repeats answers (with the same ids) and never
    loses one. Each micro-batch, and so each response, comes from one version. The weight store is never asked on
    the way of a request.

    Args:
        app: whose requests they are.
        requests: a record's timestamp plus its `tmax` is its deadline; 0 stands for none.
        responses: one record a request, with its key and its correlation, CloudEvents and trace headers.
        weights: while it cannot be reached, or has no version that fits, the last good version answers, or the prior.
        stop: the micro-batch at hand is still answered and committed.
        clock_ms: epoch milliseconds, on the same clock as the records' timestamps.
        poll_ms: how long an empty poll waits.
        max_requests: of one micro-batch.
        refresh_s: seconds between looks at the weight store.

    Returns:
        Counts: requests, by_source, errors by code, swaps, weights_refused (by kind of error),
        last_refusal (a sentence), model_version.
    """
    sources: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    with one_thread(), Refresher(app, weights, every_s=refresh_s) as refresher:
        while not stop.is_set():
            records = requests.poll(poll_ms, max_requests)
            if not records:
                continue
            refresher.sample = records[0].value
            answers = answer(refresher.scorer, records, clock_ms)
            responses.append([Record(r.key, _encode(a), _headers(r)) for r, a in zip(records, answers, strict=True)])
            requests.commit()
            sources.update(a.source for a in answers if a.source)
            errors.update(a.error.code for a in answers if a.error)
        return {
            "requests": sum(sources.values()) + sum(errors.values()),
            "by_source": dict(sources),
            "errors": dict(errors),
            "swaps": refresher.swaps,
            "weights_refused": dict(refresher.refused),
            "last_refusal": refresher.last_refusal,
            "model_version": refresher.scorer.version,
        }


def answer(scorer: LightScorer, records: Sequence[Record], clock_ms: Callable[[], int]) -> list[AdResponse]:
    """One response a record from one version; what is late when it is ready to leave says `expired`."""
    sent_ms = [record.timestamp_ms or _NEVER_MS for record in records]
    scored = scorer.score([record.value for record in records], now_ms=clock_ms(), received_ms=sent_ms)
    leaving_ms = clock_ms()
    return [
        expired(response.id, response.took_us) if response.error is None and leaving_ms > sent + tmax else response
        for response, sent, tmax in zip(scored.responses, sent_ms, scored.asked.tmax_ms, strict=True)
    ]


_NEVER_MS = 2**62  # a record without a timestamp has no deadline


def _headers(record: Record) -> tuple[tuple[str, bytes], ...]:
    """Those that the asker needs to find its answer, within bounds."""
    kept = [
        (name, value)
        for name, value in record.headers
        if (name in _PASSED_ON or name.startswith("ce_")) and len(value) <= _MAX_HEADER_BYTES
    ]
    return tuple(kept[:_MAX_HEADERS])
