"""Hints on how rows relate to each other, not on the rows: the two nets may have other widths.

Each gives one number for a minibatch. Shapes: B rows, D columns of the student, E of the teacher; maps are flattened.
They hold matrices of B x B (angles: B x B x B) numbers, so B should be some hundred at most (`rocket.relation_rows`).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from contracts.declared_hints import hint
from contracts.errors import ContractError
from model.hints.geometry import check_same_shape, distances, scaled, unit


@hint("hidden", pairs=True, paper="Park et al., CVPR 2019", scaling="mean over pairs of the minibatch")
def rkd_distance(fs_BD: Tensor, ft_BE: Tensor, *, scaling: str = "mean") -> Tensor:
    """Huber loss (threshold 1) between the distances of rows, each net's in units of its own mean distance.

    Park et al., "Relational Knowledge Distillation", CVPR 2019, arXiv 1904.05068, equations 5 to 7; the mean distance
    is over pairs that are apart. `scaling`: "mean" over all B x B pairs, as its authors' code has it, which its weight
    of 25 is for; "sum": as equation 7 is printed, growing with B^2. Blind to rotation, shift and scale of either net.

    >>> f = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
    >>> rkd_distance(3 * f + 1, f).item() < 1e-9
    True
    """
    huber_BB = F.smooth_l1_loss(_relative_distances(fs_BD), _relative_distances(ft_BE), reduction="none")
    return scaled(scaling, {"mean": huber_BB.mean(), "sum": huber_BB.sum()})


@hint("hidden", pairs=True, paper="Park et al., CVPR 2019", scaling="mean over triples of the minibatch")
def rkd_angle(fs_BD: Tensor, ft_BE: Tensor, *, scaling: str = "mean") -> Tensor:
    """Huber loss (threshold 1) between the cosines of the angles that each three rows form.

    Park et al., CVPR 2019, arXiv 1904.05068, section 3.2.2. `scaling` as in `rkd_distance`, over B x B x B; the
    paper's weight is 50. Blind to rotation, shift and scale of either net.

    >>> f = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
    >>> rkd_angle(3 * f + 1, f).item() < 1e-9
    True
    """
    huber_BBB = F.smooth_l1_loss(_cosines(fs_BD), _cosines(ft_BE), reduction="none")
    return scaled(scaling, {"mean": huber_BBB.mean(), "sum": huber_BBB.sum()})


@hint("hidden", pairs=True, paper="Park et al., CVPR 2019", scaling="distance + 2 angle")
def rkd(fs_BD: Tensor, ft_BE: Tensor, *, distance: float = 1.0, angle: float = 2.0, scaling: str = "mean") -> Tensor:
    """`distance` times `rkd_distance` plus `angle` times `rkd_angle`: 1 to 2, as in Park et al., CVPR 2019 (25, 50).

    >>> f = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
    >>> rkd(f.flip(1), f).item() < 1e-9
    True
    """
    return distance * rkd_distance(fs_BD, ft_BE, scaling=scaling) + angle * rkd_angle(fs_BD, ft_BE, scaling=scaling)


@hint("hidden", pairs=True, paper="Tung and Mori, ICCV 2019", scaling="mean over pairs of the minibatch")
def similarity_preserving(fs_BD: Tensor, ft_BE: Tensor) -> Tensor:
    """1 / B^2 of the squared Frobenius distance of G_s and G_t, each row of G = F F^T being of length 1.

    Tung and Mori, "Similarity-Preserving Knowledge Distillation", ICCV 2019, arXiv 1907.09682 (its weight:
    3000). Blind to rotation and scale of either net.

    >>> f = torch.tensor([[1.0, 0.0], [1.0, 2.0]])
    >>> similarity_preserving(5 * f.flip(1), f).item() < 1e-9
    True
    """
    return (_similarities(fs_BD) - _similarities(ft_BE)).square().mean()


@hint("hidden", pairs=True, paper="Passalis and Tefas, ECCV 2018", scaling="mean over pairs of the minibatch")
def pkt(fs_BD: Tensor, ft_BE: Tensor, *, eps: float = 1e-7, scaling: str = "mean") -> Tensor:
    """Divergence of the two nets' conditional densities over rows: p_t log(p_t / p_s) over all pairs.

    Passalis and Tefas, "Learning Deep Representations with Probabilistic Knowledge Transfer", ECCV 2018, arXiv
    1803.10837: p(j | i) is (cosine(f_i, f_j) + 1) / 2 over its sum along j. `scaling`: "mean" over the
    B x B pairs, as its authors' code has it (with this `eps`, in the norms and the logarithm); "sum": as the equation
    is printed. Blind to rotation, and (up to eps) to the length of each row.

    >>> f = torch.tensor([[1.0, 0.0], [1.0, 2.0]])
    >>> abs(pkt(f.flip(1), f).item()) < 1e-7
    True
    """
    ps_BB, pt_BB = _densities(fs_BD, eps), _densities(ft_BE, eps)
    cost_BB = pt_BB * ((pt_BB + eps) / (ps_BB + eps)).log()
    return scaled(scaling, {"mean": cost_BB.mean(), "sum": cost_BB.sum()})


@hint("hidden", pairs=True, paper="Peng et al., ICCV 2019", scaling="mean over pairs of the minibatch")
def correlation_congruence(
    fs_BD: Tensor, ft_BE: Tensor, *, gamma: float = 0.4, order: int = 2, scaling: str = "kernel"
) -> Tensor:
    """1 / B^2 of the squared distance of the two nets' kernel matrices over rows.

    Peng et al., "Correlation Congruence for Knowledge Distillation", ICCV 2019, arXiv 1904.01802:
    k(x, y) = sum for p = 0 .. order of exp(-2 gamma) (2 gamma)^p / p! (x . y)^p, the Taylor series of a Gaussian kernel
    on directions. `scaling`: "kernel" (the paper); "neighbours": what RepDistiller has under this name, the mean over
    neighbouring rows of |fs - ft| . |fs' - ft'|, for equal widths. Blind to rotation and to the length of each row
    ("kernel").

    >>> f = torch.tensor([[1.0, 0.0], [1.0, 2.0]])
    >>> correlation_congruence(f.flip(1), f).item() < 1e-9
    True
    """
    if scaling == "neighbours":
        check_same_shape("correlation_congruence", fs_BD, ft_BE, 'use scaling = "kernel", which takes any widths')
        apart_BD = (fs_BD - ft_BE).abs().flatten(1)
        return (apart_BD[:-1] * apart_BD[1:]).sum() / max(apart_BD.shape[0] - 1, 1)
    apart_BB = _taylor_kernel(fs_BD, gamma, order) - _taylor_kernel(ft_BE, gamma, order)
    return scaled(scaling, {"kernel": apart_BB.square().mean()})


def _rows(f: Tensor) -> Tensor:
    if f.dim() < 2:
        raise ContractError(f"relations are between rows of features, not of shape {tuple(f.shape)}; give [B, D]")
    return f.flatten(1)


def _relative_distances(f: Tensor) -> Tensor:
    f_BD = _rows(f)
    distance_BB = distances(f_BD, f_BD)
    mean = distance_BB.sum() / (distance_BB > 0).sum().clamp_min(1)
    return distance_BB / torch.where(mean > 0, mean, torch.ones_like(mean))


def _cosines(f: Tensor) -> Tensor:
    f_BD = _rows(f)
    direction_BBD = unit(f_BD.unsqueeze(0) - f_BD.unsqueeze(1))
    return direction_BBD @ direction_BBD.transpose(1, 2)


def _similarities(f: Tensor) -> Tensor:
    f_BD = _rows(f)
    return unit(f_BD @ f_BD.T)


def _densities(f: Tensor, eps: float) -> Tensor:
    f_BD = _rows(f)
    direction_BD = f_BD / (f_BD.norm(dim=1, keepdim=True) + eps)
    near_BB: Tensor = (direction_BD @ direction_BD.T + 1) / 2
    return near_BB / near_BB.sum(1, keepdim=True)


def _taylor_kernel(f: Tensor, gamma: float, order: int) -> Tensor:
    direction_BD = unit(_rows(f))
    cosine_BB = direction_BD @ direction_BD.T
    kernel_BB = torch.zeros_like(cosine_BB)
    for power in range(order + 1):
        weight = math.exp(-2 * gamma) * (2 * gamma) ** power / math.factorial(power)
        kernel_BB = kernel_BB + weight * cosine_BB**power
    return kernel_BB
