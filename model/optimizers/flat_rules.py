"""The rules that move a flat tensor of parameters."""

from typing import Protocol

import torch
from torch import Tensor


class FlatRule(Protocol):
    """Moves all values at once."""

    state: dict[str, Tensor]  #: what it keeps, by name

    def step(self, values: Tensor, gradients: Tensor, lr: float) -> None:
        """Move the values in place."""
        ...


class Adam:
    """Kingma and Ba, ICLR 2015, algorithm 1, by torch's fused kernel.

    Args:
        values: what it will move.
    """

    def __init__(self, values: Tensor) -> None:
        self.state = {
            "step": torch.zeros((), device=values.device),
            "exp_avg": torch.zeros_like(values),
            "exp_avg_sq": torch.zeros_like(values),
        }

    def step(self, values: Tensor, gradients: Tensor, lr: float) -> None:
        """Move the values in place."""
        # the kernel of torch.optim.Adam(fused=True), bit for bit: that class would import torch._dynamo, for seconds
        state = self.state
        state["step"] += 1
        torch._fused_adam_(
            [values],
            [gradients],
            [state["exp_avg"]],
            [state["exp_avg_sq"]],
            [],
            [state["step"]],
            amsgrad=False,
            lr=lr,
            beta1=0.9,
            beta2=0.999,
            weight_decay=0.0,
            eps=1e-8,
            maximize=False,
            grad_scale=None,
            found_inf=None,
        )


class Sgd:
    """Stochastic gradient descent, with the heavy ball of Polyak (1964) where there is momentum.

    Args:
        momentum: share of the last step that goes on.
        values: what it will move.

    >>> values = torch.zeros(1)
    >>> rule = Sgd(0.5, values)
    >>> for _ in range(2):
    ...     rule.step(values, torch.ones(1), 0.1)
    >>> values.tolist()
    [-0.25]
    """

    def __init__(self, momentum: float, values: Tensor) -> None:
        self._momentum = momentum
        self.state = {"momentum": torch.zeros_like(values)} if momentum else {}

    def step(self, values: Tensor, gradients: Tensor, lr: float) -> None:
        """Move the values in place."""
        if self._momentum:
            gradients = self.state["momentum"].mul_(self._momentum).add_(gradients)
        values.add_(gradients, alpha=-lr)
