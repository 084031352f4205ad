"""Hints on the distribution of neurons' responses (NST): how the neurons of the two nets lie, not which is which.

Shapes: N and M samples of K columns; B rows, C and E channels, H x W places, D columns.
"""

import torch
from torch import Tensor

from contracts.declared_hints import hint
from contracts.errors import ContractError, did_you_mean
from model.hints.geometry import check_dims, distances, scaled, unit

KERNELS = ("linear", "polynomial", "gaussian")


@hint(
    "equal",
    pairs=True,
    paper="Huang and Wang, 2017",
    scaling="squared discrepancy of the minibatches' rows",
    variants={
        "mmd_linear": {"kernel": "linear"},
        "mmd_polynomial": {"kernel": "polynomial"},
        "mmd_gaussian": {"kernel": "gaussian"},
    },
)
def mmd(x: Tensor, y: Tensor, *, kernel: str = "polynomial", spread: str = "all") -> Tensor:
    """Squared maximum mean discrepancy of samples [..., N, K] and [..., M, K], each over its length: [...].

    mean k(x, x') + mean k(y, y') - 2 mean k(x, y), all pairs counted. Kernels: "linear" x . y; "polynomial" (x . y)^2
    (d = 2, c = 0); "gaussian" exp(-|x - y|^2 / (2 s)) with s the mean squared distance "of the pairs": with `spread`
    "all" those of both samples together, with "across" those of one with the other. Huang and Wang, "Like What You
    Like: Knowledge Distill via Neuron Selectivity Transfer", 2017, arXiv 1707.01219, equation 4; its total loss adds
    lambda / 2 of it. The order of samples does not matter.

    Raises:
        ContractError: no such kernel, or spread.

    >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> mmd(x, x.flip(0)).item(), mmd(x, x[:1], kernel="linear").item()
    (0.0, 0.5)
    """
    if x.shape[:-2] != y.shape[:-2] or x.shape[-1] != y.shape[-1]:
        shapes = f"{tuple(x.shape)} and {tuple(y.shape)}"
        raise ContractError(f"mmd compares samples of one width, not {shapes}; compare neurons with nst")
    x, y = unit(x), unit(y)
    if kernel == "gaussian":
        xx, yy, xy = distances(x, x).square(), distances(y, y).square(), distances(x, y).square()
        pairs = (x.shape[-2] + y.shape[-2]) ** 2
        every = (_all(xx) + _all(yy) + 2 * _all(xy)) / pairs
        wide = scaled(spread, {"all": every, "across": xy.mean((-2, -1))})
        twice = 2 * torch.where(wide > 0, wide, torch.ones_like(wide))[..., None, None]
        xx, yy, xy = ((-square / twice).exp() for square in (xx, yy, xy))
    elif kernel in KERNELS:
        power = 2 if kernel == "polynomial" else 1
        xx, yy, xy = ((a @ b.transpose(-1, -2)) ** power for a, b in ((x, x), (y, y), (x, y)))
    else:
        raise ContractError(f"kernel = '{kernel}': no such kernel; {did_you_mean(kernel, KERNELS)}")
    return xx.mean((-2, -1)) + yy.mean((-2, -1)) - 2 * xy.mean((-2, -1))


@hint(
    "hidden",
    paper="Huang and Wang, 2017",
    scaling="squared discrepancy of the nets' neurons",
    variants={
        "nst_linear": {"kernel": "linear"},
        "nst_polynomial": {"kernel": "polynomial"},
        "nst_gaussian": {"kernel": "gaussian"},
    },
)
def nst(fs: Tensor, ft: Tensor, *, kernel: str = "polynomial", spread: str = "all") -> Tensor:
    """`mmd` between the neurons of the student and those of the teacher, which may be more or fewer.

    Maps [B, C, H, W] and [B, E, H, W] give one cost a row: a neuron's sample is its map over the H x W places (the
    paper). Vectors [B, D] and [B, E] give one number: there are no places, so a neuron's sample is its response over
    the B rows. Blind to the order of neurons, and to the scale of each.

    >>> f = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    >>> nst(f.flip(1), f).item(), nst(f[:, :, None, None], f[:, :, None, None]).tolist()
    (0.0, [0.0, 0.0])
    """
    check_dims("nst", (2, 4), fs, ft)
    if fs.dim() != ft.dim() or fs.shape[0] != ft.shape[0] or fs.shape[2:] != ft.shape[2:]:
        shapes = f"{tuple(fs.shape)} and {tuple(ft.shape)}"
        raise ContractError(f"nst compares responses at the same rows and places, not {shapes}; pool the larger map")
    if fs.dim() == 2:
        return mmd(fs.T, ft.T, kernel=kernel, spread=spread)
    return mmd(fs.flatten(2), ft.flatten(2), kernel=kernel, spread=spread)


def _all(pairs: Tensor) -> Tensor:
    return pairs.sum((-2, -1))
