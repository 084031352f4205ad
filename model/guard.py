"""A minibatch that would spoil the weights moves nothing: it is skipped and counted, or training ends there."""

import logging
import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from contracts.errors import ContractError
from contracts.training import Train
from model.layers import MovesWhenTold

log = logging.getLogger(__name__)
_MEND = (
    'the numbers in the dense features are too large for the nets (use transform = "log1p" or "standardise"), or a '
    "learning rate is too high"
)


class Guard:
    """Counts what was skipped, and undoes what a forward pass alone has moved (running moments of batch norms).

    Args:
        settings: skip or stop, and how many in a row.
        nets: whose buffers the forward pass may move.
    """

    def __init__(self, settings: Train, nets: Iterable[nn.Module]) -> None:
        self._settings = settings
        self._buffers = [
            buffer
            for net in nets
            for module in net.modules()
            if not isinstance(module, MovesWhenTold)
            for buffer in module.buffers(recurse=False)
        ]
        self.batches = 0  #: skipped in this lineage
        self.rows = 0  #: in them
        self._in_a_row = 0

    def before(self) -> list[Tensor]:
        """What the forward pass may move, copied; hand it to `skip`."""
        return [buffer.clone() for buffer in self._buffers]

    def passed(self) -> None:
        """A minibatch was learnt."""
        self._in_a_row = 0

    @torch.no_grad()
    def skip(self, saved: list[Tensor], figures: Mapping[str, float], *, step: int, rows: int) -> None:
        """Count a minibatch that is not learnt.

        Args:
            saved: from `before`.
            figures: its loss terms and gradient norms.
            step: minibatches before it.
            rows: in it.

        Raises:
            ContractError: the settings say "stop", or this is one too many in a row.
        """
        for buffer, value in zip(self._buffers, saved, strict=True):
            buffer.copy_(value)
        odd = [name for name, value in figures.items() if not math.isfinite(value)] or ["a gradient of the tables"]
        told = f"step {step}: the loss or its gradient is not finite ({', '.join(odd)}; {rows} rows)"
        if self._settings.not_finite == "stop":
            raise ContractError(f'{told}: {_MEND}; train.not_finite = "skip" goes on without such minibatches')
        self.batches += 1
        self.rows += rows
        self._in_a_row += 1
        most = self._settings.max_skipped
        if self._in_a_row >= most:
            raise ContractError(
                f"{told}, as were all of the last {most} minibatches (train.max_skipped), so that no single one is to "
                f"blame: {_MEND}"
            )
        log.warning("%s: skipped, it moved nothing (%d minibatches so far): %s", told, self.batches, _MEND)

    def meta(self) -> dict[str, int]:
        """What a checkpoint keeps, ready for JSON."""
        return {"batches": self.batches, "rows": self.rows, "in_a_row": self._in_a_row}

    def restore(self, meta: Mapping[str, Any]) -> None:
        """Go on from what `meta` gave; nothing was skipped where it is empty."""
        self.batches, self.rows = int(meta.get("batches", 0)), int(meta.get("rows", 0))
        self._in_a_row = int(meta.get("in_a_row", 0))
