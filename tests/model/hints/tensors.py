"""Samples of NumPy arrays as torch tensors."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.hints.shelf import METHODS
from tests.model.hints.golden import Sample


def tensors(
    sample: Sample, *, learn: bool = False
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Student, teacher and what is told; with `learn` gradients are kept for both nets."""
    student, teacher, told = (tuple(torch.tensor(np.asarray(array)) for array in part) for part in sample)
    for tensor in (*student, *teacher) if learn else ():
        tensor.requires_grad_()
    return student, teacher, told


def cost(name: str, sample: Sample, **options: Any) -> Tensor:
    """What a hint says of a sample."""
    return METHODS[name].cost(*tensors(sample), **options)
