"""Adagrad with one accumulator a row: 4 bytes of state for a whole embedding.

Duchi, Hazan, Singer, "Adaptive Subgradient Methods", JMLR 2011; the form with one accumulator a row is that of DLRM
(Naumov et al., arXiv 1906.00091) and TorchRec.
"""

from dataclasses import dataclass

from torch import Tensor

from model.optimizers.row_rules import Slot


def rowwise_adagrad(weight_UD: Tensor, accumulator_U1: Tensor, grad_UD: Tensor, *, lr: float) -> None:
    """One step in place: a row's accumulator grows by its mean squared gradient, its step shrinks with its root.

    The accumulator must start near 0 (1e-12): the gradient of a mean over a batch is about 1e-6 a row, and beside a
    start of 0.1 the rows would stay frozen. A row whose gradient is 0 does not move.

    >>> import torch
    >>> weight, accumulator = torch.zeros(1, 2), torch.full((1, 1), 1e-12)
    >>> rowwise_adagrad(weight, accumulator, torch.tensor([[3.0, 4.0]]), lr=0.1)
    >>> weight.tolist(), accumulator.tolist()
    ([[-0.0849, -0.1131]], [[12.5]])
    """
    accumulator_U1 += grad_UD.square().mean(1, keepdim=True)
    weight_UD.addcmul_(grad_UD, accumulator_U1.rsqrt(), value=-lr)


@dataclass(frozen=True, slots=True)
class RowwiseAdagrad:
    """`rowwise_adagrad` as a rule.

    Args:
        lr: learning rate.
        start: where accumulators begin.
    """

    lr: float
    start: float

    def slots(self, width: int) -> tuple[Slot, ...]:
        """One accumulator, whatever the width."""
        del width
        return (Slot("", 1, self.start),)

    def step(self, weight_UD: Tensor, state_US: Tensor, grad_UD: Tensor, *, steps: int, rows: int) -> None:
        """Move some rows once."""
        del steps, rows
        rowwise_adagrad(weight_UD, state_US, grad_UD, lr=self.lr)
