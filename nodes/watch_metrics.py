"""What each term of the loss does to each net, as metrics: the newest look of `model.watch`."""

from collections.abc import Mapping

from nodes.metrics_http import Metrics

_LOSSES = {"loss_light": "light", "loss_booster": "booster", "hint": "hint", "feature": "feature"}


class WatchMetrics:
    """Turns a look's figures into gauges.

    >>> with Metrics("train") as metrics:
    ...     WatchMetrics(metrics)({"loss_light": 0.5, "grad_light_hint": 0.25, "hint_share": 0.2, "new_shared": 0.125})
    ...     [line for line in metrics.text().splitlines() if line.startswith(("ctr_train_grad", "ctr_train_new"))]
    ['ctr_train_gradient{net="light",term="hint"} 0.25', 'ctr_train_new_rows_share{table="shared"} 0.125']
    """

    def __init__(self, metrics: Metrics) -> None:
        self._terms = metrics.gauge("ctr_train_term", "A term of the loss, nats or as the hint has it.", ["term"])
        self._gradients = metrics.gauge(
            "ctr_train_gradient", "Length of the gradient that a term (lambda in) puts on a net.", ["net", "term"]
        )
        self._rms = metrics.gauge("ctr_train_embedding_rms", "Root mean square of the rows looked up.", ["table"])
        self._new = metrics.gauge(
            "ctr_train_new_rows_share", "Of the distinct rows looked up, those that never moved.", ["table"]
        )
        self._plain = {
            "hint_share": metrics.gauge("ctr_train_hint_share", "Hints over all terms, of the light net's gradient."),
            "booster_lead": metrics.gauge(
                "ctr_train_booster_lead", "Running logloss of the light net less the booster's, nats."
            ),
        }

    def __call__(self, look: Mapping[str, float]) -> None:
        """Take the newest look; nothing where there was none."""
        for name, value in look.items():
            kind, _, rest = name.partition("_")
            if name in self._plain:
                self._plain[name].set(value)
            elif name in _LOSSES:
                self._terms.labels(_LOSSES[name]).set(value)
            elif kind == "grad" and not rest.startswith("norm_"):
                self._gradients.labels(*rest.split("_", 1)).set(value)
            elif kind in {"rms", "new"}:
                (self._rms if kind == "rms" else self._new).labels(rest).set(value)
