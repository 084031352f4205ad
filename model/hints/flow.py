"""FSP: how a net gets from one layer to a later one. Shapes: B rows, C and D channels, H x W places."""

import torch
from torch import Tensor
from torch.nn.functional import adaptive_max_pool2d

from contracts.declared_hints import hint
from model.hints.geometry import check_dims, check_same_shape, scaled


def flow_matrix(first: Tensor, last: Tensor) -> Tensor:
    """1 / (H W) of the sum over places of first_c last_d: [B, C, D]. Vectors [B, C] are maps of one place.

    Where the maps differ in size the larger is max-pooled to the smaller, as in the paper.

    >>> flow_matrix(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0]])).tolist()
    [[[3.0], [6.0]]]
    """
    check_dims("fsp", (2, 4), first, last)
    first, last = (f if f.dim() == 4 else f[:, :, None, None] for f in (first, last))
    height, width = (min(first.shape[dim], last.shape[dim]) for dim in (2, 3))
    first, last = (
        f if f.shape[2:] == (height, width) else adaptive_max_pool2d(f, (height, width)) for f in (first, last)
    )
    return torch.einsum("bchw,bdhw->bcd", first, last) / (height * width)


@hint("layers", learns="regressor", paper="Yim et al., CVPR 2017", scaling="squared Frobenius norm a row")
def fsp(first_s: Tensor, last_s: Tensor, first_t: Tensor, last_t: Tensor, *, scaling: str = "sum") -> Tensor:
    """||G_t - G_s||^2 between the flow matrices of two layers of each net, one cost a row.

    Yim et al., "A Gift from Knowledge Distillation: Fast Optimization, Network Minimization and Transfer Learning",
    CVPR 2017, equations 1 and 2, where it is the first of two stages. Both nets need the same widths at both layers,
    but may differ in depth. `scaling`: "sum" over C x D (the paper), or "mean" (RepDistiller's, whose weight is 50).

    >>> f = torch.tensor([[1.0, 2.0]])
    >>> fsp(f, f, f, 2 * f).tolist()
    [25.0]
    """
    gs_BCD, gt_BCD = flow_matrix(first_s, last_s), flow_matrix(first_t, last_t)
    check_same_shape("fsp", gs_BCD, gt_BCD, "choose layers that have the same widths in both nets")
    square_BX = (gs_BCD - gt_BCD).square().flatten(1)
    return scaled(scaling, {"sum": square_BX.sum(1), "mean": square_BX.mean(1)})
