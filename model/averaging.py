"""Averaged weights for export: what goes out must not depend on where in a minibatch's swing it was taken.

Polyak and Juditsky (1992): averaging the iterates of a stochastic descent removes most of the noise of the last steps.
Here the average decays with rows learnt, so that it follows drift, and only the towers' parameters take part: a row of
a table moves rarely, and by ever smaller steps.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class DecayingAverage:
    """An exponentially decaying average of a net's parameters, those that move, by rows learnt.

    Args:
        net: whose parameters are averaged.
        halflife_rows: after so many rows a parameter's old value counts half; 0 keeps the newest value.

    >>> net = nn.Linear(1, 1, bias=False)
    >>> average = DecayingAverage(net, halflife_rows=100)
    >>> for value, rows in ((0.0, 50), (1.0, 50)):
    ...     _ = net.weight.data.fill_(value)
    ...     average.update(rows)
    >>> average.state()["weight"].item()  # warm-up: the plain mean
    0.5
    """

    def __init__(self, net: nn.Module, halflife_rows: int) -> None:
        self._halflife_rows, self._rows = halflife_rows, 0
        self._moving = {name: p for name, p in net.named_parameters() if p.requires_grad}
        self._average = {name: p.detach().clone() for name, p in self._moving.items()}

    @torch.no_grad()
    def update(self, rows: int) -> None:
        """Take in the parameters as they are after a minibatch of `rows` rows."""
        self._rows += rows
        decayed = 0.5 ** (rows / self._halflife_rows) if self._halflife_rows else 0.0
        keep = min(decayed, 1 - rows / self._rows)  # a plain mean until the decay is the smaller
        for name, parameter in self._moving.items():
            self._average[name].lerp_(parameter, 1 - keep)

    def state(self) -> dict[str, Tensor]:
        """The averaged parameters, by name."""
        return {name: tensor.clone() for name, tensor in self._average.items()}

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The net computes with the averages inside the `with` block, and with its own parameters after it."""
        own = {name: parameter.data for name, parameter in self._moving.items()}
        for name, parameter in self._moving.items():
            parameter.data = self._average[name]
        try:
            yield
        finally:
            for name, parameter in self._moving.items():
                parameter.data = own[name]

    def load(self, state: Mapping[str, Tensor], rows: int) -> None:
        """Go on from another average's `state` after `rows` rows in all."""
        self._rows = rows
        for name, tensor in self._average.items():
            tensor.copy_(state[name])
