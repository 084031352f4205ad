"""One table of embedding rows for all id features, gathered outside autograd and moved row by row.

A table is one slab [rows, columns]: the columns of its parts (the embedding, the first-order weight), then what the
rule of each part keeps a row (`model.optimizers`), so that a look-up touches one stretch of memory.
Shapes: M look-ups, U distinct rows, D width.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from contracts.training import Ftrl, WideOptimizer
from model.optimizers import row_rule
from model.optimizers.groups import Groups, group_rows, sum_by_row
from model.optimizers.row_rules import Slot
from model.optimizers.sparse_adam import SparseAdam


@dataclass(frozen=True, slots=True)
class Part:
    """Some columns of a table that are learnt together."""

    name: str
    width: int
    lr: float
    init: float  #: standard deviation of the first weights; 0 starts at 0
    optimizer: WideOptimizer = "rowwise_adagrad"
    ftrl: Ftrl = field(default_factory=Ftrl)


class Touched(NamedTuple):
    """Rows looked up for one minibatch."""

    groups: Groups
    slab_UC: Tensor  #: the distinct rows, all columns
    leaves: tuple[Tensor, ...]  #: one [M, width] a part: autograd leaves; after backward their `.grad` says how to move

    @property
    def moving(self) -> list[int]:
        """Numbers of the parts that some loss reached."""
        return [number for number, leaf in enumerate(self.leaves) if leaf.grad is not None and leaf.numel()]


class Table:
    """Embedding rows and what moves them.

    Args:
        rows: how many.
        parts: what each row holds.
        accumulator_init: where the accumulators of row-wise Adagrad start.
        generator: draws the first weights.
    """

    def __init__(
        self, rows: int, parts: tuple[Part, ...], *, accumulator_init: float, generator: torch.Generator
    ) -> None:
        self.rows = rows
        self.parts = parts
        self._starts = [0, *accumulate(part.width for part in parts)]
        self._rules = [row_rule(part.optimizer, lr=part.lr, start=accumulator_init, ftrl=part.ftrl) for part in parts]
        slots = [rule.slots(part.width) for rule, part in zip(self._rules, parts, strict=True)]
        self._state_starts = [
            self._starts[-1] + before
            for before in accumulate((sum(s.width for s in some) for some in slots), initial=0)
        ]
        self._slots = [
            (f"{part.name}.{slot.name}" if slot.name else part.name, slot)
            for part, some in zip(parts, slots, strict=True)
            for slot in some
        ]
        self.steps = [0] * len(parts)  #: how often each part moved
        self.slab = torch.zeros(rows, self._state_starts[-1])
        for part, start in zip(parts, self._starts, strict=False):
            if part.init:
                self.slab[:, start : start + part.width] = (
                    torch.randn(rows, part.width, generator=generator) * part.init
                )
        for columns, slot in self._slot_columns().values():
            self.slab[:, columns] = slot.start
        kept = self.slab[:1, self._starts[-1] :].clone()
        self._unmoved = kept  # what is kept beside the weights of a row that never moved
        self.moved = torch.ones(rows, dtype=torch.bool)  #: rows that may have moved since `take_moved`; all at first

    def to(self, device: torch.device) -> None:
        """Move the table."""
        self.slab, self.moved = self.slab.to(device), self.moved.to(device)

    def look_up(self, rows_M: Tensor) -> tuple[Tensor, ...]:
        """The parts of some rows, each [M, width], to predict with."""
        slab_MC = self.slab.index_select(0, rows_M)
        return tuple(slab_MC[:, columns].contiguous() for columns in map(self._columns, range(len(self.parts))))

    def touch(self, rows_M: Tensor) -> Touched:
        """The parts of some rows as autograd leaves, to learn from."""
        groups = group_rows(rows_M, below=self.rows)
        slab_UC, places_M = self.slab.index_select(0, groups.rows_U), groups.inverse()
        # from the distinct rows, which the cache holds: a row that is looked up ten times is fetched once
        parts = (slab_UC[:, self._columns(i)].contiguous() for i in range(len(self.parts)))
        return Touched(groups, slab_UC, tuple(part_UD.index_select(0, places_M).requires_grad_() for part_UD in parts))

    def update(self, touched: Touched, *, rows: int = 1) -> None:
        """Move the touched rows by the gradients in the leaves; a row looked up twice moves once, by the sum.

        Args:
            touched: after backward; spent.
            rows: of the minibatch.
        """
        self.prepare(touched, rows=rows)
        self.commit(touched)

    def prepare(self, touched: Touched, *, rows: int = 1) -> bool:
        """Work out where the touched rows go, in `touched` alone; whether every number of them is finite."""
        for number in touched.moving:
            grad = touched.leaves[number].grad
            assert grad is not None  # noqa: S101  # or the part would not be moving
            weight_UD, state_US = touched.slab_UC[:, self._columns(number)], touched.slab_UC[:, self._state(number)]
            self._rules[number].step(
                weight_UD, state_US, sum_by_row(touched.groups, grad), steps=self.steps[number] + 1, rows=rows
            )
        # one sum tells of every NaN and infinity; huge numbers may overflow it and are looked at one by one
        return bool(touched.slab_UC.sum().isfinite()) or bool(touched.slab_UC.isfinite().all())

    def commit(self, touched: Touched) -> None:
        """Write back what `prepare` worked out."""
        for number in touched.moving:
            self.steps[number] += 1
        if touched.moving:
            self.slab.index_copy_(0, touched.groups.rows_U, touched.slab_UC)
            self.moved.index_fill_(0, touched.groups.rows_U, True)  # the value to fill with

    def new_share(self, touched: Touched) -> float:
        """Of the distinct rows looked up, the share that never moved; ask before `update`."""
        kept_US = touched.slab_UC[:, self._starts[-1] :]
        return float((kept_US == self._unmoved.to(kept_US.device)).all(1).float().mean()) if len(kept_US) else 0.0

    def reset_rows(self, rows_U: Tensor, weights: Mapping[str, Tensor]) -> None:
        """Begin some rows anew: these weights, and the state of rows that never moved.

        Args:
            rows_U: int64, distinct.
            weights: part -> [U, width]; a part that is left out starts at 0, and one learnt by FTRL always does.
        """
        fresh_UC = self.slab.new_zeros(rows_U.shape[0], self.slab.shape[1])
        for number, part in enumerate(self.parts):
            if part.name in weights and part.optimizer != "ftrl":  # FTRL's weights derive from its state
                fresh_UC[:, self._columns(number)] = weights[part.name].to(self.slab.device)
        for columns, slot in self._slot_columns().values():
            fresh_UC[:, columns] = slot.start
        rows_U = rows_U.to(self.slab.device)
        self.slab.index_copy_(0, rows_U, fresh_UC)
        self.moved.index_fill_(0, rows_U, True)  # the value to fill with

    def take_moved(self) -> Tensor:
        """Rows that may have moved since this was asked last, int64 and ascending; forgets them."""
        rows = self.moved.nonzero().squeeze(1)
        self.moved.zero_()
        return rows

    def weights(self) -> dict[str, Tensor]:
        """A copy of each part, [rows, width]."""
        return {name: part.clone() for name, part in self.views().items()}

    def views(self) -> dict[str, Tensor]:
        """Each part, [rows, width], as it lies in the slab."""
        return {part.name: self.slab[:, self._columns(i)] for i, part in enumerate(self.parts)}

    def accumulators(self) -> dict[str, Tensor]:
        """A copy of what the rules keep: Adagrad's accumulator under the part's name, [rows], else "part.slot".

        A rule whose step hangs on how often it was called has "part.steps" beside.
        """
        slots = {name: self.slab[:, columns].clone() for name, (columns, _) in self._slot_columns().items()}
        state = {name: values.squeeze(1) if values.shape[1] == 1 else values for name, values in slots.items()}
        return state | {
            f"{part.name}.steps": torch.tensor(steps, dtype=torch.int64)
            for part, steps, rule in zip(self.parts, self.steps, self._rules, strict=True)
            if isinstance(rule, SparseAdam)
        }

    def load(self, weights: Mapping[str, Tensor], accumulators: Mapping[str, Tensor]) -> None:
        """Take over what `weights` and `accumulators` gave."""
        for i, part in enumerate(self.parts):
            self.slab[:, self._columns(i)] = weights[part.name].to(self.slab.device)
            self.steps[i] = int(accumulators.get(f"{part.name}.steps", torch.tensor(0)))
        for name, (columns, slot) in self._slot_columns().items():
            self.slab[:, columns] = accumulators[name].to(self.slab.device).view(-1, slot.width)
        self.moved.fill_(True)  # the value to fill with

    def _columns(self, number: int) -> slice:
        return slice(self._starts[number], self._starts[number + 1])

    def _state(self, number: int) -> slice:
        return slice(self._state_starts[number], self._state_starts[number + 1])

    def _slot_columns(self) -> dict[str, tuple[slice, Slot]]:
        """Name in checkpoints -> where it lies in the slab, and what it is."""
        stops = accumulate((slot.width for _, slot in self._slots), initial=self._starts[-1])
        return {
            name: (slice(start, start + slot.width), slot)
            for start, (name, slot) in zip(stops, self._slots, strict=False)
        }
