"""What bounded and live training share: minibatches learnt, checkpoints and candidates where they are due."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from contracts.app import App
from model.checkpoint_writer import CheckpointWriter, Schedule
from model.export import light_views, take_touched
from nodes.cotrain import CoTrainer, Minibatch, Minibatches
from nodes.publish import Publisher


class Candidates(Protocol):
    """When the light net is offered to the gate."""

    def due(self, learnt_before: int) -> bool:
        """Whether a candidate is due, `learnt_before` rows having been learnt before the last minibatch."""
        ...


class Loop:
    """Learns minibatches, and takes checkpoints and candidates where they are due.

    Args:
        app: names and settings that stand in checkpoints.
        trainer: learns.
        minibatches: the cutter that feeds it.
        publisher: None publishes nothing.
        candidates: says when one is due.
        writer: writes checkpoints.
        schedule: says when one is due.
        epoch: the fence epoch that this trainer holds on its checkpoints.
        clock_s: measures where the time goes; never changes a weight.
    """

    def __init__(
        self,
        app: App,
        trainer: CoTrainer,
        minibatches: Minibatches,
        publisher: Publisher | None,
        candidates: Candidates,
        writer: CheckpointWriter,
        schedule: Schedule,
        epoch: int,
        clock_s: Callable[[], float],
    ) -> None:
        self._app, self._trainer, self._minibatches = app, trainer, minibatches
        self._publisher, self._candidates = publisher, candidates
        self._writer, self._schedule, self._epoch, self._clock_s = writer, schedule, epoch, clock_s
        self._saved_step = trainer.step if writer.parent else None
        #: spent on learning, on the gate and the weight store, and on copying for checkpoints
        self.seconds = {"learn": 0.0, "publish": 0.0, "checkpoint": 0.0}
        schedule.taken(trainer.step, trainer.event_time_ms if trainer.step else None)

    def learn(self, minibatch: Minibatch) -> None:
        """Let the gate see a minibatch, learn it, and take what is due.

        Raises:
            FencedError: another trainer or publisher took over.
            StoreError: a checkpoint of the right of way cannot be written.
        """
        trainer, before = self._trainer, self._trainer.examples
        if self._publisher is not None:
            with self._spending("publish"):
                self._publisher.observe(minibatch.frame)
        with self._spending("learn"):
            trainer.learn(minibatch)
        if self._publisher is not None and self._candidates.due(before):
            self.offer()
        self.checkpoint_if_due()

    def offer(self) -> None:
        """Offer the light net as it stands to the gate."""
        assert self._publisher is not None  # noqa: S101
        with self._spending("publish"):
            self._publisher.offer(
                light_views(self._trainer.trainer),
                touched=take_touched(self._trainer.trainer),
                position=self._trainer.position,
                step=self._trainer.step,
                trained_until_ms=self._trainer.event_time_ms,
            )

    def checkpoint_if_due(self) -> None:
        """Take a checkpoint when one of the three schedules says so and none is being written.

        Raises:
            FencedError: an earlier write found that another trainer has taken over.
        """
        self._writer.raise_if_fenced()
        if self._schedule.due(self._trainer.step, self._trainer.event_time_ms) and not self._writer.busy:
            self.checkpoint()

    def checkpoint(self) -> None:
        """Take one where the trainer stands, unless the newest is that one."""
        trainer = self._trainer
        if self._saved_step == trainer.step:
            return
        with self._spending("checkpoint"):
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

    @contextmanager
    def _spending(self, on: str) -> Iterator[None]:
        start_s = self._clock_s()
        yield
        self.seconds[on] += self._clock_s() - start_s
