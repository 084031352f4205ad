"""The distillation shelf: every hint by name, with what it takes, its paper and its scaling.

To add one: write the function with `@hint(...)` above it (`contracts.declared_hints`), in a file of this folder, old or
new, and a golden row in tests/model/hints/golden.py; the shelf, `rocket check` and the law tests pick it up by
themselves. A `Method` is called with the tensors of the student, then those of the teacher, then what else it is told
(`Takes` says which).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from typing import Any

from torch import Tensor

from contracts.declared_hints import HintName, declared_hints
from contracts.errors import ContractError, did_you_mean


@dataclass(frozen=True, slots=True)
class Method:
    """One hint."""

    loss: Callable[..., Tensor]
    row: HintName  #: what is declared above it
    options: Mapping[str, Any] = field(default_factory=dict)  #: that its name fixes

    def cost(
        self,
        student: tuple[Tensor, ...],
        teacher: tuple[Tensor, ...],
        told: tuple[Tensor, ...] = (),
        *,
        block: bool = True,
        **options: Any,
    ) -> Tensor:
        """The cost, [B] or one number.

        Args:
            student: its tensors.
            teacher: its tensors; with `block` no gradient reaches them.
            told: what else the hint takes, such as labels.
            block: false lets the teacher learn too (mutual learning, the ablation).
            options: of the function, such as `scaling` or `temperature`.
        """
        if block:
            teacher = tuple(tensor.detach() for tensor in teacher)
        return self.loss(*student, *teacher, *told, **{**self.options, **options})

    def fixed(self, **options: Any) -> Callable[..., Tensor]:
        """The function with its name's options and others; itself where there are none."""
        options = {**self.options, **options}
        return partial(self.loss, **options) if options else self.loss


METHODS: dict[str, Method] = {
    name: Method(getattr(import_module(f"{__package__}.{found.module}"), found.function), found.row, found.options)
    for name, found in declared_hints().items()
}


def method_named(name: str) -> Method:
    """The hint of that name.

    Raises:
        ContractError: there is none.

    >>> method_named("rkd").row.paper
    'Park et al., CVPR 2019'
    """
    if name not in METHODS:
        raise ContractError(f"hint '{name}': no such hint; {did_you_mean(name, METHODS)}")
    return METHODS[name]


def needs(name: str) -> HintName:
    """What a hint takes, learns and says of itself.

    >>> needs("fitnet").learns
    'regressor'
    """
    return METHODS[name].row
