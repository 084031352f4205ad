"""What stands between two layers, by name."""

import torch
from torch import Tensor, nn

from contracts.nets import Activation


class Dice(nn.Module):
    """x * (p + a * (1 - p)) with p = sigmoid of x, standardised over the minibatch; a is learnt.

    Zhou et al., "Deep Interest Network for Click-Through Rate Prediction", KDD 2018, arXiv 1706.06978, section 5.3.
    When it predicts, running moments take the minibatch's place.

    Example::

        >>> Dice(2)(torch.zeros(3, 2)).shape
        torch.Size([3, 2])
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.standardise = nn.BatchNorm1d(width, eps=1e-8, affine=False)
        self.alpha = nn.Parameter(torch.zeros(width))

    def forward(self, x_BH: Tensor) -> Tensor:
        """[B, H] to [B, H]."""
        p_BH: Tensor = self.standardise(x_BH).sigmoid()
        return x_BH * (p_BH + self.alpha * (1 - p_BH))


def activation(name: Activation, width: int) -> nn.Module:
    """A new activation of H = `width` columns.

    >>> activation("relu", 4)
    ReLU()
    """
    if name == "dice":
        return Dice(width)
    if name == "prelu":
        return nn.PReLU(width)
    made: nn.Module = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU}[name]()
    return made
