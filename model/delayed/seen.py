"""What a label loss reads of a minibatch beside the logits. Shapes: B rows, K outputs of the delay heads."""

from typing import NamedTuple

import torch
from torch import Tensor

from contracts.segments import Role


class Seen(NamedTuple):
    """A minibatch's labels and what is known of them."""

    label_B: Tensor  #: 0 or 1
    role_B: Tensor  #: `contracts.segments.Role`
    elapsed_B: Tensor  #: impression to click, or the span observed, in waits (`labels.wait_s` is 1)
    observed: float  #: `labels.first_row_s` in waits: when a negative is told the first time
    heads_BK: Tensor | None  #: of the delay heads, for the modes that have them

    def has(self, role: Role) -> Tensor:
        """Which rows play a role, bool [B]."""
        return self.role_B == role.value

    @property
    def told_once(self) -> Tensor:
        """Positives that were never told as negatives: clicked before they were first told, bool [B]."""
        return self.has(Role.SETTLED) & (self.label_B > 0)

    @property
    def ended(self) -> Tensor:
        """Negatives that stay so, told a second time once their wait was over, bool [B]."""
        return self.has(Role.SETTLED) & (self.label_B == 0)

    def head(self, number: int) -> Tensor:
        """One output of the delay heads, [B]; the mode must have them."""
        assert self.heads_BK is not None  # noqa: S101
        return self.heads_BK[:, number]


def seen(label: list[int], role: list[int], elapsed: list[float], heads: list[list[float]] | None = None) -> Seen:
    """A few rows by hand, observed for a quarter of the wait.

    >>> seen([1, 0], [0, 0], [0.1, 1.0]).ended.tolist()
    [False, True]
    """
    return Seen(
        torch.tensor(label, dtype=torch.float32),
        torch.tensor(role, dtype=torch.uint8),
        torch.tensor(elapsed),
        0.25,
        None if heads is None else torch.tensor(heads),
    )
