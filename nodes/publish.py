"""Light weights become versions: packed as they will be served, judged on rows not yet learnt, published or held."""

import logging
from collections import Counter
from collections.abc import Callable

import numpy as np
import polars as pl

from contracts.app import App
from contracts.errors import CorruptError, NotWholeError, SchemaMismatchError, StoreError
from contracts.stores import WeightStore
from contracts.weights import TouchedRows, WeightManifest, Weights
from nodes.clock import now_ms
from nodes.gate import Decision, Examiner, Fault
from nodes.held import RollbackHold, record_of
from nodes.live_terms import LiveTerms
from nodes.pack import Figures, Snapshot, pack
from nodes.pack_deltas import Packer

__all__ = ["LiveTerms", "Publisher", "Snapshot", "pack"]

log = logging.getLogger(__name__)
_DECISIONS_KEPT = 10_000


class Publisher:
    """The sink of a trainer's snapshots: gate, then store.

    Args:
        app: its `publish` section says when and how.
        store: where versions go.
        clock_ms: stands in the manifests.
        epoch: fence epoch; a new one is taken by default, which shuts out every earlier publisher.
        force: publish whatever the gate says (NaN is refused all the same).
        why: stands in the stream of releases beside the gate's word.
        by_hand: an operator asks for this version: a rollback before it does not hold it.
        live: the terms of live training; the store may then be away at the start too.

    A store that cannot be reached holds a version and does not stop the trainer; `finish` tries the newest one again.

    Raises:
        StoreError: the store cannot be reached at the start, and `live` is None.
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
        by_hand: bool = False,
        live: LiveTerms | None = None,
    ) -> None:
        self._app, self._store, self._clock_ms = app, store, clock_ms
        self._terms, self._epoch = live, epoch
        self._after_version = 0 if live is None else live.after_version
        self.decisions: list[Decision] = []  #: of the newest candidates offered, in order
        self.published = 0  #: versions
        self.held_by: Counter[str] = Counter()  #: kind of reason -> candidates not published
        self.live_position: int | None = None  #: rows that the live version had learnt, when it was last looked at
        self._force, self._why = force, why
        self._examiner, self._packer = Examiner(app), Packer(app)
        self._offered: Snapshot | None = None
        self._offered_ms = 0
        self._live: Weights | None = None  # what the next candidate may be a delta of
        self._live_version: int | None = None
        self._rollback = RollbackHold(store, 0.0 if by_hand else app.config.publish.rollback_hold_s)
        self._unsent: tuple[Snapshot, Figures] | None = None
        try:
            self._owned_epoch()
        except StoreError as error:
            if live is None:
                raise
            log.warning("%s; training goes on, and versions go out once it can be reached", error)
        self._refresh_live()

    @property
    def judging(self) -> bool:
        """A candidate waits for its window to fill."""
        return self._offered is not None

    @property
    def held(self) -> int:
        """Candidates that were not published."""
        return self.held_by.total()

    def offer(
        self,
        arrays: dict[str, np.ndarray],
        *,
        position: int,
        step: int,
        trained_until_ms: int,
        touched: TouchedRows | None = None,
        evicted: np.ndarray | None = None,
    ) -> None:
        """A candidate: it is judged on the rows that `observe` sees from now on.

        Args:
            arrays: float32, named as in `contracts.weights`; read only until this returns.
            position: rows of the example log learnt.
            step: minibatches learnt.
            trained_until_ms: event time of the last row learnt.
            touched: rows that moved since the candidate before, so that a delta costs no look at the others.
            evicted: rows that were given up; they are served as zeros.

        Raises:
            CorruptError: the arrays do not fit the app's features.
        """
        if self._offered is not None:
            overtaken = Fault("superseded", "a newer candidate came before its window was full")
            self._hold(self._offered.position, self._offered.step, overtaken)
        self._offered, self._offered_ms = None, self._clock_ms()
        self._examiner.end()
        self._refresh_live()
        made = self._packer.pack(
            arrays, self._live, position=position, step=step, trained_until_ms=trained_until_ms, touched=touched,
            evicted=evicted,
        )  # fmt: skip
        if isinstance(made, str):
            self._hold(position, step, Fault("norms", made))
            return
        outgrown = self._examiner.begin(made.arrays)
        if outgrown is not None and not self._force:
            self._examiner.end()
            self._hold(position, step, outgrown)
            return
        self._offered = made

    def observe(self, frame: pl.DataFrame) -> Decision | None:
        """Rows about to be learnt: candidate and live version are scored on them; a full window decides.

        Args:
            frame: columns of `contracts.segments.example_schema`.

        Returns:
            The decision, at the call that fills the window; else None.

        Raises:
            FencedError: a publisher with a newer epoch has taken over; stop training.
        """
        return self._decide() if self._examiner.observe(frame) else None

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
        snapshot, self._offered = self._offered, None
        assert snapshot is not None  # noqa: S101
        wrong = self._rollback.fault(self._clock_ms()) or self._examiner.verdict()
        figures = self._examiner.figures() | {
            "live_version": None if self._live_version is None else float(self._live_version),
            "offered_ms": float(self._offered_ms),
        }
        self._examiner.end()
        if wrong is not None and not self._force:
            return self._hold(snapshot.position, snapshot.step, wrong, figures)
        figures["reason"] = "; ".join(
            part
            for part in (self._why, "passed the gate" if wrong is None else f"forced, although {wrong.reason}")
            if part
        )
        if wrong is not None:
            figures["forced"] = wrong.kind
            log.warning("row %d is published by force, although %s", snapshot.position, wrong.reason)
        try:
            return self._send(snapshot, figures)
        except StoreError as error:
            self._unsent = (snapshot, figures)
            self._packer.let_go()
            return self._hold(snapshot.position, snapshot.step, Fault("store", str(error)), figures)

    def _send(self, snapshot: Snapshot, figures: Figures) -> Decision:
        if self._terms is not None:
            self._terms.still_ours()
        epoch, created_ms = self._owned_epoch(), self._clock_ms()
        figures["gate_wait_s"] = (created_ms - float(figures["offered_ms"] or 0)) / 1000
        if self._terms is not None:
            old_ms = created_ms - snapshot.trained_until_ms
            figures["freshness_s"] = old_ms / 1000
            figures["freshness_after_wait_s"] = (old_ms - self._terms.settle_ms) / 1000
        try:
            made = self._stored(snapshot, epoch, created_ms, figures)
        except (NotWholeError, CorruptError) as error:
            if snapshot.base is None and snapshot.again is None:
                raise
            log.warning("%s; a full version goes out", error)
            made = self._stored(snapshot.whole(self._app), epoch, created_ms, figures)
        self._unsent, self._after_version = None, max(self._after_version, made.version)
        live = self._store.current_version()
        if live != made.version:  # publishing the same again is a no-op, and never undoes a rollback
            self._refresh_live()
            again = (
                Fault(
                    "rolled_back",
                    f"it is version {made.version} again, but version {live} was made live since; `rocket rollback` "
                    "to it",
                )
                if live is not None
                else Fault(
                    "emptied", f"it was version {made.version} when the store was emptied; the next one goes out anew"
                )
            )
            return self._hold(snapshot.position, snapshot.step, again, figures)
        self._live_version, self.live_position = made.version, made.position
        self._live = Weights(made, snapshot.arrays)
        self._examiner.live_is(snapshot.arrays, made.link)
        self._packer.published(snapshot, made)
        self.published += 1
        if self._terms is not None:
            self._terms.on_published(made)
        return self._decided(
            Decision(
                "published",
                str(figures["reason"]),
                snapshot.position,
                snapshot.step,
                made.version,
                figures,
                at_ms=created_ms,
            )
        )

    def _stored(self, snapshot: Snapshot, epoch: int, created_ms: int, figures: Figures) -> WeightManifest:
        manifest = snapshot.manifest(
            self._app, self._app.name, epoch, created_ms, figures, after_version=self._after_version
        )
        return self._store.publish(manifest, snapshot.chunks)

    def _owned_epoch(self) -> int:
        """The fence epoch under which this one publishes, taken once."""
        if self._epoch is None:
            self._epoch = self._store.take_epoch(0 if self._terms is None else self._terms.after_epoch)
        return self._epoch

    def _hold(self, position: int, step: int, fault: Fault, figures: Figures | None = None) -> Decision:
        self.held_by[fault.kind] += 1
        made = Decision(
            "held", fault.reason, position, step, None, figures or {}, kind=fault.kind, at_ms=self._clock_ms()
        )
        if fault.kind != "store":  # which is away
            try:
                self._store.record_held(record_of(made))
            except StoreError as error:
                log.warning("%s; that row %d was held (%s) is not on its record", error, position, fault.reason)
        return self._decided(made)

    def _decided(self, decision: Decision) -> Decision:
        self.decisions.append(decision)
        del self.decisions[:-_DECISIONS_KEPT]
        return decision

    def _refresh_live(self) -> None:
        """The version that the pointer names now: it may have been rolled back, or be another publisher's."""
        try:
            version = self._store.current_version()
            if version is None:
                self._live = self._live_version = self.live_position = None
                self._examiner.live_is(None)
                return
            if version == self._live_version:
                return
            weights: Weights = self._store.fetch(version)
            usable = weights.manifest.schema_id == self._app.schema_id
            self._live = weights if usable else None
            self._examiner.live_is(weights.arrays if usable else None, weights.manifest.link)
            if "forced" in weights.manifest.gate:
                self._examiner.believe_anew()
            self.live_position = weights.manifest.position if usable else None
            self._live_version = version
        except (CorruptError, SchemaMismatchError):
            self._live = None  # nothing is built upon what cannot be read
        except StoreError:
            return  # what was live when the store was last seen is the best yardstick left
