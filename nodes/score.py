"""Ad requests are answered with one version of the light net, in NumPy on one thread.

A micro-batch costs one check and one featurize call over its requests, and one of each over their candidates.
"""

import time
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl

from contracts.app import App
from contracts.errors import CorruptError, RocketError
from contracts.features import STATEFUL, Feature
from contracts.serving import AdResponse, Problem, Score
from contracts.weights import WeightManifest, Weights
from nodes.catalogue import Catalogue
from nodes.featurize import Featurizer, fill_serving_defaults
from nodes.light_numpy import LightNet, chance
from nodes.read_requests import Asked, RequestReader
from nodes.verify_weights import check_schema

Source = Literal["model", "stale", "prior"]
#: One row a candidate, as `Scored.frame` gives it.
SCORES = {
    "request_id": pl.String(),
    "candidate": pl.Int64(),  # index in the request
    "item_id": pl.String(),
    "pctr": pl.Float64(),  # null: refused
    "logit": pl.Float32(),
    "model_version": pl.Int64(),
}


@dataclass(frozen=True)
class Scored:
    """A micro-batch, scored."""

    asked: Asked
    pctr: np.ndarray  #: float64, one a candidate; NaN where it is refused
    logit: np.ndarray  #: float32 likewise
    responses: list[AdResponse]  #: one a message, in order
    read_us: int = 0  #: of `took_us`, what parsing and checking took

    def frame(self) -> pl.DataFrame:
        """One row a candidate of the requests that were answered (`SCORES`)."""
        asked = self.asked
        starts = np.searchsorted(asked.request_of, np.arange(len(asked.message_of)))
        message = np.array(asked.message_of, np.int64)[asked.request_of]
        version = next((r.model_version for r in self.responses if r.error is None), None)
        answered = np.array([problem is None for problem in asked.problems], bool)[message]
        rows = {
            "request_id": [asked.ids[place] for place in message],
            "candidate": np.arange(len(asked.item_ids)) - starts[asked.request_of],
            "item_id": asked.item_ids,
            "pctr": self.pctr,
            "logit": self.logit,
            "model_version": [version] * len(asked.item_ids),
        }
        frame = pl.DataFrame(rows, schema=SCORES, strict=False).filter(pl.Series(answered, dtype=pl.Boolean))
        return frame.with_columns(pl.col("pctr", "logit").fill_nan(None))


class LightScorer:
    """Scores with one version; a new version is a new scorer, swapped in by one assignment.

    Args:
        app: its feature table and serving settings.
        weights: a whole version; None answers everything with the app's prior CTR.
        catalogue: the items whose candidates may come by id alone.

    Raises:
        SchemaMismatchError: the version was made for another feature table.
        CorruptError: its arrays do not fit the app's features.
    """

    def __init__(self, app: App, weights: Weights | None, catalogue: Catalogue | None = None) -> None:
        self._app = app
        self._manifest = weights.manifest if weights else None
        self._reader = RequestReader(app, catalogue)
        light = [f for f in app.features if f.only is None and f.kind not in STATEFUL]
        known = {column.name for column in self._reader.request_columns}
        mine = [f for f in light if known.issuperset(f.inputs)]
        others = [f for f in light if not known.issuperset(f.inputs)]
        self._lent = sorted({name for f in others for name in f.inputs if name in known})
        self._of_request, self._of_candidate = _Filled(mine), _Filled(others)
        self._net: LightNet | None = None
        self._link = weights.manifest.link if weights else "sigmoid"
        if weights is not None:
            check_schema(weights.manifest, app.schema_id)
            try:
                self._net = LightNet(app.layout, weights.arrays, frozenset(f.name for f in mine))
                chance(np.empty(0), self._link)
            except CorruptError as error:
                raise CorruptError(
                    f"version {weights.manifest.version} of model '{weights.manifest.model}': {error}"
                ) from None

    @property
    def manifest(self) -> WeightManifest | None:
        """Of the version that answers; None: the prior does."""
        return self._manifest

    @property
    def version(self) -> int | None:
        """The version that answers; None: the prior does."""
        return self._manifest.version if self._manifest else None

    def logits(self, features: pl.DataFrame) -> np.ndarray:
        """Logits of rows that are featurised already: float32, one a row.

        Raises:
            ContractError: a light feature is missing, or there are no weights to score with.
        """
        if self._net is None:
            return np.full(features.height, _logit(self._app.config.serving.prior_ctr), np.float32)
        return self._net.logits(features)

    def answer(
        self, requests: Sequence[bytes], *, now_ms: int, received_ms: Sequence[int] | None = None
    ) -> list[AdResponse]:
        """Answer a micro-batch, one response a request in order; never raises on what a request holds.

        Args:
            requests: JSON, as they came.
            now_ms: tells a stale version, and a request that is past its deadline.
            received_ms: when each was sent; from then on its `tmax` counts. None: there is no deadline.
        """
        return self.score(requests, now_ms=now_ms, received_ms=received_ms).responses

    def score(self, requests: Sequence[bytes], *, now_ms: int, received_ms: Sequence[int] | None = None) -> Scored:
        """As `answer`, with the logits beside."""
        started = time.perf_counter()
        asked = self._reader.read(requests)
        read_us = round((time.perf_counter() - started) * 1e6)
        late = {at for at, sent in enumerate(received_ms or ()) if now_ms > sent + asked.tmax_ms[at]}
        logit, pctr = self._scores(asked, late)
        return Scored(asked, pctr, logit, self._responses(asked, pctr, late, self._source(now_ms), started), read_us)

    def _scores(self, asked: Asked, late: AbstractSet[int]) -> tuple[np.ndarray, np.ndarray]:
        """Logits and probabilities of all candidates, NaN for the refused and for those that nobody waits for."""
        rows = asked.request_of.size
        logit = np.full(rows, np.nan, np.float32)
        good_R = np.array([asked.problems[at] is None and at not in late for at in asked.message_of], bool)
        good_B = good_R[asked.request_of]
        good_B[list(asked.refused)] = False
        if not good_B.any():
            return logit, logit.astype(np.float64)
        if self._net is None:
            logit[good_B] = _logit(self._app.config.serving.prior_ctr)
        else:
            try:
                logit[good_B] = self._logits_of(asked, good_R, good_B)
            except RocketError as error:  # a feature kind of the user's own may refuse a value
                self._one_by_one(asked, logit, good_B, error)
        return logit, chance(logit, self._link)

    def _logits_of(self, asked: Asked, good_R: np.ndarray, good_B: np.ndarray) -> np.ndarray:
        requests, candidates, request_of = asked.requests, asked.candidates, asked.request_of
        if not good_B.all():  # refused rows never reach the features
            place_R = np.cumsum(good_R) - 1
            requests = requests.filter(pl.Series(good_R))
            candidates = candidates.filter(pl.Series(good_B))
            request_of = place_R[request_of[good_B]]
        if self._lent:
            candidates = candidates.with_columns(requests.select(self._lent)[request_of])
        assert self._net is not None  # noqa: S101
        return self._net.split_logits(self._of_request(requests), self._of_candidate(candidates), request_of)

    def _one_by_one(self, asked: Asked, logit: np.ndarray, good_B: np.ndarray, error: RocketError) -> None:
        """Find the requests that the features refuse; the others are scored all the same."""
        for row, place in enumerate(asked.message_of):
            mine_B = good_B & (asked.request_of == row)
            if not mine_B.any():
                continue
            try:
                logit[mine_B] = self._logits_of(asked, np.arange(len(asked.message_of)) == row, mine_B)
            except RocketError as its_error:
                asked.problems[place] = Problem("bad_value", str(its_error))
        del error

    def _source(self, now_ms: int) -> Source:
        if self._manifest is None:
            return "prior"
        return "stale" if now_ms - self._manifest.created_ms > self._app.config.serving.max_age_s * 1000 else "model"

    def _responses(
        self, asked: Asked, pctr: np.ndarray, late: AbstractSet[int], source: Source, started: float
    ) -> list[AdResponse]:
        chances, version, schema_id = pctr.tolist(), self.version, self._app.schema_id
        bounds = np.searchsorted(asked.request_of, np.arange(len(asked.message_of) + 1)).tolist()
        row_of = {place: row for row, place in enumerate(asked.message_of)}
        refused, items = asked.refused, asked.item_ids
        made: list[tuple[str | None, Problem | None, list[Score]]] = []
        for place, problem in enumerate(asked.problems):
            scores: list[Score] = []
            if problem is None and place not in late:
                row = row_of[place]
                scores = [
                    Score(items[at], chances[at]) if at not in refused else Score(items[at], None, refused[at])
                    for at in range(bounds[row], bounds[row + 1])
                ]
            made.append((asked.ids[place], problem, scores))
        took_us = round((time.perf_counter() - started) * 1e6)
        return [
            AdResponse(id=request_id, error=problem, took_us=took_us)
            if problem
            else expired(request_id, took_us)
            if place in late
            else AdResponse(
                id=request_id, model_version=version, schema_id=schema_id, source=source, scores=scores, took_us=took_us
            )
            for place, (request_id, problem, scores) in enumerate(made)
        ]


def expired(request_id: str | None, took_us: int) -> AdResponse:
    """The answer to a request whose deadline has passed: no scores, so no version."""
    return AdResponse(id=request_id, source="expired", took_us=took_us)


class _Filled:
    """Serving defaults, then the features."""

    def __init__(self, features: Sequence[Feature]) -> None:
        self._features, self._make = list(features), Featurizer(features)

    def __call__(self, frame: pl.DataFrame) -> pl.DataFrame:
        return self._make(fill_serving_defaults(frame, self._features))


def _logit(chance: float) -> float:
    return float(np.log(chance) - np.log1p(-chance))
