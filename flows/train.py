"""The example log becomes two trained nets, checkpoints, and published versions of the light one.

example log ─ cut minibatches ─┬─▶ predict, judge, learn ─┬─▶ checkpoints
                               └─▶ gate (rows not yet     └─▶ candidates ─▶ gate ─▶ weight store
                                   learnt)
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from contracts.app import App
from contracts.errors import ContractError
from contracts.stores import WeightStore
from flows.train_start import begin, first_row_at
from model.checkpoint_writer import CheckpointWriter, Schedule
from model.export import light_arrays
from nodes.clock import now_ms
from nodes.cotrain import CoTrainer, Minibatch, Minibatches
from nodes.example_log import ExampleDirectory
from nodes.publish import Publisher

OnProgress = Callable[[int, int, Mapping[str, Any]], None]


def run(
    app: App,
    examples: Path,
    checkpoints: Path,
    *,
    store: WeightStore | None = None,
    until_ms: int | None = None,
    resume: bool = True,
    on_progress: OnProgress | None = None,
    stop: threading.Event | None = None,
    clock_ms: Callable[[], int] = now_ms,
    clock_s: Callable[[], float] = time.monotonic,
) -> dict[str, Any]:
    """Learn the example log in one pass from where the newest checkpoint stands; checkpoint, and publish.

    Args:
        app: its `train`, `rocket`, `model` and `publish` sections say how.
        examples: the example log's folder.
        checkpoints: one trainer's folder; another trainer at work on it is fenced out.
        store: where light versions go; None publishes nothing.
        until_ms: the first row with that event time or later, and all after it, are held out.
        resume: False trains anew; checkpoints that stand there make way as new ones are written.
        on_progress: told rows done, rows in all and the progressive figures, about four times a second.
        stop: set it to end after the minibatch at hand, with a checkpoint.
        clock_ms: stands in the manifests of versions.
        clock_s: paces checkpoints and progress; never changes a weight.

    Returns:
        examples (rows learnt in this lineage), pending, held_out, redelivered, steps, stopped, resumed_from,
        cpu_seconds, wall_seconds, checkpoints, versions, decisions, progressive (model -> figures), curve (one row a
        window of event time).

    Raises:
        SchemaMismatchError: log or checkpoint of another feature table.
        CorruptError: there are checkpoints, and none is whole; or a broken segment.
        ContractError: the log is missing or another one than before, or what is to be held out is learnt already.
        FencedError: another trainer took over.
        StoreError: no checkpoint or version can be written.
    """
    cpu_s, wall_s = time.process_time(), clock_s()
    log = ExampleDirectory(examples)
    rows = log.rows()
    if not rows:
        raise ContractError(f"{examples}: holds no examples; `rocket ingest --out {examples.parent}` writes them")
    end = rows if until_ms is None else first_row_at(log, rows, until_ms, app.schema_id)
    if store is not None:
        store.current_version()  # one that cannot be reached refuses the start before a trainer at work is fenced out
    trainer, resumed_from, epoch = begin(app, log, rows, checkpoints, resume=resume, until_ms=until_ms)
    publisher = None if store is None else Publisher(app, store, clock_ms)
    minibatches = trainer.minibatches(until_ms)
    settings = app.config.train.checkpoint
    with CheckpointWriter(checkpoints, keep=settings.keep, parent=resumed_from) as writer:
        loop = _Loop(app, trainer, minibatches, publisher, writer, Schedule(settings, clock_s), epoch, end)
        stopped = loop.learn_all(log, on_progress, stop or threading.Event(), clock_s)
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
        "stopped": stopped,
        "resumed_from": resumed_from,
        "cpu_seconds": time.process_time() - cpu_s,
        "wall_seconds": clock_s() - wall_s,
        "checkpoints": writer.written,
        "versions": sum(decision.outcome == "published" for decision in decisions),
        "decisions": [asdict(decision) for decision in decisions],
        "progressive": trainer.progressive.figures(),
        "curve": trainer.progressive.curve(),
    }


class _Loop:
    """Draws segments, learns minibatches, and takes checkpoints and candidates where they are due."""

    def __init__(
        self,
        app: App,
        trainer: CoTrainer,
        minibatches: Minibatches,
        publisher: Publisher | None,
        writer: CheckpointWriter,
        schedule: Schedule,
        epoch: int,
        end: int,
    ) -> None:
        self._app, self._trainer, self._minibatches = app, trainer, minibatches
        self._publisher, self._writer, self._schedule = publisher, writer, schedule
        self._epoch, self._end = epoch, end
        self._saved_step = trainer.step if writer.parent else None
        schedule.taken(trainer.step, trainer.event_time_ms if trainer.step else None)

    def learn_all(
        self, log: ExampleDirectory, on_progress: OnProgress | None, stop: threading.Event, clock_s: Callable[[], float]
    ) -> bool:
        """Learn until the log, or what is not held out of it, ends; True when `stop` came first."""
        told_s = clock_s()
        if (
            self._publisher is not None
            and self._trainer.examples
            and self._last_candidate_at() <= self._trainer.position
        ):
            self._offer()  # the run before may have ended between its last candidate and the word on it
        for segment in log.read(self._trainer.position, self._app.schema_id):
            self._minibatches.push(segment)
            for minibatch in self._minibatches.cut():
                self._learn(minibatch)
                if on_progress is not None and clock_s() - told_s >= 0.25:
                    told_s = clock_s()
                    on_progress(self._trainer.position, self._end, self._trainer.progressive.figures())
                if stop.is_set():
                    return True
            if self._minibatches.ended or stop.is_set():
                break
        if on_progress is not None:
            on_progress(self._minibatches.next_row, self._end, self._trainer.progressive.figures())
        return stop.is_set()

    def _learn(self, minibatch: Minibatch) -> None:
        trainer, before = self._trainer, self._trainer.examples
        if self._publisher is not None:
            self._publisher.observe(minibatch.frame)
        trainer.learn(minibatch)
        if self._publisher is not None and self._candidate_due(before):
            self._offer()
        self._writer.raise_if_fenced()
        if self._schedule.due(trainer.step, trainer.event_time_ms) and not self._writer.busy:
            self.checkpoint()

    def _candidate_due(self, before: int) -> bool:
        """Every so many rows learnt, and at the last minibatch that leaves the gate a whole window.

        None comes while another is judged, nor after the last one: it would push that one out, unjudged.
        """
        every, batch_rows = self._app.config.publish.every_rows, self._app.config.train.batch_rows
        left = self._last_candidate_at() - self._trainer.position
        if left < batch_rows:
            return left >= 0
        judging = self._publisher is not None and self._publisher.judging
        return before // every < self._trainer.examples // every and not judging

    def _last_candidate_at(self) -> int:
        """The row of the log where the last candidate is due: one gate window before the last whole minibatch's end."""
        batch_rows = self._app.config.train.batch_rows
        left = (self._end - self._trainer.position) % batch_rows
        return max(self._end - left - self._app.config.publish.gate.window_rows, batch_rows)

    def _offer(self) -> None:
        assert self._publisher is not None  # noqa: S101
        self._publisher.offer(
            light_arrays(self._trainer.trainer),
            position=self._trainer.position,
            step=self._trainer.step,
            trained_until_ms=self._trainer.event_time_ms,
        )

    def checkpoint(self) -> None:
        """Take one where the trainer stands, unless the newest is that one."""
        trainer = self._trainer
        if self._saved_step == trainer.step:
            return
        redelivered = trainer.redelivered + self._minibatches.refused(trainer.position)
        self._writer.submit(
            trainer.tensors(),
            {
                "app": self._app.name,
                "schema_id": self._app.schema_id,
                "epoch": self._epoch,
                "step": trainer.step,
                "position": trainer.position,
                "event_time_ms": trainer.event_time_ms,
                "metrics": trainer.progressive.figures(),
                **trainer.meta(redelivered),
            },
            {"trained_ids": trainer.ids.table(trainer.position)},
        )
        self._saved_step = trainer.step
        self._schedule.taken(trainer.step, trainer.event_time_ms)
