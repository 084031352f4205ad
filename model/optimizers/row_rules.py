"""What a rule that moves rows of a table is: its state lies beside the weights, and a step touches given rows only.

Shapes: U rows, D columns of a part, S columns of its state.
"""

from typing import NamedTuple, Protocol

from torch import Tensor


class Slot(NamedTuple):
    """Some columns of state that a rule keeps a row."""

    name: str  #: in checkpoints; "" where a rule has but one
    width: int
    start: float  #: value of a row that never moved


class RowRule(Protocol):
    """How rows move by their gradients."""

    def slots(self, width: int) -> tuple[Slot, ...]:
        """The state of a row of `width` columns."""
        ...

    def step(self, weight_UD: Tensor, state_US: Tensor, grad_UD: Tensor, *, steps: int, rows: int) -> None:
        """Move some rows once, in place; a row whose gradient was always 0 stays where it is.

        Args:
            weight_UD: their weights.
            state_US: their state, the columns of the slots side by side.
            grad_UD: of the mean loss of a minibatch.
            steps: of this part so far, this one included; the first is 1.
            rows: of the minibatch.
        """
        ...
