"""Adam on the touched rows alone: moments of a row that is not looked up neither decay nor move it.

Kingma and Ba, "Adam", ICLR 2015, algorithm 1; lazily, as `torch.optim.SparseAdam` does: the bias correction counts all
steps of the table, not those of the row.
"""

import math
from dataclasses import dataclass

from torch import Tensor

from model.optimizers.row_rules import Slot

_BETA1, _BETA2, _EPS = 0.9, 0.999, 1e-8


@dataclass(frozen=True, slots=True)
class SparseAdam:
    """Lazy Adam as a rule: two moments a weight, so three times the memory of the weights.

    Args:
        lr: learning rate.

    >>> import torch
    >>> weight, state = torch.zeros(1, 2), torch.zeros(1, 4)
    >>> SparseAdam(0.1).step(weight, state, torch.tensor([[3.0, -4.0]]), steps=1, rows=1)
    >>> weight.tolist()
    [[-0.1, 0.1]]
    """

    lr: float

    def slots(self, width: int) -> tuple[Slot, ...]:
        """Both moments."""
        return (Slot("exp_avg", width, 0.0), Slot("exp_avg_sq", width, 0.0))

    def step(self, weight_UD: Tensor, state_US: Tensor, grad_UD: Tensor, *, steps: int, rows: int) -> None:
        """Move some rows once."""
        del rows
        first_UD, second_UD = state_US.tensor_split(2, dim=1)
        first_UD.lerp_(grad_UD, 1 - _BETA1)
        second_UD.lerp_(grad_UD.square(), 1 - _BETA2)
        size = self.lr * math.sqrt(1 - _BETA2**steps) / (1 - _BETA1**steps)
        weight_UD.addcdiv_(first_UD, second_UD.sqrt().add_(_EPS), value=-size)
