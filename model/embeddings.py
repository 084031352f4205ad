"""One table of embedding rows for all id features, gathered outside autograd and moved row by row.

A table is one slab [rows, columns]: the columns of its parts (the embedding, the first-order weight), then one Adagrad
accumulator a part, so that a look-up touches one stretch of memory. Shapes: M look-ups, U distinct rows, D width.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from model.optimizers import Groups, group_rows, rowwise_adagrad, sum_by_row


@dataclass(frozen=True, slots=True)
class Part:
    """Some columns of a table that are learnt together."""

    name: str
    width: int
    lr: float
    init: float  #: standard deviation of the first weights; 0 starts at 0


class Touched(NamedTuple):
    """Rows looked up for one minibatch."""

    groups: Groups
    slab_UC: Tensor  #: the distinct rows, all columns
    leaves: tuple[Tensor, ...]  #: one [M, width] a part: autograd leaves; after backward their `.grad` says how to move


class Table:
    """Embedding rows and their accumulators.

    Args:
        rows: how many.
        parts: what each row holds.
        accumulator_init: where the accumulators start.
        generator: draws the first weights.
    """

    def __init__(
        self, rows: int, parts: tuple[Part, ...], *, accumulator_init: float, generator: torch.Generator
    ) -> None:
        self.rows = rows
        self.parts = parts
        self._starts = [sum(part.width for part in parts[:i]) for i in range(len(parts) + 1)]
        width = self._starts[-1]
        self.slab = torch.zeros(rows, width + len(parts))
        for part, start in zip(parts, self._starts, strict=False):
            if part.init:
                self.slab[:, start : start + part.width] = (
                    torch.randn(rows, part.width, generator=generator) * part.init
                )
        self.slab[:, width:] = accumulator_init
        self._unmoved = self.slab[:1, width:].clone()  # what is kept beside the weights of a row that never moved
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
        groups = group_rows(rows_M)
        leaves = tuple(leaf.requires_grad_() for leaf in self.look_up(rows_M))
        return Touched(groups, self.slab.index_select(0, groups.rows_U), leaves)

    def update(self, touched: Touched) -> None:
        """Move the touched rows by the gradients in the leaves; a row looked up twice moves once, by the sum."""
        width = self._starts[-1]
        moved = False
        for number, (part, leaf) in enumerate(zip(self.parts, touched.leaves, strict=True)):
            if leaf.grad is None or not leaf.numel():
                continue
            grad_UD = sum_by_row(touched.groups, leaf.grad)
            accumulator = touched.slab_UC[:, width + number : width + number + 1]
            rowwise_adagrad(touched.slab_UC[:, self._columns(number)], accumulator, grad_UD, lr=part.lr)
            moved = True
        if moved:
            self.slab.index_copy_(0, touched.groups.rows_U, touched.slab_UC)
            self.moved.index_fill_(0, touched.groups.rows_U, True)  # the value to fill with

    def new_share(self, touched: Touched) -> float:
        """Of the distinct rows looked up, the share that never moved; ask before `update`."""
        kept_US = touched.slab_UC[:, self._starts[-1] :]
        return float((kept_US == self._unmoved.to(kept_US.device)).all(1).float().mean()) if len(kept_US) else 0.0

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
        """A copy of each part's accumulator, [rows]."""
        width = self._starts[-1]
        return {part.name: self.slab[:, width + i].clone() for i, part in enumerate(self.parts)}

    def load(self, weights: dict[str, Tensor], accumulators: dict[str, Tensor]) -> None:
        """Take over what `weights` and `accumulators` gave."""
        width = self._starts[-1]
        for i, part in enumerate(self.parts):
            self.slab[:, self._columns(i)] = weights[part.name].to(self.slab.device)
            self.slab[:, width + i] = accumulators[part.name].to(self.slab.device)
        self.moved.fill_(True)  # the value to fill with

    def _columns(self, number: int) -> slice:
        return slice(self._starts[number], self._starts[number + 1])
