"""What a scorer saw when it scored, written down: one row a candidate, to be joined to what was shown and clicked.

answered micro-batches ─▶ bounded queue ─▶ (thread) features, shadows' scores ─▶ parts ─▶ sink

The features come from the same code over the same values as those that were scored (law 5), catalogue and serving
defaults included, so training can be compared with serving without computing anything again. The loop of the scorer
only puts a micro-batch into the queue; where that is full, the micro-batch is dropped and counted.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import NamedTuple

import numpy as np
import polars as pl

from contracts.app import App
from contracts.errors import ContractError, RocketError
from contracts.features import STATEFUL
from contracts.serving import AdResponse
from nodes.asked import Asked
from nodes.catalogue import Catalogue
from nodes.featurize import Featurizer, fill_serving_defaults
from nodes.read_requests import RequestReader
from nodes.refresh import Refresher
from nodes.serve_metrics import ServeMetrics

_log = logging.getLogger(__name__)
#: One row a scored candidate; after these the light net's features by name (`contracts.segments.column_type`).
SNAPSHOT = {
    "request_id": pl.String(),
    "candidate": pl.Int64(),  # index in the request
    "item_id": pl.String(),
    "model": pl.String(),
    "model_version": pl.Int64(),  # null: the prior answered
    "schema_id": pl.String(),
    "shadow": pl.Boolean(),  # scored beside, never returned
    "pctr": pl.Float64(),
    "answered_ms": pl.Int64(),  # epoch milliseconds
}
#: Takes one part; raises RocketError where it cannot, and then the part is dropped.
Sink = Callable[[pl.DataFrame], None]


class SnapshotRows:
    """Makes the rows of `SNAPSHOT`.

    Args:
        app: its light features are written down.
        by_id: candidates may be ids alone, of a catalogue.
    """

    def __init__(self, app: App, *, by_id: bool = False) -> None:
        self._light = [f for f in app.features if f.only is None and f.kind not in STATEFUL]
        self._reader, self._featurize = RequestReader(app, by_id=by_id), Featurizer(self._light)
        self._item_id = app.requests.role("item_id")

    def of(
        self,
        messages: Sequence[bytes],
        answers: Mapping[bool, Sequence[Sequence[AdResponse]]],
        at_ms: int,
        catalogue: Catalogue | None = None,
    ) -> pl.DataFrame:
        """The rows of every candidate that has a score.

        Args:
            messages: requests, as they came.
            answers: shadow or not -> answers of one model or more, each list with one a message.
            at_ms: when they were made, epoch milliseconds.
            catalogue: that they were made with.
        """
        asked = self._reader.read(messages, catalogue)
        if not asked.message_of:
            return pl.DataFrame()
        whole = self._candidates(asked, catalogue).hstack(asked.requests[asked.request_of])
        features = self._featurize(fill_serving_defaults(whole, self._light))
        message_B = np.array(asked.message_of, np.int64)[asked.request_of]
        starts = np.searchsorted(asked.request_of, np.arange(len(asked.message_of)))
        rows = pl.DataFrame(
            {
                "request_id": [asked.ids[at] for at in message_B.tolist()],
                "candidate": np.arange(len(message_B)) - starts[asked.request_of],
                "item_id": asked.item_ids,
            }
        )
        sizes = np.bincount(asked.request_of, minlength=len(asked.message_of))
        made = [
            rows.with_columns(_scores([responses[at] for at in asked.message_of], sizes), shadow=pl.lit(shadow))
            .hstack(features)
            .filter(pl.col("pctr").is_not_null())
            for shadow, sets in answers.items()
            for responses in sets
        ]
        return pl.concat(made).with_columns(answered_ms=pl.lit(at_ms, pl.Int64)).select(*SNAPSHOT, *features.columns)

    def _candidates(self, asked: Asked, catalogue: Catalogue | None) -> pl.DataFrame:
        """All candidates' columns, in order, those of the catalogue's items filled in."""
        if asked.places is None or catalogue is None:
            return asked.candidates
        known_K = np.flatnonzero(asked.places >= 0)
        ids, nothing = [asked.item_ids[row] for row in known_K.tolist()], [None] * known_K.size
        side = self._reader.candidate_side
        items = side.frame(
            [ids if column.name == self._item_id else nothing for column in self._reader.candidate_columns]
        )
        parts = [catalogue.fill(items)] + ([asked.candidates] if asked.candidates.height else [])
        return pl.concat(parts)[np.argsort(np.concatenate((known_K, asked.own_rows())), kind="stable")]


def _scores(responses: Sequence[AdResponse], sizes: np.ndarray) -> list[pl.Series]:
    """What the responses say of each candidate; nulls where a request got no scores."""
    chances: list[float | None] = []
    for response, size in zip(responses, sizes.tolist(), strict=True):
        chances += [score.pctr for score in response.scores] if response.scores else [None] * size
    of = np.repeat(np.arange(len(responses)), sizes)
    return [
        pl.Series("pctr", chances, pl.Float64()),
        pl.Series("model", [r.model for r in responses], pl.String())[of],
        pl.Series("model_version", [r.model_version for r in responses], pl.Int64())[of],
        pl.Series("schema_id", [r.schema_id for r in responses], pl.String())[of],
    ]


class _Batch(NamedTuple):
    messages: list[bytes]
    answers: list[AdResponse]
    at_ms: int
    catalogue: Catalogue | None


class Snapshots:
    """Writes snapshots in a thread while the `with` block runs; what waits at its end is written.

    Args:
        app: whose features.
        sink: takes parts; None: nothing is recorded.
        shadows: score every answered request beside, for the record alone.
        by_id: candidates may be ids alone, of a catalogue.
        told: counts rows and what was dropped.
        clock_ms: epoch milliseconds.
        most_waiting: micro-batches in the queue.
        part_rows: a part is written when it has that many rows,
        part_s: or when its first row is that old.

    Raises:
        ContractError: there are shadows, and no sink for their scores.
    """

    def __init__(
        self,
        app: App,
        sink: Sink | None,
        shadows: Mapping[str, Refresher],
        told: ServeMetrics,
        clock_ms: Callable[[], int],
        *,
        by_id: bool = False,
        most_waiting: int = 256,
        part_rows: int = 65_536,
        part_s: float = 5.0,
    ) -> None:
        if shadows and sink is None:
            raise ContractError(
                f"shadow '{next(iter(shadows))}' scores for the record alone, and there is none; add --snapshots"
            )
        self._sink, self._shadows, self._told, self._clock_ms = sink, shadows, told, clock_ms
        self._rows = SnapshotRows(app, by_id=by_id)
        self._queue: queue.Queue[_Batch | None] = queue.Queue(most_waiting)
        self._part_rows, self._part_s = part_rows, part_s
        self._part: list[pl.DataFrame] = []
        self._requests, self._began_s = 0, 0.0
        self._thread = threading.Thread(target=self._run, name="snapshots", daemon=True)

    def offer(
        self, messages: Sequence[bytes], answers: Sequence[AdResponse], catalogue: Catalogue | None = None
    ) -> None:
        """Record what was answered with scores, from this catalogue, if there is room; never waits."""
        if self._sink is None:
            return
        scored = [(message, made) for message, made in zip(messages, answers, strict=True) if made.scores]
        if not scored:
            return
        try:
            self._queue.put_nowait(_Batch([m for m, _ in scored], [a for _, a in scored], self._clock_ms(), catalogue))
        except queue.Full:
            self._told.unrecorded(len(scored))

    def __enter__(self) -> "Snapshots":
        if self._sink is not None:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._sink is not None:
            self._queue.put(None)
            self._thread.join()

    def _run(self) -> None:
        while True:
            try:
                batch = self._queue.get(timeout=self._part_s if self._part else None)
            except queue.Empty:
                self._write()
                continue
            if batch is None:
                break
            self._take(batch)
            if sum(frame.height for frame in self._part) >= self._part_rows or self._old():
                self._write()
        self._write()

    def _old(self) -> bool:
        return bool(self._part) and time.monotonic() - self._began_s >= self._part_s

    def _take(self, batch: _Batch) -> None:
        try:
            answers = {False: [batch.answers], True: self._shadowed(batch)}
            frame = self._rows.of(batch.messages, answers, batch.at_ms, batch.catalogue)
        except RocketError as error:
            self._drop(len(batch.messages), error)
            return
        if not self._part:
            self._began_s = time.monotonic()
        self._part.append(frame)
        self._requests += len(batch.messages)

    def _shadowed(self, batch: _Batch) -> list[list[AdResponse]]:
        found = []
        for name, refresher in self._shadows.items():
            with refresher.hold() as scorer:
                made = [] if scorer.version is None else scorer.answer(batch.messages, now_ms=batch.at_ms)
            if made:
                found.append([AdResponse(id=r.id, model=name, model_version=r.model_version, schema_id=r.schema_id,
                                         scores=r.scores) for r in made])  # fmt: skip
        return found

    def _write(self) -> None:
        part, requests = [frame for frame in self._part if frame.height], self._requests
        self._part, self._requests = [], 0
        if not part or self._sink is None:
            return
        whole = pl.concat(part)
        try:
            self._sink(whole)
        except RocketError as error:
            self._drop(requests, error)
            return
        self._told.recorded(whole.height, int(whole["shadow"].sum()))

    def _drop(self, requests: int, error: RocketError) -> None:
        self._told.unrecorded(requests)
        _log.warning("snapshots of %d requests are lost: %s", requests, error)
