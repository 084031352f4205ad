"""The state of many parts as one table of tensors, told apart by how their names begin."""

from collections.abc import Mapping

from torch import Tensor


def part_of(state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `name` and a dot, without it, in their order.

    >>> import torch
    >>> one = torch.zeros(1)
    >>> list(part_of({"model.light.a.b": one, "model.lights.c": one, "model.light.d": one}, "model.light"))
    ['a.b', 'd']
    """
    start = f"{name}."
    return {key.removeprefix(start): tensor for key, tensor in state.items() if key.startswith(start)}
