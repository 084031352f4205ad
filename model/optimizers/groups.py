"""Look-ups that fall on the same row of a table, brought together: a row moves once, by the sum of its gradients.

Shapes: M row numbers looked up (with repeats), U distinct rows among them, D width.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Groups(NamedTuple):
    """Which look-ups fall on the same row."""

    rows_U: Tensor  #: int64, ascending: the distinct rows
    order_M: Tensor  #: int64: positions of the look-ups, those of one row beside each other, in their own order
    starts_U: Tensor  #: int64: where each row's positions begin in `order_M`

    def inverse(self) -> Tensor:
        """Int64 [M]: for each look-up the place of its row in `rows_U`.

        >>> group_rows(torch.tensor([7, 3, 7])).inverse().tolist()
        [1, 0, 1]
        """
        first_M = torch.zeros_like(self.order_M)
        first_M[self.starts_U] = 1
        places_M = torch.empty_like(first_M)
        if first_M.is_cpu:  # NumPy takes a third of the time
            places_M.numpy()[self.order_M.numpy()] = first_M.numpy().cumsum() - 1
        else:
            places_M[self.order_M] = first_M.cumsum(0) - 1
        return places_M


def group_rows(rows_M: Tensor, *, below: int = 2**63 - 1) -> Groups:
    """Group look-ups by row, with one stable sort.

    Args:
        rows_M: int64, none negative.
        below: a bound of them; small ones are sorted in half the bytes.

    >>> rows, order, starts = group_rows(torch.tensor([7, 3, 7]))
    >>> rows.tolist(), order.tolist(), starts.tolist()
    ([3, 7], [1, 0, 2], [0, 1])
    """
    sorted_M, order_M = torch.sort(rows_M.int() if below <= 2**31 else rows_M, stable=True)
    first_M = torch.ones(rows_M.shape, dtype=torch.bool, device=rows_M.device)
    torch.ne(sorted_M[1:], sorted_M[:-1], out=first_M[1:])
    starts_U = first_M.nonzero().squeeze(1)
    return Groups(sorted_M[starts_U].long(), order_M, starts_U)


def sum_by_row(groups: Groups, values_MD: Tensor) -> Tensor:
    """Sum what falls on the same row, always in the order of the look-ups: the same bits every time.

    >>> sum_by_row(group_rows(torch.tensor([7, 3, 7])), torch.tensor([[1.0], [2.0], [4.0]])).tolist()
    [[2.0], [5.0]]
    """
    return F.embedding_bag(groups.order_M, values_MD, groups.starts_U, mode="sum")
