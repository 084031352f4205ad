"""What live training tells of itself: its figures, once a second, as metrics."""

from collections.abc import Mapping
from typing import Any

from nodes.metrics_http import Metrics
from nodes.watch_metrics import WatchMetrics

#: Metric -> (key of the figures, what it is); what the process has done so far, and so only grows.
_COUNTED = {
    "ctr_train_rows_total": ("learnt", "Examples learnt by this process."),
    "ctr_train_checkpoints_total": ("checkpoints", "Checkpoints written by this process."),
    "ctr_train_versions_total": ("versions", "Versions published by this process."),
}
_SHOWN = {
    "ctr_train_pending_rows": ("pending", "Rows read that do not fill a minibatch yet."),
    "ctr_train_redelivered_rows": ("redelivered", "Rows refused as trained before, in this lineage."),
    "ctr_train_steps": ("steps", "Minibatches learnt in this lineage."),
    "ctr_train_skipped_batches": ("skipped_batches", "Minibatches that were not finite and moved nothing, lineage."),
    "ctr_train_skipped_rows": ("skipped_rows", "Rows in them."),
    "ctr_train_position_rows": ("position", "Rows of the example log that are done with."),
    "ctr_train_lag_rows": ("lag_rows", "Rows that stand in the example log and are not learnt yet."),
    "ctr_train_hint_weight": ("hint_weight", "Lambda of the next minibatch; 0 while the hint's gate is shut."),
}
_NEWEST = {
    "ctr_train_version": ("version", "Newest version published."),
    "ctr_train_freshness_seconds": ("freshness_s", "Newest version: published - event time of its newest row."),
    "ctr_train_after_wait_seconds": ("after_wait_s", "The same, less label wait and disorder."),
    "ctr_train_gate_wait_seconds": ("gate_wait_s", "The part of it that the gate took: from offered to published."),
}


class TrainMetrics:
    """Turns the figures of `flows.train_live` into counters and gauges.

    >>> with Metrics("train") as metrics:
    ...     tell = TrainMetrics(metrics)
    ...     tell({"learnt": 64, "held": {"logloss": 1}, "seconds": {"learn": 0.5}, "progressive": {}, "newest": None})
    ...     tell({"learnt": 96, "held": {"logloss": 3}, "seconds": {"learn": 0.6}, "progressive": {}, "newest": None})
    ...     [line for line in metrics.text().splitlines() if line.startswith(("ctr_train_rows_t", "ctr_train_held_t"))]
    ['ctr_train_rows_total 96.0', 'ctr_train_held_total{reason="logloss"} 3.0']
    """

    def __init__(self, metrics: Metrics) -> None:
        self._counters = {key: metrics.counter(name, doc) for name, (key, doc) in _COUNTED.items()}
        self._shown = {key: metrics.gauge(name, doc) for name, (key, doc) in _SHOWN.items()}
        self._newest = {key: metrics.gauge(name, doc) for name, (key, doc) in _NEWEST.items()}
        self._held = metrics.counter("ctr_train_held_total", "Candidates not published.", ["reason"])
        self._spent = metrics.counter("ctr_train_spent_seconds_total", "Where the time goes.", ["on"])
        self._logloss = metrics.gauge("ctr_train_logloss", "Progressive, of the whole lineage.", ["net"])
        self._calibration = metrics.gauge("ctr_train_calibration", "Predicted / observed, progressive.", ["net"])
        self._wait = metrics.gauge(
            "ctr_train_wait_seconds", "Of the newest version's examples, from due to published.", ["quantile"]
        )
        self._watch = WatchMetrics(metrics)
        self._told: dict[tuple[str, str], float] = {}

    def __call__(self, figures: Mapping[str, Any]) -> None:
        """Take the newest figures."""
        for key, counter in self._counters.items():
            counter.inc(self._grown("counted", key, figures.get(key, 0)))
        for reason, count in figures["held"].items():
            self._held.labels(reason).inc(self._grown("held", reason, count))
        for on, seconds in figures["seconds"].items():
            self._spent.labels(on).inc(self._grown("spent", on, seconds))
        self._watch(figures.get("watch", {}))
        newest = figures["newest"] or {}
        for gauges, told in ((self._shown, figures), (self._newest, newest)):
            for key, gauge in gauges.items():
                if told.get(key) is not None:
                    gauge.set(told[key])
        for share in ("p50", "p99"):
            if newest.get(f"wait_s_{share}") is not None:
                self._wait.labels(f"0.{share[1:].removesuffix('0')}").set(newest[f"wait_s_{share}"])
        for net, row in figures["progressive"].items():
            for gauge, key in ((self._logloss, "logloss"), (self._calibration, "calibration")):
                if row[key] is not None:
                    gauge.labels(net).set(row[key])

    def _grown(self, kind: str, key: str, value: float) -> float:
        before = self._told.get((kind, key), 0.0)
        self._told[kind, key] = value
        return max(value - before, 0.0)
