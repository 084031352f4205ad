"""Hints between two hidden layers of equal width H: what a light layer gives, [B, H], is drawn to a booster layer's.

Both take one cost a row, so that it depends neither on the size of the minibatch nor, as the squared distance is a mean
over columns, on the width; both are 0 where the layers agree and grow as they part, and both have a finite gradient
everywhere. In EasyRec and TorchEasyRec the Euclidean one is a root of the sum over the whole minibatch (it grows with
its size, and its gradient at 0 is NaN), and both enter the loss with a negative sign.
"""

from torch import Tensor

from contracts.declared_hints import hint
from model.hints.geometry import check_same_shape, scaled

_MEND = "take layers of equal width, or fitnet, which maps one to the other"


@hint("equal", paper="EasyRec and TorchEasyRec, mended", scaling="1 - cosine a row")
def cosine(light_BH: Tensor, booster_BH: Tensor) -> Tensor:
    """1 - cos of the angle between the two, one a row: 0 where they point the same way, whatever their lengths, to 2.

    A row of zeros has no direction: its cost is 1 and its gradient about 0.

    >>> import torch
    >>> cosine(torch.tensor([[1.0, 0.0], [0.0, 3.0], [-1.0, 0.0]]), torch.tensor([[2.0, 0.0]] * 3)).tolist()
    [0.0, 1.0, 2.0]
    """
    check_same_shape("cosine", light_BH, booster_BH, _MEND)
    return 1.0 - (_unit(light_BH) * _unit(booster_BH)).sum(1)


@hint("equal", paper="EasyRec and TorchEasyRec, mended", scaling="mean of squares a row")
def euclidean(light_BH: Tensor, booster_BH: Tensor, *, scaling: str = "mean") -> Tensor:
    """Squared Euclidean distance over the width, one a row.

    `scaling`: "mean" of the squares over columns; "sum" of them; or "norm", the distance itself (what TorchEasyRec
    takes of the whole minibatch at once), whose gradient is of one length however near the layers are, and 0 where
    they are one.

    >>> import torch
    >>> euclidean(torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[3.0, 2.0], [0.0, 0.0]])).tolist()
    [2.0, 0.0]
    """
    check_same_shape("euclidean", light_BH, booster_BH, _MEND)
    apart_BH = light_BH - booster_BH
    square_BH = apart_BH.square()
    return scaled(scaling, {"mean": square_BH.mean(1), "sum": square_BH.sum(1), "norm": apart_BH.norm(dim=1)})


def _unit(x_BH: Tensor) -> Tensor:
    # the root of a sum that cannot be 0: the gradient of a plain norm is NaN at the zeros that a ReLU likes to give
    return x_BH * (x_BH.square().sum(1, keepdim=True) + 1e-12).rsqrt()
