"""A growing example log is learnt for as long as it grows: weights, checkpoints and versions without an end.

example log ─ follow ─ cut minibatches ─┬─▶ predict, judge, learn ─┬─▶ checkpoints (batches, seconds, event time)
                                        └─▶ gate (rows not yet     └─▶ candidates (rows, seconds) ─▶ gate ─▶ store
                                            learnt)

The clock decides when a checkpoint is written and when a candidate is offered, nothing else: the weights are a function
of the log alone, and those of a bounded run over the same rows.
"""

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from contracts.app import App
from contracts.errors import StoreError
from contracts.segments import FeatureBatch
from contracts.stores import ExampleLog, WeightStore
from flows.learn_loop import Loop
from flows.train_start import BLANK, Start, begin, show_the_past
from model.checkpoint_writer import CheckpointWriter, Schedule
from model.fence import check_epoch
from nodes.clock import now_ms
from nodes.cotrain import CoTrainer, Minibatches
from nodes.follow_examples import Follower
from nodes.freshness import Freshness, settle_ms
from nodes.publish import LiveTerms, Publisher

log = logging.getLogger(__name__)
OnBeat = Callable[[dict[str, Any]], None]
#: One line a version, beside the checkpoints.
VERSIONS = "versions.ndjson"
_BEAT_S = 1.0
_AGAIN_S = 1.0
#: Rows before the resume position that are looked at again, for when they were due, because no version contains them.
_LOOKED_AT_AGAIN = 1_000_000


def run(
    app: App,
    examples: ExampleLog,
    checkpoints: Path,
    *,
    called: str,
    stop: threading.Event,
    store: WeightStore | None = None,
    resume: bool = True,
    start: Start = BLANK,
    on_beat: OnBeat | None = None,
    clock_ms: Callable[[], int] = now_ms,
    clock_s: Callable[[], float] = time.monotonic,
) -> dict[str, Any]:
    """Follow the example log until `stop`: learn whole minibatches as they complete, checkpoint, publish.

    Args:
        app: its `train`, `rocket`, `model`, `publish` and `live` sections say how.
        examples: the log; it may be empty at the start, and is waited for.
        checkpoints: one trainer's folder; another trainer at work on it is fenced out. `versions.ndjson` grows there.
        called: what errors call the log.
        stop: set it to end after the minibatch at hand, with a checkpoint.
        store: where light versions go; None publishes nothing. It may go away and come back, or lose its data.
        resume: False trains anew; checkpoints that stand there make way as new ones are written.
        start: what the light net begins with, and whether another booster may begin.
        on_beat: told the figures below about once a second.
        clock_ms: stands in the manifests of versions.
        clock_s: paces checkpoints, candidates and beats; never changes a weight.

    Returns:
        examples (rows learnt in this lineage), learnt (by this process), position, pending, redelivered, steps,
        skipped_batches and skipped_rows (of these those that were not finite and moved nothing),
        resumed_from, light_from (a version), lag_rows, checkpoints, versions, held (kind of reason -> candidates),
        newest (the version published last, or None), hint_weight, seconds (spent on learn, publish, checkpoint),
        cpu_seconds, wall_seconds, progressive, watch (`model.watch`, the newest).

    Raises:
        SchemaMismatchError: log or checkpoint of another feature table.
        CorruptError: there are checkpoints, and none is whole; or a broken segment.
        ContractError: the log is another one than before, or shorter than what is learnt.
        FencedError: another trainer took over.
        StoreError: the last checkpoint cannot be written; or, with nothing learnt yet, the weight store is not there.
    """
    cpu_s, wall_s = time.process_time(), clock_s()
    rows = examples.rows()
    if store is not None:
        _reachable(store, checkpoints)
    trainer, resumed_from, epoch = begin(
        app, examples, rows, checkpoints, resume=resume, until_ms=None, called=called, start=start
    )
    began_with = trainer.examples
    fresh = Freshness(app, checkpoints / VERSIONS, anew=resumed_from is None)
    publisher = None if store is None else _publisher(app, store, fresh, checkpoints, epoch, clock_ms)
    if store is not None:
        _catch_up(fresh, examples, store, trainer, app.schema_id)
    if publisher is not None:
        show_the_past(publisher, examples, trainer.position, app.schema_id)
    minibatches = trainer.minibatches()
    candidates = _ByRowsAndClock(app, trainer, publisher, clock_s, resumed=resumed_from is not None)
    settings = app.config.train.checkpoint
    with CheckpointWriter(checkpoints, keep=settings.keep, parent=resumed_from) as writer:
        schedule = Schedule(settings, clock_s)
        loop = Loop(app, trainer, minibatches, publisher, candidates, writer, schedule, epoch, clock_s)
        follower = Follower(examples, trainer.position, app.schema_id)

        def figures() -> dict[str, Any]:
            return {
                "examples": trainer.examples,
                "learnt": trainer.examples - began_with,
                "position": trainer.position,
                "pending": minibatches.pending,
                "redelivered": trainer.redelivered + minibatches.refused(),
                "steps": trainer.step,
                **trainer.skipped(),
                "resumed_from": resumed_from,
                "light_from": trainer.light_from,
                "lag_rows": max(follower.end() - trainer.position, 0),
                "checkpoints": writer.written,
                "versions": 0 if publisher is None else publisher.published,
                "held": {} if publisher is None else dict(publisher.held_by),
                "newest": None if fresh.newest is None else fresh.newest.figures(),
                "hint_weight": trainer.trainer.hint_weight,
                "watch": trainer.trainer.watch.newest,
                "seconds": dict(loop.seconds),
                "cpu_seconds": time.process_time() - cpu_s,
                "wall_seconds": clock_s() - wall_s,
                "progressive": trainer.progressive.figures(),
            }

        if not rows:
            log.warning("%s: no examples yet; waiting for them", called)
        beat = _Beat(clock_s, lambda: check_epoch(checkpoints, epoch), on_beat and (lambda: on_beat(figures())))
        patient, counted = _Patient(follower, clock_s), None if store is None else fresh
        _follow(patient, minibatches, loop, counted, beat, stop, app.config.live.poll_s)
        loop.checkpoint()
    return figures()


def _follow(
    reading: "_Patient",
    minibatches: Minibatches,
    loop: Loop,
    fresh: Freshness | None,
    beat: "_Beat",
    stop: threading.Event,
    poll_s: float,
) -> None:
    """Learn what comes until `stop`; while nothing comes, schedules by the clock still hold."""
    while not stop.is_set():
        segment = reading.take()
        if segment is None:
            loop.checkpoint_if_due()
            beat()
            stop.wait(poll_s)
            continue
        minibatches.push(segment)
        for minibatch in minibatches.cut():
            if fresh is not None:
                fresh.learnt(minibatch.frame)
            loop.learn(minibatch)
            beat()
            if stop.is_set():
                return
        beat()


class _Patient:
    """Reads on; where the log cannot be reached it says so, waits, and tries again: its owner may be coming back."""

    def __init__(self, follower: Follower, clock_s: Callable[[], float]) -> None:
        self._follower, self._clock_s = follower, clock_s
        self._again_s: float | None = None  # while the log is away: when to look again

    def take(self) -> FeatureBatch | None:
        """The next segment, if there is one and it can be read now."""
        if self._again_s is not None and self._clock_s() < self._again_s:
            return None
        try:
            segment = self._follower.take()
        except StoreError as error:
            if self._again_s is None:
                log.warning("%s; training waits for it", error)
            self._again_s = self._clock_s() + _AGAIN_S
            return None
        if self._again_s is not None:
            log.warning("the example log can be read again; training goes on at row %d", self._follower.next_row)
        self._again_s = None
        return segment


class _Beat:
    """Once a second: is this still the trainer of these checkpoints, and the figures for whoever watches."""

    def __init__(
        self, clock_s: Callable[[], float], still_ours: Callable[[], None], tell: Callable[[], None] | None
    ) -> None:
        self._clock_s, self._still_ours, self._tell = clock_s, still_ours, tell
        self._at_s = clock_s()

    def __call__(self) -> None:
        """Raises FencedError once another trainer has claimed the checkpoints."""
        if self._clock_s() - self._at_s < _BEAT_S:
            return
        self._at_s = self._clock_s()
        self._still_ours()
        if self._tell is not None:
            self._tell()


class _ByRowsAndClock:
    """Candidates on a log without an end: every so many rows or seconds, whichever comes first.

    None comes while another is judged. After a restart none comes that has learnt less than what is live: versions
    that went out after the newest checkpoint must not make way for older weights.
    """

    def __init__(
        self,
        app: App,
        trainer: CoTrainer,
        publisher: Publisher | None,
        clock_s: Callable[[], float],
        *,
        resumed: bool,
    ) -> None:
        self._settings, self._trainer, self._publisher, self._clock_s = app.config.publish, trainer, publisher, clock_s
        self._resumed = resumed
        at_once_s = (self._settings.every_s or 0.0) if resumed else 0.0  # after a restart the first one is due
        self._offered_s, self._offered_at = clock_s() - at_once_s, trainer.examples

    def due(self, learnt_before: int) -> bool:
        """Whether a candidate is due now; saying so starts both spans anew."""
        if self._publisher is None or self._publisher.judging:
            return False
        live = self._publisher.live_position
        if self._resumed and live is not None and self._trainer.position <= live:
            return False
        now_s, every_s = self._clock_s(), self._settings.every_s
        by_rows = self._trainer.examples - self._offered_at >= self._settings.every_rows
        by_clock = every_s is not None and now_s - self._offered_s >= every_s
        if by_rows or by_clock:
            self._offered_s, self._offered_at = now_s, self._trainer.examples
        return by_rows or by_clock


def _reachable(store: WeightStore, checkpoints: Path) -> None:
    """Refuse a first start without its store; a trainer that goes on learns, and waits for the store.

    Raises:
        StoreError: the store is not there, and nothing has been learnt yet.
    """
    try:
        store.current_version()
    except StoreError:
        if not any(checkpoints.glob("checkpoint-*")):
            raise


def _publisher(
    app: App, store: WeightStore, fresh: Freshness, checkpoints: Path, epoch: int, clock_ms: Callable[[], int]
) -> Publisher:
    terms = LiveTerms(
        still_ours=lambda: check_epoch(checkpoints, epoch),
        on_published=fresh.published,
        settle_ms=settle_ms(app),
        after_version=fresh.newest.version if fresh.newest else 0,
        after_epoch=fresh.newest.epoch if fresh.newest else 0,
    )
    return Publisher(app, store, clock_ms, live=terms)


def _catch_up(fresh: Freshness, examples: ExampleLog, store: WeightStore, trainer: CoTrainer, schema_id: str) -> None:
    """What was learnt and perhaps published before this process began, so that no example's wait is left out."""
    if not trainer.position:
        return
    try:
        version = store.current_version()
        live = None if version is None else store.fetch(version).manifest
    except StoreError:
        live = None
    told = fresh.newest.version if fresh.newest else 0
    missed = live if live is not None and live.version > told and live.schema_id == schema_id else None
    end = max(trainer.position, 0 if missed is None else missed.position)
    for segment in examples.read(max(fresh.position, end - _LOOKED_AT_AGAIN), schema_id):
        fresh.learnt_before(segment, end)
        if segment.next_row >= end:
            break
    if missed is not None:
        fresh.published(missed)
