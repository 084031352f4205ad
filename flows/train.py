"""The example log becomes two trained nets, checkpoints, and published versions of the light one.

example log ─ cut minibatches ─┬─▶ predict, judge, learn ─┬─▶ checkpoints
                               └─▶ gate (rows not yet     └─▶ candidates ─▶ gate ─▶ weight store
                                   learnt)
"""

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from contracts.app import App
from contracts.errors import ContractError
from contracts.stores import ExampleLog, WeightStore
from flows.learn_loop import Loop
from flows.train_start import BLANK, Start, begin, first_row_at, show_the_past
from model.checkpoint_writer import CheckpointWriter, Schedule
from nodes.clock import now_ms
from nodes.cotrain import CoTrainer, Minibatches
from nodes.example_logs import open_examples
from nodes.publish import Publisher

OnProgress = Callable[[int, int, Mapping[str, Any]], None]


def run(
    app: App,
    examples: Path | str,
    checkpoints: Path,
    *,
    store: WeightStore | None = None,
    until_ms: int | None = None,
    resume: bool = True,
    start: Start = BLANK,
    on_progress: OnProgress | None = None,
    stop: threading.Event | None = None,
    clock_ms: Callable[[], int] = now_ms,
    clock_s: Callable[[], float] = time.monotonic,
) -> dict[str, Any]:
    """Learn the example log in one pass from where the newest checkpoint stands; checkpoint, and publish.

    Args:
        app: its `train`, `rocket`, `model` and `publish` sections say how.
        examples: the example log: a folder, or kafka://host:port/topic, learnt to its end as it is then.
        checkpoints: one trainer's folder; another trainer at work on it is fenced out.
        store: where light versions go; None publishes nothing.
        until_ms: the first row with that event time or later, and all after it, are held out.
        resume: False trains anew; checkpoints that stand there make way as new ones are written.
        start: what the light net begins with, and whether another booster may begin.
        on_progress: told rows done, rows in all and the progressive figures, about four times a second.
        stop: set it to end after the minibatch at hand, with a checkpoint.
        clock_ms: stands in the manifests of versions.
        clock_s: paces checkpoints and progress; never changes a weight.

    Returns:
        examples (rows learnt in this lineage), pending, held_out, redelivered, steps, skipped_batches and skipped_rows
        (of these steps and examples those that were not finite and moved nothing), stopped, resumed_from, light_from
        (a version), cpu_seconds, wall_seconds, checkpoints, versions, decisions, progressive (model -> figures), curve
        (one row a window of event time), watch (`model.watch`, oldest first).

    Raises:
        SchemaMismatchError: log or checkpoint of another feature table.
        CorruptError: there are checkpoints, and none is whole; or a broken segment.
        ContractError: the log is missing or another one than before, or what is to be held out is learnt already.
        FencedError: another trainer took over.
        StoreError: no checkpoint or version can be written.
    """
    cpu_s, wall_s = time.process_time(), clock_s()
    with closing(open_examples(examples, app)) as log:
        rows = log.rows()
        if not rows:
            raise ContractError(f"{examples}: holds no examples; {_mend(examples)}")
        end = rows if until_ms is None else first_row_at(log, rows, until_ms, app.schema_id)
        if store is not None:
            store.current_version()  # refuses the start where it cannot be reached, before anybody is fenced out
        trainer, resumed_from, epoch = begin(
            app, log, rows, checkpoints, resume=resume, until_ms=until_ms, called=str(examples), start=start
        )
        publisher = None if store is None else Publisher(app, store, clock_ms)
        if publisher is not None:
            show_the_past(publisher, log, trainer.position, app.schema_id)
        minibatches = trainer.minibatches(until_ms)
        settings = app.config.train.checkpoint
        with CheckpointWriter(checkpoints, keep=settings.keep, parent=resumed_from) as writer:
            candidates = _OnSchedule(app, trainer, publisher, end)
            schedule = Schedule(settings, clock_s)
            loop = Loop(app, trainer, minibatches, publisher, candidates, writer, schedule, epoch, clock_s)
            if publisher is not None and trainer.examples and candidates.last_at() <= trainer.position:
                loop.offer()  # the run before may have ended between its last candidate and the word on it
            stop = stop or threading.Event()
            stopped = _learn_all(app, log, trainer, minibatches, loop, end, on_progress, stop, clock_s)
            loop.checkpoint()
    if publisher is not None and not stopped:
        publisher.finish()
    decisions = [] if publisher is None else publisher.decisions
    return {
        "examples": trainer.examples,
        "position": trainer.position,
        "pending": minibatches.pending,
        "held_out": rows - minibatches.next_row if minibatches.ended else 0,
        "redelivered": trainer.redelivered + minibatches.refused(),
        "steps": trainer.step,
        **trainer.skipped(),
        "stopped": stopped,
        "resumed_from": resumed_from,
        "light_from": trainer.light_from,
        "cpu_seconds": time.process_time() - cpu_s,
        "wall_seconds": clock_s() - wall_s,
        "checkpoints": writer.written,
        "versions": sum(decision.outcome == "published" for decision in decisions),
        "decisions": [asdict(decision) for decision in decisions],
        "progressive": trainer.progressive.figures(),
        "curve": trainer.progressive.curve(),
        "watch": trainer.trainer.watch.history,
    }


def _mend(examples: Path | str) -> str:
    if isinstance(examples, Path):
        return f"`rocket ingest --out {examples.parent}` writes them"
    return "`rocket ingest --live` writes them, and `rocket train --live` waits for them"


def _learn_all(
    app: App,
    log: ExampleLog,
    trainer: CoTrainer,
    minibatches: Minibatches,
    loop: Loop,
    end: int,
    on_progress: OnProgress | None,
    stop: threading.Event,
    clock_s: Callable[[], float],
) -> bool:
    """Learn until the log, or what is not held out of it, ends; True when `stop` came first."""
    told_s = clock_s()
    for segment in log.read(trainer.position, app.schema_id):
        minibatches.push(segment)
        for minibatch in minibatches.cut():
            loop.learn(minibatch)
            if on_progress is not None and clock_s() - told_s >= 0.25:
                told_s = clock_s()
                on_progress(trainer.position, end, trainer.progressive.figures())
            if stop.is_set():
                return True
        if minibatches.ended or stop.is_set():
            break
    if on_progress is not None:
        on_progress(minibatches.next_row, end, trainer.progressive.figures())
    return stop.is_set()


class _OnSchedule:
    """Candidates on a log whose end is known: every so many rows, and one for the last whole window of the gate."""

    def __init__(self, app: App, trainer: CoTrainer, publisher: Publisher | None, end: int) -> None:
        self._app, self._trainer, self._publisher, self._end = app, trainer, publisher, end

    def due(self, learnt_before: int) -> bool:
        """Every so many rows learnt, and at the last minibatch that leaves the gate a whole window.

        None comes while another is judged, nor after the last one: it would push that one out, unjudged.
        """
        every, batch_rows = self._app.config.publish.every_rows, self._app.config.train.batch_rows
        left = self.last_at() - self._trainer.position
        if left < batch_rows:
            return left >= 0
        judging = self._publisher is not None and self._publisher.judging
        return learnt_before // every < self._trainer.examples // every and not judging

    def last_at(self) -> int:
        """The row of the log where the last candidate is due: one gate window before the last whole minibatch's end."""
        batch_rows = self._app.config.train.batch_rows
        left = (self._end - self._trainer.position) % batch_rows
        return max(self._end - left - self._app.config.publish.gate.window_rows, batch_rows)
