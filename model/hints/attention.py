"""Attention transfer: where a net looks. Shapes: B rows, C and E channels, H x W places, X inputs."""

import torch
from torch import Tensor

from contracts.declared_hints import hint
from model.hints.geometry import check_dims, check_same_shape, scaled, unit


def attention_map(f_BCHW: Tensor, *, power: int = 2) -> Tensor:
    """The sum over channels of |f|^power at each place, over its length: [B, H * W].

    >>> attention_map(torch.tensor([3.0, 4.0]).sqrt().view(1, 1, 1, 2)).tolist()
    [[0.6, 0.8]]
    """
    check_dims("attention transfer", (4,), f_BCHW)
    return unit(f_BCHW.abs().pow(power).sum(1).flatten(1))


@hint(
    "maps",
    instead="nst_polynomial",
    paper="Zagoruyko and Komodakis, ICLR 2017",
    scaling="norm a row",
    variants={"attention_transfer": {"power": 2}, "attention_transfer_p1": {"power": 1}},
)
def attention_transfer(
    fs_BCHW: Tensor, ft_BEHW: Tensor, *, power: int = 2, norm: int = 2, scaling: str = "norm"
) -> Tensor:
    """||Q_s - Q_t||_norm between the attention maps, one cost a row; the nets may have other numbers of channels.

    Zagoruyko and Komodakis, "Paying More Attention to Attention", ICLR 2017, arXiv 1612.03928, equation 2, Q = the sum
    over channels of |f|^power with power 1 or 2, of Euclidean length 1; `norm` is the equation's p (2 in the paper's
    experiments). Its total loss adds beta / 2 of it for each pair of layers. `scaling`: "norm" (the paper's equation),
    or "mean" of the squared differences over places (the authors' code, whose beta is 1000). Blind to the
    order of channels and to scale. At "norm" the gradient is of one length however near the maps are, and 0 where they
    are one.

    >>> f = torch.tensor([[1.0, 2.0], [2.0, 1.0]]).view(1, 2, 1, 2)
    >>> attention_transfer(5 * f.flip(1), f).tolist()
    [0.0]
    """
    qs_BP, qt_BP = attention_map(fs_BCHW, power=power), attention_map(ft_BEHW, power=power)
    check_same_shape("attention_transfer", qs_BP, qt_BP, "resize the larger map to the smaller's H x W")
    apart_BP = qs_BP - qt_BP
    return scaled(scaling, {"norm": apart_BP.norm(norm, dim=1), "mean": apart_BP.square().mean(1)})


def input_gradient(cost: Tensor, inputs: Tensor) -> Tensor:
    """How a net's loss moves with its inputs, as a part of the graph: a hint on it can be learnt from.

    Args:
        cost: the loss, of any shape; it is summed.
        inputs: what it was computed from, with `requires_grad`.

    >>> x = torch.tensor([1.0, 3.0], requires_grad=True)
    >>> input_gradient(x.square(), x).tolist()
    [2.0, 6.0]
    """
    (gradient,) = torch.autograd.grad(cost.sum(), inputs, create_graph=True)
    return gradient


@hint("gradients", paper="Zagoruyko and Komodakis, ICLR 2017", scaling="norm a row")
def gradient_attention(gs: Tensor, gt: Tensor, *, scaling: str = "norm") -> Tensor:
    """||J_s - J_t||_2 with J a net's `input_gradient`, one cost a row; both nets read the same inputs.

    Zagoruyko and Komodakis, ICLR 2017, arXiv 1612.03928, section 3.2; its total loss adds beta / 2 of it. To learn from
    it is to differentiate twice: a ReLU net's second derivative is that of its linear pieces. `scaling`: "norm" (the
    paper), or "square", its square (the lecture's form).

    >>> gradient_attention(torch.zeros(1, 2), torch.tensor([[3.0, 4.0]])).tolist()
    [5.0]
    """
    check_same_shape("gradient_attention", gs, gt, "give both nets the same inputs")
    apart_BX = (gs - gt).flatten(1)
    return scaled(scaling, {"norm": apart_BX.norm(dim=1), "square": apart_BX.square().sum(1)})
