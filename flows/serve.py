"""The scorer's loop: requests come from one log, answers go to another.

requests ─▶ poll ─▶ answer with the newest version ─▶ append answers ─▶ commit ─▶ snapshots (background)
                          ▲
        weight store ─▶ fetch, verify, warm up, swap (background)
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

from contracts.app import App
from contracts.errors import UnreachableError
from contracts.serving import AdResponse
from contracts.stores import EventLog
from nodes.answer_desk import AnswerDesk
from nodes.arms import Arms
from nodes.catalogue import CatalogueSource
from nodes.clock import now_ms
from nodes.light_numpy import one_thread
from nodes.metrics_http import Metrics
from nodes.paced_commits import PacedCommits
from nodes.serve_metrics import ServeMetrics
from nodes.settled_heap import settled_heap
from nodes.slow_requests import SlowRequests
from nodes.snapshots import Sink, Snapshots
from nodes.weight_buffers import ServedStore

_log = logging.getLogger(__name__)
COMMIT_S = 0.05  # between two commits under load: a crash repeats so much, and a commit costs a round trip
_LOOK_S = 1.0  # between two looks at brokers and weights, for the metrics
_SOON_S, _JOINING_S = 0.05, 10.0  # while a member joins its group: it is ready as soon as it has partitions


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
    weights: ServedStore | Mapping[str, ServedStore],
    *,
    stop: threading.Event,
    clock_ms: Callable[[], int] = now_ms,
    poll_ms: int = 5,
    max_requests: int = 128,
    refresh_s: float = 1.0,
    reply_topics: Collection[str] | None = None,
    catalogue: CatalogueSource | None = None,
    metrics: ServeMetrics | None = None,
    standing: Callable[[], Standing] | None = None,
    snapshots: Sink | None = None,
) -> dict[str, Any]:
    """Answer every request at least once with the newest version that fits, until `stop` is set.

    Answers are safe before their requests are committed, some micro-batches later, so a crash repeats answers (with
    the same ids) and never loses one. Each response comes from one version: a micro-batch is parted by model, and each
    part reads its model's scorer once. A request that cannot be scored before its deadline is answered first, unscored.
    The weight store is never asked on the way of a request. While answers cannot be written they are made again and
    again: whatever is past its deadline by then says `expired`.

    Args:
        app: whose requests they are.
        requests: a record's timestamp plus its `tmax` is its deadline; 0 stands for none.
        responses: one record a request, with its key and the headers that it asks for (`nodes.reply_headers`).
        weights: by model, or that of the only one. While a store cannot be reached, or has no version that fits, the
            model's last good version answers, or the prior.
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
        snapshots: takes a row per scored candidate (`nodes.snapshots`), in a thread of its own.

    Returns:
        Counts: requests, by_source, errors by code, swaps, weights_refused (by kind of error),
        last_refusal (a sentence), model_version, left (polled, yet neither answered nor committed); models: of each,
        the requests that it scored, its swaps and version.

    Raises:
        ContractError: a model that the settings name has no store, or a shadow's scores have nowhere to go.
    """
    counts = _Counts()
    stores = weights if isinstance(weights, Mapping) else {app.name: weights}
    told = metrics or ServeMetrics(Metrics("serve"), clock_ms)
    watch, slow = _Watch(told, standing, catalogue), SlowRequests(app.config.serving.slow_ms)
    left = 0
    with (
        one_thread(),
        Arms(app, stores, every_s=refresh_s, catalogue=catalogue) as arms,
        Snapshots(app, snapshots, arms.shadows, told, clock_ms, by_id=catalogue is not None) as recorded,
        settled_heap(),
    ):
        _warn_of_priors(arms)
        commits = PacedCommits(requests, COMMIT_S)
        desk = AnswerDesk(app, responses, arms, reply_topics=reply_topics, clock_ms=clock_ms, told=told)
        while not stop.is_set():
            watch.look(arms)
            records = requests.poll(poll_ms, max_requests)
            if not records:
                commits.idle()
                continue
            polled_ms = clock_ms()
            arms.sample(records[0].value)
            made = desk.answer_until_safe(records, stop)
            if made is None:
                left = len(records)
                break
            safe_ms = clock_ms()
            commits.answered()
            told.answered([record.timestamp_ms for record in records], made.responses, polled_ms, safe_ms)
            recorded.offer([record.value for record in records], made.responses, made.catalogue)
            counts.add(made.responses)
            for record, response, read_us in zip(records, made.responses, made.read_us, strict=True):
                if slow.look(record, response, polled_ms=polled_ms, safe_ms=safe_ms, read_us=read_us):
                    told.slow()
        if not left:
            commits.settle()
        watch.count(arms)
        return counts.figures(arms) | {"left": left}


class _Counts:
    """What was answered so far."""

    def __init__(self) -> None:
        self._sources: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()
        self._models: Counter[str] = Counter()

    def add(self, responses: Sequence[AdResponse]) -> None:
        """Count the answers of a micro-batch."""
        self._sources.update(response.source for response in responses if response.source)
        self._errors.update(response.error.code for response in responses if response.error)
        self._models.update(response.model for response in responses if response.model)

    def figures(self, arms: Arms) -> dict[str, Any]:
        """As `serve` returns them."""
        every = arms.answering | arms.shadows
        refused: Counter[str] = Counter()
        for refresher in every.values():
            refused += refresher.refused
        return {
            "requests": self._sources.total() + self._errors.total(),
            "by_source": dict(self._sources),
            "errors": dict(self._errors),
            "swaps": sum(refresher.swaps for refresher in every.values()),
            "weights_refused": dict(refused),
            "last_refusal": next((r.last_refusal for r in every.values() if r.last_refusal), None),
            "model_version": next(iter(arms.answering.values())).scorer.version,
            "models": {
                name: {"requests": self._models[name], "swaps": r.swaps, "model_version": r.scorer.version}
                for name, r in every.items()
            },
        }


def _warn_of_priors(arms: Arms) -> None:
    for name, refresher in arms.answering.items():
        if refresher.scorer.version is None:
            why = refresher.last_refusal or f"no version of model '{name}' is published yet"
            _log.warning("%s; the app's prior CTR answers until there is one", why)


class _Watch:
    """Looks now and then at what a scorer depends on, and says so."""

    def __init__(
        self, told: ServeMetrics, standing: Callable[[], Standing] | None, catalogue: CatalogueSource | None
    ) -> None:
        self._told, self._standing, self._catalogue = told, standing, catalogue
        self._next_s, self._joining_until_s = 0.0, time.monotonic() + _JOINING_S

    def look(self, arms: Arms) -> None:
        """At most once a second, but while partitions are waited for."""
        now_s = time.monotonic()
        if now_s < self._next_s:
            return
        pause_s = _LOOK_S
        self.count(arms)
        trouble = ""
        if self._standing is None:
            self._told.metrics.ready(True)
        else:
            try:
                found = self._standing()
            except UnreachableError as error:
                trouble = str(error)
            else:
                if not found.partitions and now_s < self._joining_until_s:
                    pause_s = _SOON_S
                self._told.standing(found.partitions, found.lag)
                self._told.metrics.ready(found.partitions > 0, "no partition yet: joining, or others have them all")
        self._told.alive(trouble)
        self._next_s = time.monotonic() + pause_s

    def count(self, arms: Arms) -> None:
        """What the background has swapped in and refused so far."""
        self._told.weights(arms)
        if self._catalogue is not None:
            self._told.catalogue(self._catalogue.refused)
