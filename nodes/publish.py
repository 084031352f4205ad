"""Light weights become versions: packed as they will be served, judged on rows not yet learnt, published or held."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl

from contracts.app import App
from contracts.errors import CorruptError, SchemaMismatchError, StoreError
from contracts.stores import WeightStore
from contracts.weights import Blob, WeightManifest, Weights, pack_array, unpack_array
from nodes.clock import now_ms
from nodes.gate import Decision, Window, judge, unfit
from nodes.light_numpy import LightNet, one_thread, sigmoid

_DTYPES = {"fp16": "float16", "fp32": "float32"}
Figures = dict[str, float | str | None]


@dataclass(frozen=True)
class Snapshot:
    """A light net as it would travel: its bytes, and what a scorer makes of them."""

    blobs: tuple[Blob, ...]
    chunks: list[bytes]
    arrays: dict[str, np.ndarray]  #: dequantised to float32
    position: int
    step: int
    trained_until_ms: int

    def manifest(self, app: App, model: str, epoch: int, created_ms: int, figures: Figures) -> WeightManifest:
        """Its manifest; the store gives the version number."""
        return WeightManifest(
            model=model,
            version=0,
            schema_id=app.schema_id,
            app=app.name,
            trained_until_ms=self.trained_until_ms,
            position=self.position,
            step=self.step,
            epoch=epoch,
            created_ms=created_ms,
            gate=figures,
            blobs=self.blobs,
        )


def pack(app: App, arrays: dict[str, np.ndarray], *, position: int, step: int, trained_until_ms: int) -> Snapshot | str:
    """Quantise and cut the arrays as the app's `publish` section says; the reason where they must not be published.

    Args:
        app: says dtype and chunk size.
        arrays: float32, named as in `contracts.weights`.
        position: rows of the example log learnt.
        step: minibatches learnt.
        trained_until_ms: event time of the last row learnt.

    Raises:
        CorruptError: the arrays do not fit the app's features.
    """
    wrong = unfit(arrays)
    if wrong is not None:
        return wrong
    blobs, chunks, served = [], [], {}
    dtype = _DTYPES[app.config.publish.dtype]
    for name in sorted(arrays):
        blob, cut = pack_array(name, arrays[name], dtype, app.config.publish.chunk_bytes)
        served[name] = unpack_array(blob, cut)
        blobs.append(blob)
        chunks += cut
    LightNet(app.layout, served)  # the scorer will ask the same of it
    return Snapshot(tuple(blobs), chunks, served, position, step, trained_until_ms)


class Publisher:
    """The sink of a trainer's snapshots: gate, then store.

    Args:
        app: its `publish` section says when and how.
        store: where versions go.
        clock_ms: stands in the manifests.
        epoch: fence epoch; a new one is taken by default, which shuts out every earlier publisher.
        force: publish whatever the gate says (NaN is refused all the same).
        why: stands in the stream of releases beside the gate's word.

    A store that cannot be reached holds a version and does not stop the trainer; `finish` tries the newest one again.

    Raises:
        StoreError: the store cannot be reached at the start.
    """

    def __init__(
        self,
        app: App,
        store: WeightStore,
        clock_ms: Callable[[], int] = now_ms,
        *,
        epoch: int | None = None,
        force: bool = False,
        why: str = "",
    ) -> None:
        self._app, self._store, self._clock_ms = app, store, clock_ms
        self._epoch = store.take_epoch() if epoch is None else epoch
        self._force, self._why = force, why
        self._settings = app.config.publish.gate
        self._offered: Snapshot | None = None
        self._candidate, self._live = Window(), Window()
        self._candidate_net: LightNet | None = None
        self._live_net: LightNet | None = None
        self._live_version: int | None = None
        self._unsent: tuple[Snapshot, Figures] | None = None
        self.decisions: list[Decision] = []  #: of every candidate offered, in order

    @property
    def judging(self) -> bool:
        """A candidate waits for its window to fill."""
        return self._offered is not None

    @property
    def held(self) -> int:
        """Candidates that were not published."""
        return sum(decision.outcome == "held" for decision in self.decisions)

    def offer(self, arrays: dict[str, np.ndarray], *, position: int, step: int, trained_until_ms: int) -> None:
        """A candidate: it is judged on the rows that `observe` sees from now on.

        Args:
            arrays: float32, named as in `contracts.weights`; copied.
            position: rows of the example log learnt.
            step: minibatches learnt.
            trained_until_ms: event time of the last row learnt.

        Raises:
            CorruptError: the arrays do not fit the app's features.
        """
        if self._offered is not None:
            self._hold(self._offered.position, self._offered.step, "a newer candidate came before its window was full")
        made = pack(self._app, arrays, position=position, step=step, trained_until_ms=trained_until_ms)
        if isinstance(made, str):
            self._offered = None
            self._hold(position, step, made)
            return
        self._offered, self._candidate_net = made, LightNet(self._app.layout, made.arrays)
        self._candidate, self._live = Window(), Window()
        self._refresh_live()

    def observe(self, frame: pl.DataFrame) -> Decision | None:
        """Rows about to be learnt: candidate and live version are scored on them; a full window decides.

        Args:
            frame: columns of `contracts.segments.example_schema`.

        Returns:
            The decision, at the call that fills the window; else None.

        Raises:
            FencedError: a publisher with a newer epoch has taken over; stop training.
        """
        if self._offered is None or self._candidate_net is None:
            return None
        rows = frame.head(self._settings.window_rows - self._candidate.rows)
        label = rows["label"].to_numpy()
        weight = _weight(rows, self._app)
        with one_thread():
            self._candidate.add(label, sigmoid(self._candidate_net.logits(rows)), weight)
            if self._live_net is not None:
                live = sigmoid(self._live_net.logits(rows))
            else:
                live = np.full(label.size, self._app.config.serving.prior_ctr)
        self._live.add(label, live, weight)
        return self._decide() if self._candidate.rows >= self._settings.window_rows else None

    def finish(self) -> Decision | None:
        """The log has ended: judge a waiting candidate on what it saw, and send again what the store refused.

        Raises:
            StoreError: the store still refuses. FencedError: as `observe`.
        """
        made = self._decide() if self._offered is not None else None
        if self._unsent is not None:
            snapshot, figures = self._unsent
            self._unsent = None
            made = self._send(snapshot, figures)
        return made

    def _decide(self) -> Decision:
        snapshot, self._offered, self._candidate_net = self._offered, None, None
        assert snapshot is not None  # noqa: S101
        figures = self._figures()
        wrong = judge(self._candidate, self._live, self._settings, live_is_version=self._live_net is not None)
        if wrong is not None and not self._force:
            return self._hold(snapshot.position, snapshot.step, wrong, figures)
        figures["reason"] = "; ".join(
            part for part in (self._why, "passed the gate" if wrong is None else f"forced, although {wrong}") if part
        )
        try:
            return self._send(snapshot, figures)
        except StoreError as error:
            self._unsent = (snapshot, figures)
            return self._hold(snapshot.position, snapshot.step, str(error), figures)

    def _send(self, snapshot: Snapshot, figures: Figures) -> Decision:
        manifest = snapshot.manifest(self._app, self._app.name, self._epoch, self._clock_ms(), figures)
        made = self._store.publish(manifest, snapshot.chunks)
        self._unsent = None
        live = self._store.current_version()
        if live != made.version:  # publishing the same again is a no-op, and never undoes a rollback
            self._refresh_live()
            again = (
                f"it is version {made.version} again, but version {live} was made live since; `rocket rollback` to it"
            )
            return self._hold(snapshot.position, snapshot.step, again, figures)
        self._live_version = made.version
        self._live_net = LightNet(self._app.layout, snapshot.arrays)
        decision = Decision(
            "published", str(figures["reason"]), snapshot.position, snapshot.step, made.version, figures
        )
        self.decisions.append(decision)
        return decision

    def _hold(self, position: int, step: int, reason: str, figures: Figures | None = None) -> Decision:
        decision = Decision("held", reason, position, step, None, figures or {})
        self.decisions.append(decision)
        return decision

    def _figures(self) -> Figures:
        found: Figures = {
            "window_rows": float(self._candidate.rows),
            "logloss": self._candidate.logloss if self._candidate.rows else None,
            "calibration": self._candidate.calibration,
            "max_abs_logit": self._candidate.max_abs_logit,
            "label_rate": self._candidate.clicks / self._candidate.weight if self._candidate.weight else None,
            "live_version": None if self._live_version is None else float(self._live_version),
            "ne": self._candidate.ne if self._candidate.rows else None,
            "live_ne": self._live.ne if self._live.rows else None,
            "live_logloss": self._live.logloss if self._live.rows else None,
            "live_calibration": self._live.calibration,
        }
        for name, value in found.items():  # JSON has no NaN
            found[name] = value if value is None or np.isfinite(float(value)) else None
        return found

    def _refresh_live(self) -> None:
        """The version that the pointer names now: it may have been rolled back, or be another publisher's."""
        try:
            version = self._store.current_version()
            if version is None or version == self._live_version:
                self._live_net = self._live_net if version is not None else None
                self._live_version = version
                return
            weights: Weights = self._store.fetch(version)
            usable = weights.manifest.schema_id == self._app.schema_id
            self._live_net = LightNet(self._app.layout, weights.arrays) if usable else None
            self._live_version = version
        except (StoreError, CorruptError, SchemaMismatchError):
            return  # what was live when the store was last seen is the best yardstick left


def _weight(rows: pl.DataFrame, app: App) -> np.ndarray:
    """What each row counts for, so that the window looks like unsampled traffic."""
    sampling = app.config.sampling
    weight = pl.col("weight") / pl.col("kept_rate") if sampling.correction == "logit" else pl.col("weight")
    return rows.select(weight.cast(pl.Float64)).to_series().to_numpy()
