"""What a scorer counts: requests and how they were answered, how long that took, and how fresh its weights are."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from prometheus_client import Counter as Counted

from contracts.serving import AdResponse
from nodes.arms import Arms
from nodes.metrics_http import Metrics

_BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class ServeMetrics:
    """The metrics of `rocket serve`, each named once; they cost nothing that matters where nobody looks.

    Args:
        metrics: of this process; its node is "serve".
        clock_ms: epoch milliseconds, for ages.
    """

    def __init__(self, metrics: Metrics, clock_ms: Callable[[], int]) -> None:
        self.metrics, self._clock_ms = metrics, clock_ms
        self._requests = metrics.counter(
            "ctr_serve_requests_total", "Requests answered, by what gave the scores.", ["source"]
        )
        self._by_model = metrics.counter(
            "ctr_serve_scored_requests_total", "Requests with scores, by whose they are.", ["model"]
        )
        self._errors = metrics.counter("ctr_serve_errors_total", "Requests answered with an error.", ["code"])
        self._latency = metrics.histogram(
            "ctr_serve_latency_seconds", "From a request's record timestamp until its answer is safe."
        )
        self._queued = metrics.histogram(
            "ctr_serve_queue_seconds", "From a request's record timestamp until it was polled."
        )
        self._took = metrics.histogram("ctr_serve_scoring_seconds", "Reading, features and net of one micro-batch.")
        self._batch = metrics.histogram(
            "ctr_serve_batch_requests", "Requests of one micro-batch.", buckets=_BATCH_BUCKETS
        )
        self._retries = metrics.counter(
            "ctr_serve_append_retries_total", "Times that answers were made again since they could not be written."
        )
        self._slow = metrics.counter("ctr_serve_slow_total", "Requests that took longer than serving.slow_ms.")
        self._recorded = metrics.counter(
            "ctr_serve_snapshot_rows_total", "Scored candidates written as snapshots.", ["shadow"]
        )
        self._unrecorded = metrics.counter(
            "ctr_serve_snapshots_dropped_total", "Requests whose snapshot was dropped: too many waited, or no sink."
        )
        self._swaps = metrics.counter("ctr_serve_swaps_total", "Versions swapped in.", ["model"])
        self._refused = metrics.counter(
            "ctr_serve_weights_refused_total", "Versions, or looks at the weight store, that failed.", ["model", "kind"]
        )
        self._items_refused = metrics.counter(
            "ctr_serve_catalogue_refused_total", "Items of the catalogue's topic that were not taken.", ["code"]
        )
        self._version = metrics.gauge("ctr_serve_model_version", "Version that answers; 0: the prior does.", ["model"])
        self._age = metrics.gauge(
            "ctr_serve_model_age_seconds", "Since that version was made; 0: the prior answers.", ["model"]
        )
        self._freshness = metrics.gauge(
            "ctr_serve_freshness_seconds",
            "Since the newest event that the version has learnt; 0: the prior answers.",
            ["model"],
        )
        self._lag = metrics.gauge("ctr_serve_lag_records", "Requests of this process's partitions not yet answered.")
        self._partitions = metrics.gauge("ctr_serve_partitions", "Partitions that this process reads.")
        self._degraded = metrics.gauge("ctr_serve_degraded", "1 while the brokers do not answer, else 0.")
        self._told: Counter[str] = Counter()

    def answered(self, sent_ms: Sequence[int], answers: Sequence[AdResponse], polled_ms: int, safe_ms: int) -> None:
        """A micro-batch whose answers are safe.

        Args:
            sent_ms: record timestamp of each request; 0: unknown.
            answers: one a request.
            polled_ms: when the requests were polled, epoch milliseconds.
            safe_ms: when they were safe, epoch milliseconds.
        """
        for source, count in Counter(answer.source for answer in answers if answer.source).items():
            self._requests.labels(source).inc(count)
        for code, count in Counter(answer.error.code for answer in answers if answer.error).items():
            self._errors.labels(code).inc(count)
        for model, count in Counter(answer.model for answer in answers if answer.model).items():
            self._by_model.labels(model).inc(count)
        for sent in sent_ms:
            if sent:
                self._latency.observe(max(0, safe_ms - sent) / 1000)
                self._queued.observe(max(0, polled_ms - sent) / 1000)
        self._took.observe(max(answer.took_us for answer in answers) / 1e6)
        self._batch.observe(len(answers))

    def retried(self) -> None:
        """Answers could not be written for now."""
        self._retries.inc()

    def slow(self) -> None:
        """A request took longer than it should."""
        self._slow.inc()

    def recorded(self, rows: int, shadow_rows: int) -> None:
        """Snapshots were written, so many of them of shadows."""
        self._recorded.labels("false").inc(rows - shadow_rows)
        self._recorded.labels("true").inc(shadow_rows)

    def unrecorded(self, requests: int) -> None:
        """Snapshots of so many requests were dropped."""
        self._unrecorded.inc(requests)

    def weights(self, arms: Arms) -> None:
        """What the background threads have swapped in and refused so far, and how old it is now."""
        at_ms = self._clock_ms()
        for model, refresher in [*arms.answering.items(), *arms.shadows.items()]:
            self._grown(self._swaps.labels(model), f"swaps of {model}", refresher.swaps)
            for kind, count in dict(refresher.refused).items():
                self._grown(self._refused.labels(model, kind), f"{kind} of {model}", count)
            manifest = refresher.scorer.manifest
            self._version.labels(model).set(manifest.version if manifest else 0)
            self._age.labels(model).set((at_ms - manifest.created_ms) / 1000 if manifest else 0)
            self._freshness.labels(model).set((at_ms - manifest.trained_until_ms) / 1000 if manifest else 0)

    def catalogue(self, refused: Mapping[str, int]) -> None:
        """Items that the catalogue's topic told and that were not taken so far, by code."""
        for code, count in dict(refused).items():
            self._grown(self._items_refused.labels(code), f"items: {code}", count)

    def standing(self, partitions: int, lag_records: int) -> None:
        """Which part of the requests is this process's, and how many of them wait."""
        self._partitions.set(partitions)
        self._lag.set(lag_records)

    def alive(self, trouble: str = "", *, may_take_s: float = 0.0) -> None:
        """The loop ticks, with or without brokers; without them it is not ready."""
        self._degraded.set(bool(trouble))
        if trouble:
            self.metrics.ready(False, trouble)
        self.metrics.heartbeat(trouble, may_take_s=may_take_s)

    def _grown(self, counter: Counted, key: str, total: int) -> None:
        """Bring a counter to a total that only grows."""
        counter.inc(total - self._told[key])
        self._told[key] = total
