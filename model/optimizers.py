"""How parameters move: row-wise Adagrad on the touched rows of a table, Adam on the towers.

Shapes: M row numbers looked up (with repeats), U distinct rows among them, D width.
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Groups(NamedTuple):
    """Which look-ups fall on the same row."""

    rows_U: Tensor  #: int64, ascending: the distinct rows
    order_M: Tensor  #: int64: positions of the look-ups, those of one row beside each other, in their own order
    starts_U: Tensor  #: int64: where each row's positions begin in `order_M`


def group_rows(rows_M: Tensor) -> Groups:
    """Group look-ups by row, with one stable sort.

    >>> rows, order, starts = group_rows(torch.tensor([7, 3, 7]))
    >>> rows.tolist(), order.tolist(), starts.tolist()
    ([3, 7], [1, 0, 2], [0, 1])
    """
    sorted_M, order_M = torch.sort(rows_M, stable=True)
    first_M = torch.ones(rows_M.shape, dtype=torch.bool, device=rows_M.device)
    torch.ne(sorted_M[1:], sorted_M[:-1], out=first_M[1:])
    starts_U = first_M.nonzero().squeeze(1)
    return Groups(sorted_M[starts_U], order_M, starts_U)


def sum_by_row(groups: Groups, values_MD: Tensor) -> Tensor:
    """Sum what falls on the same row, always in the order of the look-ups: the same bits every time.

    >>> sum_by_row(group_rows(torch.tensor([7, 3, 7])), torch.tensor([[1.0], [2.0], [4.0]])).tolist()
    [[2.0], [5.0]]
    """
    return F.embedding_bag(groups.order_M, values_MD, groups.starts_U, mode="sum")


def rowwise_adagrad(weight_UD: Tensor, accumulator_U1: Tensor, grad_UD: Tensor, *, lr: float) -> None:
    """One step in place: a row's accumulator grows by its mean squared gradient, its step shrinks with its root.

    The accumulator must start near 0 (1e-12): the gradient of a mean over a batch is about 1e-6 a row, and beside a
    start of 0.1 the rows would stay frozen. A row whose gradient is 0 does not move.

    >>> weight, accumulator = torch.zeros(1, 2), torch.full((1, 1), 1e-12)
    >>> rowwise_adagrad(weight, accumulator, torch.tensor([[3.0, 4.0]]), lr=0.1)
    >>> weight.tolist(), accumulator.tolist()
    ([[-0.0849, -0.1131]], [[12.5]])
    """
    accumulator_U1 += grad_UD.square().mean(1, keepdim=True)
    weight_UD.addcmul_(grad_UD, accumulator_U1.rsqrt(), value=-lr)


class FlatAdam:
    """Adam over all parameters of some modules as one flat tensor: one kernel a step, however many layers.

    The parameters become views of `values`, their gradients views of `gradients`.
    """

    def __init__(self, modules: Iterable[nn.Module], *, lr: float) -> None:
        groups = [[p for p in module.parameters() if p.requires_grad] for module in modules]
        parameters = [parameter for group in groups for parameter in group]
        self._sizes = [sum(parameter.numel() for parameter in group) for group in groups]
        self.values = torch.cat([parameter.detach().reshape(-1).float() for parameter in parameters])
        self.gradients = torch.zeros_like(self.values)
        start = 0
        for parameter in parameters:
            stop = start + parameter.numel()
            parameter.data = self.values[start:stop].view_as(parameter)
            parameter.grad = self.gradients[start:stop].view_as(parameter)
            start = stop
        self.values.grad = self.gradients
        self._lr = lr
        self._moments = {
            "step": torch.zeros((), device=self.values.device),
            "exp_avg": torch.zeros_like(self.values),
            "exp_avg_sq": torch.zeros_like(self.values),
        }

    def gradient_norms(self) -> list[float]:
        """Euclidean length of each module's gradient."""
        parts = torch.split(self.gradients, self._sizes)
        return torch.stack([torch.linalg.vector_norm(part) for part in parts]).tolist()

    def clear(self) -> None:
        """Forget the gradients, keeping the views."""
        self.gradients.zero_()

    def step(self) -> None:
        """Move every parameter once."""
        # the kernel of torch.optim.Adam(fused=True), bit for bit: that class would import torch._dynamo, for seconds
        moments = self._moments
        moments["step"] += 1
        torch._fused_adam_(
            [self.values],
            [self.gradients],
            [moments["exp_avg"]],
            [moments["exp_avg_sq"]],
            [],
            [moments["step"]],
            amsgrad=False,
            lr=self._lr,
            beta1=0.9,
            beta2=0.999,
            weight_decay=0.0,
            eps=1e-8,
            maximize=False,
            grad_scale=None,
            found_inf=None,
        )

    def state(self) -> dict[str, Tensor]:
        """A copy of the moments and the step count; the values are the modules' own state."""
        return {name: tensor.clone() for name, tensor in self._moments.items()}

    def load(self, state: dict[str, Tensor]) -> None:
        """Take over what `state` gave."""
        for name, tensor in self._moments.items():
            tensor.copy_(state[name])
