"""Ad requests are answered with one version of the light net, in NumPy on one thread.

A micro-batch costs at most one check and one featurize call over its requests, and one of each over their candidates:
none for values that are known by heart (`nodes.request_side`) and items that are known by id (`nodes.item_vectors`).
"""

import time
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Literal

import numpy as np
import polars as pl

from contracts.app import App
from contracts.errors import CorruptError, RocketError
from contracts.serving import AdResponse, Problem, Score
from contracts.weights import WeightManifest, Weights
from nodes.asked import Asked
from nodes.catalogue import Catalogue
from nodes.feature_columns import SAID
from nodes.item_vectors import ItemVectors
from nodes.light_numpy import LightNet, Met, Share, chance
from nodes.mixed_side import MixedSide, Said
from nodes.read_requests import RequestReader
from nodes.scored import Scored
from nodes.verify_weights import check_schema

Source = Literal["model", "stale", "prior"]


class LightScorer:
    """Scores with one version; a new version is a new scorer, swapped in by one assignment.

    Candidates that name an item of the catalogue take what was computed for it beforehand; all others, also those that
    say something else of a known item, take the full path, in the same answer.

    Args:
        app: its feature table and serving settings.
        weights: a whole version; None answers everything with the app's prior CTR. Its arrays are read as long as this
            scorer is used.
        catalogue: the items whose candidates may come by id alone.
        before: the scorer that this one follows: what it knows by heart is taken over, and of its item vectors those
            that are still right. `weights.changed` is what differs from its weights.

    Raises:
        SchemaMismatchError: the version was made for another feature table.
        CorruptError: its arrays do not fit the app's features.
    """

    def __init__(
        self,
        app: App,
        weights: Weights | None,
        catalogue: Catalogue | None = None,
        *,
        before: "LightScorer | None" = None,
    ) -> None:
        self._app = app
        self.catalogue = catalogue  #: whose items are known
        self._manifest = weights.manifest if weights else None
        alike = before is not None and (before.catalogue is None) == (catalogue is None)
        self.reader: RequestReader = (
            before.reader
            if before and alike
            else RequestReader(app, by_id=catalogue is not None, remember=app.config.serving.remember_candidates)
        )
        sides = self.reader.sides
        self._net: LightNet | None = None
        self.items: ItemVectors | None = None  #: computed beforehand
        self._link = weights.manifest.link if weights else "sigmoid"
        if weights is not None:
            check_schema(weights.manifest, app.schema_id)
            try:
                request, mixed = (frozenset(f.name for f in side) for side in (sides.request, sides.mixed))
                self._net = LightNet(app.layout, weights.arrays, request, mixed)
                chance(np.empty(0), self._link)
            except CorruptError as error:
                raise CorruptError(
                    f"version {weights.manifest.version} of model '{weights.manifest.model}': {error}"
                ) from None
            if catalogue is not None:
                same = before is not None and before.manifest == self._manifest
                changed = {} if same else weights.changed
                self.items = ItemVectors.of(self._net, catalogue, before.items if before else None, changed)

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
        asked = self.reader.read(requests, self.catalogue)
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
        """Logits of the candidates in `good_B`, all of requests in `good_R`; no other row reaches the features."""
        assert self._net is not None  # noqa: S101
        share, request_of, places = self._share_of(asked, good_R), asked.request_of, asked.places
        if places is None or (places < 0).all():
            return self._own_logits(asked, share, good_R, np.flatnonzero(good_B))
        if self.items is not None and (places >= 0).all():
            rows = slice(None) if good_B.all() else good_B
            return self._item_logits(asked, share, self.items, request_of[rows], places[rows])
        logit = np.empty(good_B.size, np.float32)
        by_id, own = good_B & (places >= 0), np.flatnonzero(good_B & (places < 0))
        if self.items is not None:
            logit[by_id] = self._item_logits(asked, share, self.items, request_of[by_id], places[by_id])
        if own.size:
            logit[own] = self._own_logits(asked, share, good_R, own)
        return logit[good_B]

    def _share_of(self, asked: Asked, good_R: np.ndarray) -> Share:
        """What the requests add to the first layer; rows of those that are not good hold nothing of use."""
        assert self._net is not None  # noqa: S101
        side = asked.request_side
        if side.features is not None:
            return self._net.request_share(side.features, side.rows)
        good = side.side.featurize(side.frame.filter(pl.Series(good_R)))
        made = {series.name: np.zeros(side.rows, series.to_numpy().dtype) for series in good}
        for series in good:
            made[series.name][good_R] = series.to_numpy()
        return self._net.request_share(made, side.rows)

    def _item_logits(
        self, asked: Asked, share: Share, items: ItemVectors, request_B: np.ndarray, place_B: np.ndarray
    ) -> np.ndarray:
        """Logits of candidates that name an item of the catalogue."""
        assert self._net is not None  # noqa: S101
        met = None
        if self.reader.mixed is not None and self.catalogue is not None and self.catalogue.said is not None:
            met = self._met(self.reader.mixed, asked, share, self.catalogue.said.of(place_B), request_B)
        return self._net.joined(share, request_B, items.first_NK, items.wide_N, place_B, met)

    def _own_logits(self, asked: Asked, share: Share, good_R: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Logits of candidates that bring their own values, given as candidate rows."""
        assert self._net is not None  # noqa: S101
        side, request_of = asked.candidate_side, asked.request_of[rows]
        at = rows if asked.places is None else np.searchsorted(asked.own_rows(), rows)
        every = at.size == side.rows
        if side.features is not None:
            features = side.features if every else {name: values[at] for name, values in side.features.items()}
        else:
            features = side.side.features_of(side.frame if every else side.frame[at])
        met, mixed = None, self.reader.mixed
        if mixed is not None:
            met = self._met(mixed, asked, share, mixed.said(features[SAID].tolist()), request_of)
        return self._net.joined(share, request_of, *self._net.candidate_share(features, at.size), met=met)

    def _met(self, mixed: MixedSide, asked: Asked, share: Share, said: Said, request_B: np.ndarray) -> Met:
        """What the features that read request and candidate add to some candidates."""
        assert self._net is not None  # noqa: S101
        return self._net.met(share, *mixed.meetings(asked.request_side.values, said, request_B))

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
                start, stop = bounds[row_of[place]], bounds[row_of[place] + 1]
                scores = list(map(Score, items[start:stop], chances[start:stop]))
                for at in refused if refused else ():
                    if start <= at < stop:
                        scores[at - start] = Score(items[at], None, refused[at])
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


def _logit(chance: float) -> float:
    return float(np.log(chance) - np.log1p(-chance))
