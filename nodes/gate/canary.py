"""Requests that are always scored: how a candidate's scores differ from those of what is live, labels aside.

The set is a file of requests (`publish.gate.canary`), the same for every candidate, or else the newest examples
that are believed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
import polars as pl

from contracts.app import App
from contracts.errors import ContractError
from contracts.sections import Gate
from contracts.weights import WeightManifest, Weights
from nodes.gate.judge import Fault
from nodes.light_numpy import LightNet, chance
from nodes.score import LightScorer

Arrays = Mapping[str, np.ndarray]
#: Logits whose spread is below that are one constant, whatever the live version's.
CONSTANT = 1e-4
#: A probability nearer to 0 or 1 than that is saturated.
SATURATED = 1e-6
_BINS, _LEAST_SHARE = 10, 1e-4
#: Fewer scores say too little of a distribution.
LEAST_SCORES = 50
_BATCH = 16


@dataclass(frozen=True)
class Scores:
    """What one net says to the canary set."""

    logit: np.ndarray  #: [B]
    request: np.ndarray | None = None  #: of each, [B]; None: not requests but examples


class Canary(Protocol):
    """A set of rows that any version can score."""

    def scores(self, arrays: Arrays, link: str) -> Scores:
        """Logits of all rows under a version's dequantised arrays; always the same rows in the same order."""
        ...


class NewestExamples:
    """The newest rows of the log that are believed, `publish.gate.canary_rows` of them."""

    def __init__(self, app: App, rows: int) -> None:
        self._app, self._rows = app, rows
        self._frame: pl.DataFrame | None = None

    def add(self, frame: pl.DataFrame) -> None:
        """Newer rows come in, the oldest make way."""
        light = frame.select(feature.name for feature in (*self._app.layout.light_ids, *self._app.layout.light_dense))
        self._frame = (light if self._frame is None else pl.concat([self._frame, light])).tail(self._rows)

    def scores(self, arrays: Arrays, link: str) -> Scores:
        """As `Canary` says; none before the first rows."""
        del link
        if self._frame is None:
            return Scores(np.empty(0, np.float32))
        return Scores(LightNet(self._app.layout, arrays).logits(self._frame))


class RequestFile:
    """The candidates of the requests in a file, scored as a scorer would; refused ones are left out.

    Args:
        app: whose requests.
        path: one request a line, as `rocket score` takes them.
        rows: candidates that are enough.

    Raises:
        ContractError: the file cannot be read, or the app's prior can answer none of it.
    """

    def __init__(self, app: App, path: Path, rows: int) -> None:
        self._app = app
        try:
            with path.open("rb") as file:
                self._lines = [line for line in islice(file, rows) if line.strip()]
        except OSError as error:
            raise ContractError(
                f"{path}: the canary requests cannot be read ({error}); mend publish.gate.canary"
            ) from error
        self._rows = rows
        if not self._scored(LightScorer(app, None)).logit.size:
            raise ContractError(
                f"{path}: holds no request that the app '{app.name}' can answer; `rocket score` says what is wrong "
                "with them, `rocket demo` writes a requests.ndjson to begin with"
            )

    def scores(self, arrays: Arrays, link: str) -> Scores:
        """As `Canary` says."""
        manifest = WeightManifest(
            model=self._app.name, version=0, schema_id=self._app.schema_id, app=self._app.name, trained_until_ms=0,
            position=0, step=0, epoch=0, created_ms=0, gate={}, blobs=(), link=link,
        )  # fmt: skip
        return self._scored(LightScorer(self._app, Weights(manifest, dict(arrays))))

    def _scored(self, scorer: LightScorer) -> Scores:
        """A few requests at a time until there are candidates enough: the same ones for every version."""
        logits, requests, found = [], [], 0
        for start in range(0, len(self._lines), _BATCH):
            made = scorer.score(self._lines[start : start + _BATCH], now_ms=0).frame().drop_nulls("logit")
            logits.append(made["logit"].to_numpy())
            requests.append(made["request_id"].to_numpy())
            found += made.height
            if found >= self._rows:
                break
        return Scores(np.concatenate(logits), np.concatenate(requests)) if logits else Scores(np.empty(0))


def psi(now: np.ndarray, before: np.ndarray) -> float:
    """Population stability index of scores: sum over bins of (p - q) ln(p / q), p and q the shares of each.

    The bins hold a tenth of `before` each. Usual readings: below 0.1 the same, above 0.25 changed (Siddiqi, Credit Risk
    Scorecards, 2006); versions of a net that still learns change more.

    >>> scores = np.arange(1000.0)
    >>> psi(scores, scores), psi(scores + 1000, scores) > 5
    (0.0, True)
    """
    edges = np.quantile(before, np.arange(1, _BINS) / _BINS)
    shares = [
        np.maximum(np.bincount(np.searchsorted(edges, each, side="right"), minlength=_BINS) / each.size, _LEAST_SHARE)
        for each in (now, before)
    ]
    return float(((shares[0] - shares[1]) * np.log(shares[0] / shares[1])).sum())


def rank_correlation(now: Scores, before: Scores) -> float | None:
    """Spearman's, as mean over the requests with three candidates or more; over all rows where they are no requests.

    None where one of the two has no order.
    """
    frame = pl.DataFrame({"now": now.logit, "before": before.logit})
    request = pl.lit(0) if now.request is None else pl.Series(now.request)
    each = (
        frame.group_by(request.alias("request"), maintain_order=True)
        .agg(found=pl.corr("now", "before", method="spearman"), rows=pl.len())
        .filter((pl.col("rows") > 2) & pl.col("found").is_finite())
    )
    mean = each["found"].mean()
    return None if mean is None else float(str(mean))


@dataclass(frozen=True)
class Shift:
    """How a candidate scores the canary set, and how that differs from what is live."""

    rows: int
    spread: float  #: standard deviation of its logits
    saturated: float  #: share of its scores within `SATURATED` of 0 or 1
    live_spread: float | None = None  #: None: no version is live
    mean_abs: float | None = None  #: mean |difference| of logits
    psi: float | None = None
    rank_correlation: float | None = None


def shift_of(candidate: Scores, live: Scores | None, link: str) -> Shift:
    """Compare the scores of two versions on the same rows; `live` None: there is none to compare with."""
    logit = candidate.logit.astype(np.float64)
    p = chance(logit, link)
    saturated = float(((p < SATURATED) | (p > 1 - SATURATED)).mean()) if link == "sigmoid" and p.size else 0.0
    spread = float(logit.std()) if logit.size else 0.0
    if live is None or live.logit.size != logit.size:
        return Shift(logit.size, spread, saturated)
    before = live.logit.astype(np.float64)
    return Shift(
        logit.size,
        spread,
        saturated,
        float(before.std()),
        float(np.abs(logit - before).mean()) if logit.size else None,
        psi(logit, before) if logit.size else None,
        rank_correlation(candidate, live) if logit.size else None,
    )


def judge_scores(shift: Shift, settings: Gate, *, better: bool) -> Fault | None:
    """Why a candidate's scores must not be served; None when they may, or are too few to say.

    Args:
        shift: what was found on the canary set.
        settings: the gate's limits.
        better: it predicts the window better than what is live: then its scores may differ, as those of a net that has
            just begun to learn must, or of one that follows a version that went wrong.

    >>> judge_scores(Shift(rows=1000, spread=0.0, saturated=0.0), Gate(), better=True).reason
    'its scores are all the same: their standard deviation on 1,000 canary rows is 0 logits'
    """
    if shift.rows < LEAST_SCORES:
        return None
    wrong = _by_itself(shift, settings) or (None if better else _against_live(shift, settings))
    return None if wrong is None else Fault("scores", wrong)


def _by_itself(shift: Shift, settings: Gate) -> str | None:
    if not np.isfinite(shift.spread):
        return f"its scores are not finite on {shift.rows:,} canary rows"
    if shift.spread < CONSTANT:
        return (
            f"its scores are all the same: their standard deviation on {shift.rows:,} canary rows is "
            f"{shift.spread:.3g} logits"
        )
    if shift.saturated > settings.max_saturated:
        return f"{shift.saturated:.1%} of its scores on {shift.rows:,} canary rows are saturated"
    return None


def _against_live(shift: Shift, settings: Gate) -> str | None:
    if shift.live_spread is not None and shift.spread < settings.min_score_spread * shift.live_spread:
        return (
            f"its scores have collapsed: their standard deviation is {shift.spread:.3g} logits, that of the live "
            f"version's {shift.live_spread:.3g}"
        )
    if shift.mean_abs is not None and shift.mean_abs > settings.max_score_shift:
        return f"its scores lie {shift.mean_abs:.2f} logits from the live version's on average, and predict no better"
    if shift.psi is not None and shift.psi > settings.max_score_psi:
        return (
            f"its scores are distributed otherwise than the live version's (population stability index "
            f"{shift.psi:.2f}), and predict no better"
        )
    if shift.rank_correlation is not None and shift.rank_correlation < settings.min_rank_correlation:
        return (
            f"it ranks otherwise than the live version (rank correlation {shift.rank_correlation:.2f}), and predicts "
            "no better"
        )
    return None
