"""The scorer's loop: requests come from one log, answers go to another.

requests ─▶ poll ─▶ answer with the newest version ─▶ append answers ─▶ commit
                          ▲
        weight store ─▶ fetch, verify, warm up, swap (background)
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol

import msgspec

from contracts.app import App
from contracts.errors import ContractError, UnreachableError
from contracts.serving import AdResponse, Problem
from contracts.stores import EventLog, Record, WeightStore
from nodes.catalogue import Catalogue
from nodes.clock import now_ms
from nodes.light_numpy import one_thread
from nodes.metrics_http import Metrics
from nodes.refresh import Refresher
from nodes.reply_headers import REPLY_TOPIC, asked_elsewhere, reply_headers
from nodes.score import LightScorer, expired
from nodes.serve_metrics import ServeMetrics

_log = logging.getLogger(__name__)
_LOOK_S = 1.0  # between two looks at brokers and weights, for the metrics
_APPEND_S = 30.0  # that a healthy append may take
_AGAIN_S = 0.05  # after one that failed
_encode = msgspec.json.Encoder().encode


class Standing(Protocol):
    """What part of the requests this process has, and how far it is."""

    @property
    def partitions(self) -> int:
        """How many partitions."""
        ...

    @property
    def lag(self) -> int:
        """Records in them that wait."""
        ...


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
    reply_topics: Collection[str] | None = None,
    catalogue: Catalogue | None = None,
    metrics: ServeMetrics | None = None,
    standing: Callable[[], Standing] | None = None,
) -> dict[str, Any]:
    """Answer every request at least once with the newest version that fits, until `stop` is set.

    Answers are safe before their requests are committed, so a crash repeats answers (with the same ids) and never
    loses one. Each micro-batch, and so each response, comes from one version. The weight store is never asked on
    the way of a request. While answers cannot be written they are made again and again: whatever is past its deadline
    by then says `expired`.

    Args:
        app: whose requests they are.
        requests: a record's timestamp plus its `tmax` is its deadline; 0 stands for none.
        responses: one record a request, with its key and the headers that it asks for (`nodes.reply_headers`).
        weights: while it cannot be reached, or has no version that fits, the last good version answers, or the prior.
        stop: the micro-batch at hand is still answered and committed, unless `responses` is out of reach.
        clock_ms: epoch milliseconds, on the same clock as the records' timestamps.
        poll_ms: how long an empty poll waits.
        max_requests: of one micro-batch.
        refresh_s: seconds between looks at the weight store.
        reply_topics: where a request may ask its answer to; a request that asks for another gets an error, on the
            topic of responses. None: any.
        catalogue: the items whose candidates may come by id alone.
        metrics: where to count.
        standing: tells how far `requests` is, and raises UnreachableError while its brokers are away.

    Returns:
        Counts: requests, by_source, errors by code, swaps, weights_refused (by kind of error),
        last_refusal (a sentence), model_version, left (polled, yet neither answered nor committed).
    """
    sources: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    told = metrics or ServeMetrics(Metrics("serve"), clock_ms)
    watch = _Watch(told, standing)
    desk = _Desk(app, responses, reply_topics, clock_ms, told)
    left = 0
    with one_thread(), Refresher(app, weights, every_s=refresh_s, catalogue=catalogue) as refresher:
        if refresher.scorer.version is None:
            why = refresher.last_refusal or f"no version of model '{app.name}' is published yet"
            _log.warning("%s; the app's prior CTR answers until there is one", why)
        while not stop.is_set():
            watch.look(refresher)
            records = requests.poll(poll_ms, max_requests)
            if not records:
                continue
            refresher.sample = records[0].value
            answers = desk.answer_until_safe(refresher, records, stop)
            if answers is None:
                left = len(records)
                break
            told.answered([record.timestamp_ms for record in records], answers, clock_ms())
            requests.commit()
            sources.update(a.source for a in answers if a.source)
            errors.update(a.error.code for a in answers if a.error)
        told.weights(refresher)
        return {
            "requests": sum(sources.values()) + sum(errors.values()),
            "by_source": dict(sources),
            "errors": dict(errors),
            "swaps": refresher.swaps,
            "weights_refused": dict(refresher.refused),
            "last_refusal": refresher.last_refusal,
            "model_version": refresher.scorer.version,
            "left": left,
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


class _Desk:
    """Makes answers and hands them out."""

    def __init__(
        self,
        app: App,
        responses: EventLog,
        reply_topics: Collection[str] | None,
        clock_ms: Callable[[], int],
        told: ServeMetrics,
    ) -> None:
        self._app, self._responses, self._reply_topics = app, responses, reply_topics
        self._clock_ms, self._told = clock_ms, told

    def answer_until_safe(
        self, refresher: Refresher, records: Sequence[Record], stop: threading.Event
    ) -> list[AdResponse] | None:
        """One safe answer a record; None where there can be none before the end."""
        while True:
            answers = self._checked(records, answer(refresher.scorer, records, self._clock_ms))
            self._told.alive(may_take_s=_APPEND_S)
            try:
                self._append(records, answers)
            except UnreachableError as error:
                self._told.retried()
                self._told.alive(str(error), may_take_s=_APPEND_S)
                if stop.wait(_AGAIN_S):
                    return None
                continue
            self._told.alive()
            return answers

    def _append(self, records: Sequence[Record], answers: list[AdResponse]) -> None:
        """Write the answers, each alone where together they cannot be: one that is too large does not stop the rest."""
        try:
            self._responses.append([self._record(*pair) for pair in zip(records, answers, strict=True)])
            return
        except ContractError:
            pass
        for place, record in enumerate(records):
            try:
                self._responses.append([self._record(record, answers[place])])
            except ContractError as error:
                answers[place] = AdResponse(id=answers[place].id, error=Problem("answer_refused", str(error)))
                self._responses.append([self._record(record, answers[place])])

    def _checked(self, records: Sequence[Record], answers: list[AdResponse]) -> list[AdResponse]:
        """No scores for who wants them on a topic that is not for answers."""
        if self._reply_topics is None:
            return answers
        wanted = [asked_elsewhere(record, self._reply_topics) for record in records]
        return [
            made
            if topic is None
            else AdResponse(
                id=made.id,
                error=Problem(
                    "reply_topic_refused", f"no answers go to '{topic[:80]}'; add it to serving.reply_topics"
                ),
            )
            for made, topic in zip(answers, wanted, strict=True)
        ]

    def _record(self, request: Record, made: AdResponse) -> Record:
        headers = reply_headers(request, app=self._app.name, at_ms=self._clock_ms())
        if made.error is not None and made.error.code == "reply_topic_refused":
            headers = tuple(header for header in headers if header[0] != REPLY_TOPIC)
        return Record(request.key, _encode(made), headers)


class _Watch:
    """Looks now and then at what a scorer depends on, and says so."""

    def __init__(self, told: ServeMetrics, standing: Callable[[], Standing] | None) -> None:
        self._told, self._standing, self._next_s = told, standing, 0.0

    def look(self, refresher: Refresher) -> None:
        """At most once a second."""
        if time.monotonic() < self._next_s:
            return
        self._told.weights(refresher)
        trouble = ""
        if self._standing is None:
            self._told.metrics.ready(True)
        else:
            try:
                found = self._standing()
            except UnreachableError as error:
                trouble = str(error)
                self._told.metrics.ready(False, trouble)
            else:
                self._told.standing(found.partitions, found.lag)
                self._told.metrics.ready(found.partitions > 0, "no partition yet: joining, or others have them all")
        self._told.alive(trouble)
        self._next_s = time.monotonic() + _LOOK_S
