"""What several hints are made of: directions, distances, correlations, and one reading of `scaling`.

Each is finite, with a finite gradient, where vectors are zero or equal. Shapes: N and M vectors of K columns.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from contracts.errors import ContractError, did_you_mean


def unit(x: Tensor, dim: int = -1) -> Tensor:
    """Vectors over their Euclidean length along `dim`; a zero vector stays zero, with no gradient.

    >>> unit(torch.tensor([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.6, 0.8], [0.0, 0.0]]
    """
    square = x.square().sum(dim, keepdim=True)
    there = square > torch.finfo(x.dtype).tiny ** 0.5
    direction: Tensor = x * torch.where(there, square, torch.ones_like(square)).rsqrt() * there
    return direction


def distances(x: Tensor, y: Tensor) -> Tensor:
    """Euclidean distances of [..., N, K] and [..., M, K], [..., N, M]; no gradient where two vectors are one.

    >>> distances(torch.tensor([[0.0], [3.0]]), torch.tensor([[3.0]])).tolist()
    [[3.0], [0.0]]
    """
    # not by x.x + y.y - 2 x.y, which cancels, and is not 0 between equal vectors
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


def pearson(x_NK: Tensor, y_NK: Tensor) -> Tensor:
    """Pearson's correlation of each row with its partner, [N]; 0 where one of them is constant.

    >>> pearson(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[6.0, 4.0, 2.0]])).tolist()
    [-1.0]
    """
    return (_centred_unit(x_NK) * _centred_unit(y_NK)).sum(1)


def _centred_unit(x_NK: Tensor) -> Tensor:
    """Each row less its mean, of length 1; zeros, without a gradient, where nothing but rounding is left."""
    centred_NK = x_NK - x_NK.mean(1, keepdim=True)
    rounding_N1 = x_NK.square().sum(1, keepdim=True) * (8 * torch.finfo(x_NK.dtype).eps) ** 2
    return unit(centred_NK * (centred_NK.square().sum(1, keepdim=True) > rounding_N1))


def scaled(scaling: str, forms: Mapping[str, Tensor]) -> Tensor:
    """The form of a cost that `scaling` names.

    Raises:
        ContractError: there is none of that name.

    >>> scaled("sum", {"mean": torch.tensor(1.0), "sum": torch.tensor(4.0)}).item()
    4.0
    """
    if scaling not in forms:
        raise ContractError(f"scaling = '{scaling}': no such scaling of this hint; {did_you_mean(scaling, forms)}")
    return forms[scaling]


def check_same_shape(hint: str, student: Tensor, teacher: Tensor, mend: str) -> None:
    """Both sides of a hint that compares element by element have one shape.

    Raises:
        ContractError: they have not; it ends with the mend.
    """
    if student.shape != teacher.shape:
        shapes = f"{tuple(student.shape)} and {tuple(teacher.shape)}"
        raise ContractError(f"{hint} compares element by element, and these have the shapes {shapes}; {mend}")


def check_dims(hint: str, dims: tuple[int, ...], *tensors: Tensor) -> None:
    """Each tensor has one of these numbers of dimensions.

    Raises:
        ContractError: one has not.
    """
    for tensor in tensors:
        if tensor.dim() not in dims:
            wanted = " or ".join(str(number) for number in dims)
            raise ContractError(
                f"{hint} takes tensors of {wanted} dimensions, not one of shape {tuple(tensor.shape)}; reshape it, or "
                "take a hint for what it is (contracts.declared_hints)"
            )
