"""Where a net that draws (dropout) gets its numbers from: nothing that would have to be saved."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import nn


class Randomness:
    """Draws of a minibatch hang on (seed, step) alone: there is no generator to save (law 3).

    Args:
        nets: that may draw.
        own: one of them is a user's, which may draw without a layer that says so.
        device: where they are.
    """

    def __init__(self, nets: Iterable[nn.Module], *, own: bool, device: torch.device) -> None:
        common = nn.modules.dropout._DropoutNd  # noqa: SLF001  # the base of all dropouts
        self._draws = own or any(isinstance(module, common) for net in nets for module in net.modules())
        self._devices = [device] if device.type == "cuda" else []

    def at(self, seed: int, step: int) -> AbstractContextManager[None]:
        """Entered around a minibatch: torch draws from these two, and as before behind it."""
        return self._forked((seed * 0x9E3779B97F4A7C15 + step) % 2**63) if self._draws else nullcontext()

    @contextmanager
    def _forked(self, number: int) -> Iterator[None]:
        with torch.random.fork_rng(devices=self._devices):
            torch.manual_seed(number)
            yield
