"""The example log is learnt: minibatches cut by row count alone, each example once, the position beside the weights.

    segments ─ admit (redelivered rows drop out) ─ cut by row count ─▶ predict, judge, learn ─▶ state for a checkpoint

Nothing here depends on where segments were cut, on the clock, or on when a checkpoint is taken.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch

from contracts.app import App
from contracts.errors import ContractError
from contracts.segments import FeatureBatch
from contracts.weights import Weights
from model.checkpoint import Loaded
from model.lifecycle import start_light
from model.linear import HashedLinear
from model.progressive import Progressive
from model.tensors import Batch, to_batch
from model.trainer import Trainer
from nodes.delayed import judged
from nodes.trained_ids import TrainedIds
from nodes.verify_weights import check_schema

MODELS = ("light", "booster", "linear")


@dataclass(frozen=True, slots=True)
class Minibatch:
    """Exactly `train.batch_rows` admitted rows."""

    frame: pl.DataFrame  #: `example_schema` columns, `_row` and `_newest_ms`
    batch: Batch  #: the same as tensors
    next_row: int  #: of the log: all rows before it are learnt or refused, once this one is learnt


class Minibatches:
    """Segments in, minibatches out; rows that do not fill one stay pending.

    Args:
        app: gives `train.batch_rows`, the rows of every minibatch.
        ids: refuses redelivered rows.
        next_row: of the log, where reading begins.
        until_ms: rows from the first with that event time on are held out.
    """

    def __init__(self, app: App, ids: TrainedIds, *, next_row: int = 0, until_ms: int | None = None) -> None:
        self._app, self._ids, self._until_ms = app, ids, until_ms
        self._batch_rows = app.config.train.batch_rows
        self._pending: pl.DataFrame | None = None
        self._refused: list[int] = []  # rows of the log
        self.next_row = next_row  #: the next row to read
        self.ended = False  #: a row at or after `until_ms` was met

    def push(self, segment: FeatureBatch) -> None:
        """Read a segment, which must begin at `next_row`.

        Raises:
            ContractError: it begins elsewhere.
        """
        if segment.first_row != self.next_row:
            raise ContractError(
                f"example log: row {segment.first_row} came where row {self.next_row} was due; ingest the events again"
            )
        rows = segment.frame.with_columns(
            _row=pl.int_range(segment.first_row, segment.next_row, dtype=pl.Int64),
        )
        if self._until_ms is not None:
            beyond = (rows["event_time_ms"] >= self._until_ms).arg_max()
            if beyond is not None and rows["event_time_ms"][beyond] >= self._until_ms:
                rows, self.ended = rows.head(beyond), True
        self.next_row += rows.height
        if not rows.height:
            return
        admitted = self._ids.admit(rows)
        if admitted.height < rows.height:
            self._refused += sorted(set(rows["_row"].to_list()) - set(admitted["_row"].to_list()))
        self._pending = admitted if self._pending is None else pl.concat([self._pending, admitted]).rechunk()

    def cut(self) -> Iterator[Minibatch]:
        """The whole minibatches among the rows read; stop drawing at any time and go on later."""
        whole = self.pending // self._batch_rows * self._batch_rows
        if self._pending is None or not whole:
            return
        frame = self._pending.head(whole)
        batch = to_batch(frame, self._app)  # once a segment: much cheaper than once a minibatch
        for start in range(0, whole, self._batch_rows):
            mine = frame.slice(start, self._batch_rows)
            self._pending = self._pending.slice(self._batch_rows)
            yield Minibatch(mine, batch.slice(start, start + self._batch_rows), int(mine["_row"][-1]) + 1)

    @property
    def pending(self) -> int:
        """Rows read that do not fill a minibatch yet."""
        return 0 if self._pending is None else self._pending.height

    def refused(self, before_row: int | None = None) -> int:
        """Rows refused as redelivered since the start, those before a row of the log or all."""
        return len(self._refused) if before_row is None else sum(row < before_row for row in self._refused)


class CoTrainer:
    """Both nets and the linear yardstick, judged on each minibatch before they learn it; and where they stand."""

    def __init__(self, app: App) -> None:
        self._app = app
        self.trainer = Trainer(app)
        self.linear = HashedLinear(app) if app.config.train.linear else None
        self.progressive = Progressive(MODELS)
        wait_s, dedupe_s = app.config.labels.wait_s, app.config.labels.dedupe_s
        self.ids = TrainedIds(round(max(wait_s, dedupe_s) * 1000))
        self.position = 0  #: rows of the log that are done with
        self.event_time_ms = 0  #: newest event time among them
        self.examples = 0  #: rows learnt, or skipped since they gave numbers that are not finite
        self.redelivered = 0  #: rows refused before this process began
        self.step = 0  #: minibatches learnt or skipped
        self.light_from: int | None = None  #: the published version that the light net began with

    def begin_with(self, weights: Weights) -> None:
        """Let the light net, new so far, begin as a published version.

        Raises:
            SchemaMismatchError: the version was made for another feature table.
            ContractError: its net, or how its logits are read, is not the app's.
        """
        check_schema(weights.manifest, self._app.schema_id)
        if weights.manifest.link != self._app.config.labels.link:
            raise ContractError(
                f'version {weights.manifest.version}: its logits are read as "{weights.manifest.link}", and the app\'s '
                f'labels.mode = "{self._app.config.labels.mode}" reads them as "{self._app.config.labels.link}"; set '
                "the mode as it was"
            )
        start_light(self.trainer, weights.arrays)
        self.light_from = weights.manifest.version

    def minibatches(self, until_ms: int | None = None) -> Minibatches:
        """A cutter that begins where this trainer stands."""
        return Minibatches(self._app, self.ids, next_row=self.position, until_ms=until_ms)

    def learn(self, minibatch: Minibatch) -> None:
        """Predict, judge, then learn one minibatch."""
        frame = minibatch.frame
        predicted = self.trainer.learn(minibatch.batch)
        told: dict[str, np.ndarray] = {"light": predicted.light}
        if predicted.booster is not None:
            told["booster"] = predicted.booster
        if self.linear is not None:
            told["linear"] = self.linear.predict(frame) if predicted.skipped else self.linear.learn(frame)
        # a kept negative stands for all that were dropped, whichever way the app corrects for it
        weight = 1.0 / frame["kept_rate"].to_numpy().astype(np.float64)
        at, label, sign = judged(frame, self._app.config.labels.mode)
        told = {name: p[at] for name, p in told.items()}
        self.progressive.update(label, frame["event_time_ms"].to_numpy()[at], told, weight[at] * sign)
        self.position, self.event_time_ms = minibatch.next_row, int(frame["_newest_ms"][-1])
        self.ids.learnt(self.event_time_ms)
        self.examples += frame.height
        self.step += 1

    def skipped(self) -> dict[str, int]:
        """What of `step` and `examples` moved nothing, as figures."""
        guard = self.trainer.guard
        return {"skipped_batches": guard.batches, "skipped_rows": guard.rows}

    def tensors(self) -> dict[str, torch.Tensor]:
        """Copies of every tensor that a checkpoint holds: the caller may write them while training goes on."""
        linear = {} if self.linear is None else self.linear.state()
        parts: dict[str, Mapping[str, torch.Tensor]] = {  # copies all, made once: tables may be most of the memory
            "trainer": self.trainer.state(),
            "progressive": {name: torch.from_numpy(array) for name, array in self.progressive.arrays().items()},
            "linear": {name: tensor.clone() for name, tensor in linear.items()},
        }
        return {f"{part}.{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()}

    def meta(self, redelivered: int) -> dict[str, Any]:
        """The JSON-able state beside the tensors.

        Args:
            redelivered: rows before the position that were refused.
        """
        return {
            "trainer": self.trainer.meta(),
            "progressive": self.progressive.meta(),
            "examples": self.examples,
            "redelivered": redelivered,
        }

    def restore(self, saved: Loaded, *, new_booster: bool = False) -> None:
        """Go on from a checkpoint, as if there had been no interruption.

        Args:
            saved: the checkpoint.
            new_booster: the app's booster may be another one than the checkpoint's; then it begins anew.

        Raises:
            ContractError, CorruptError: it was trained with other nets.
        """
        self.trainer.restore(saved.part("trainer"), saved.meta["trainer"], new_booster=new_booster)
        arrays = {name: tensor.numpy() for name, tensor in saved.part("progressive").items()}
        self.progressive.restore(arrays, saved.meta["progressive"])
        if self.linear is not None:
            self.linear.restore(saved.part("linear"))
        self.ids.restore(saved.tables["trained_ids"], saved.manifest.event_time_ms)
        self.position, self.step = saved.manifest.position, saved.manifest.step
        self.event_time_ms = saved.manifest.event_time_ms
        self.examples, self.redelivered = int(saved.meta["examples"]), int(saved.meta["redelivered"])
