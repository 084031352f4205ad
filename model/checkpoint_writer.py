"""Checkpoints are written by a thread of their own, from copies, so that training does not stall."""

import logging
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import polars as pl
import torch

from contracts.errors import StoreError
from contracts.training import Checkpoint
from model.checkpoint import save_checkpoint

log = logging.getLogger(__name__)


class Schedule:
    """When the next checkpoint is due: minibatches, seconds or event time since the last one, whichever comes first.

    >>> schedule = Schedule(Checkpoint(every_batches=10, every_s=None), lambda: 0.0)
    >>> schedule.taken(5, 0)
    >>> schedule.due(14, 0), schedule.due(15, 0)
    (False, True)
    """

    def __init__(self, settings: Checkpoint, clock_s: Callable[[], float]) -> None:
        self._settings, self._clock_s = settings, clock_s
        self._step, self._at_s = 0, clock_s()
        self._event_time_ms: int | None = None

    def due(self, step: int, event_time_ms: int) -> bool:
        """Whether one is due after that step, at that event time."""
        if self._event_time_ms is None:  # event time begins with the first row learnt
            self._event_time_ms = event_time_ms
        batches, seconds, minutes = self._settings.every_batches, self._settings.every_s, self._settings.every_event_min
        return (
            (batches is not None and step - self._step >= batches)
            or (seconds is not None and self._clock_s() - self._at_s >= seconds)
            or (minutes is not None and event_time_ms - self._event_time_ms >= minutes * 60_000)
        )

    def taken(self, step: int, event_time_ms: int | None) -> None:
        """One was taken there."""
        self._step, self._at_s, self._event_time_ms = step, self._clock_s(), event_time_ms


class CheckpointWriter:
    """Writes one checkpoint at a time in the background, and names each one's parent.

    A write that fails for want of room is warned of and tried again with the next checkpoint; only the last one must
    succeed. A fence (another trainer took over) stops training at once.

    Args:
        folder: holds the checkpoints.
        keep: so many of the newest stay.
        parent: name of the checkpoint that training resumed from.
    """

    def __init__(self, folder: Path, *, keep: int, parent: str | None = None) -> None:
        self._folder, self._keep = folder, keep
        self.parent = parent  #: name of the newest one that stands
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None
        self.written = 0  #: checkpoints that stand, or stood

    @property
    def busy(self) -> bool:
        """One is being written now."""
        return self._thread is not None and self._thread.is_alive()

    def submit(
        self,
        tensors: Mapping[str, torch.Tensor],
        meta: Mapping[str, Any],
        tables: Mapping[str, pl.DataFrame],
    ) -> None:
        """Write a checkpoint of copies that nobody else changes; waits for the one before.

        Args:
            tensors: by name.
            meta: as `save_checkpoint` wants it, without `parent`.
            tables: by name.

        Raises:
            FencedError: an earlier write found that another trainer has taken over.
        """
        self._join(last=False)
        whole = {**meta, "parent": self.parent}

        def write() -> None:
            try:
                self.parent = save_checkpoint(self._folder, tensors, whole, tables, keep=self._keep).name
                self.written += 1
            except Exception as error:  # raised in the training thread by _join
                self._error = error

        self._thread = threading.Thread(target=write, name="checkpoint")
        self._thread.start()

    def raise_if_fenced(self) -> None:
        """Stop training as soon as a finished write has found another trainer.

        Raises:
            FencedError: naming both epochs.
        """
        if not self.busy:
            self._join(last=False)

    def close(self) -> None:
        """Wait for the last write.

        Raises:
            StoreError: it failed. FencedError: as `submit`.
        """
        self._join(last=True)

    def _join(self, *, last: bool) -> None:
        if self._thread is not None:
            self._thread.join()
        self._thread, error, self._error = None, self._error, None
        if error is None:
            return
        if last or not isinstance(error, StoreError):
            raise error
        log.warning("%s; training goes on and tries again", error)

    def __enter__(self) -> "CheckpointWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        elif self._thread is not None:  # another failure is under way: let the write end, and report that one
            self._thread.join()
