"""Plain stochastic gradient descent on rows: no state at all."""

from dataclasses import dataclass

from torch import Tensor

from model.optimizers.row_rules import Slot


@dataclass(frozen=True, slots=True)
class RowSgd:
    """Each row against its gradient, times the rate. Gradients of a mean over a batch are small: rates are large.

    Args:
        lr: learning rate.
    """

    lr: float

    def slots(self, width: int) -> tuple[Slot, ...]:
        """None."""
        del width
        return ()

    def step(self, weight_UD: Tensor, state_US: Tensor, grad_UD: Tensor, *, steps: int, rows: int) -> None:
        """Move some rows once."""
        del state_US, steps, rows
        weight_UD.add_(grad_UD, alpha=-self.lr)
