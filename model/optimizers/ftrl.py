"""FTRL-proximal: each weight has a rate of its own, and an L1 pull that keeps what carries no signal at exactly zero.

McMahan et al., "Ad Click Prediction: a View from the Trenches", KDD 2013, algorithm 1. For a weight w with gradient g,

    sigma = (sqrt(n + g^2) - sqrt(n)) / alpha;   z += g - sigma * w;   n += g^2
    w = 0 if |z| <= l1, else -(z - sign(z) * l1) / ((beta + sqrt(n)) / alpha + l2)
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from model.optimizers.row_rules import Slot


@dataclass(frozen=True, slots=True)
class Ftrl:
    """FTRL-proximal as a rule; weights must start at 0, since they derive from its two sums.

    Its figures are those of the paper, where a gradient is that of one example: the gradient of a minibatch's mean loss
    is multiplied by its rows, so that `l1` means the same whatever `train.batch_rows` is.

    Args:
        alpha: the learning rate.
        beta: keeps the first steps small.
        l1: a weight stays 0 until |z|, about the sum of its gradients, exceeds it.
        l2: pulls towards 0.

    >>> weight, state = torch.zeros(2, 1), torch.zeros(2, 2)
    >>> rule = Ftrl(alpha=0.1, beta=1.0, l1=1.0, l2=0.0)
    >>> rule.step(weight, state, torch.tensor([[3.0], [0.5]]), steps=1, rows=1)
    >>> weight.tolist(), state.tolist()
    ([[-0.05], [0.0]], [[3.0, 9.0], [0.5, 0.25]])
    """

    alpha: float
    beta: float
    l1: float
    l2: float

    def slots(self, width: int) -> tuple[Slot, ...]:
        """The paper's z and n."""
        return (Slot("z", width, 0.0), Slot("n", width, 0.0))

    def step(self, weight_UD: Tensor, state_US: Tensor, grad_UD: Tensor, *, steps: int, rows: int) -> None:
        """Move some rows once."""
        del steps
        z_UD, n_UD = state_US.tensor_split(2, dim=1)
        grad_UD = grad_UD * rows
        square_UD, before_UD = grad_UD.square(), n_UD.sqrt()
        n_UD += square_UD
        root_UD = n_UD.sqrt()
        # g^2 / (root + before) is root - before without the digits that a difference of large roots loses
        sigma_UD = square_UD / (root_UD + before_UD).clamp_min_(1e-30) / self.alpha
        z_UD += grad_UD - sigma_UD * weight_UD
        beyond_UD = torch.sign(z_UD) * self.l1 - z_UD
        moved_UD = beyond_UD / ((self.beta + root_UD) / self.alpha + self.l2)
        weight_UD.copy_(torch.where(z_UD.abs() <= self.l1, 0.0, moved_UD))  # +0.0: what is zero has one bit pattern
