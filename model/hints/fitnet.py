"""FitNets: the student's hidden layer, through a regressor, is told the teacher's. Shapes: B rows, D and E columns."""

import torch
from torch import Tensor, nn

from contracts.declared_hints import hint
from model.hints.geometry import check_same_shape, scaled


class Regressor(nn.Module):
    """The student's hidden layer in the teacher's width: a linear map, or a 1 x 1 convolution of maps.

    Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR 2015, arXiv 1412.6550, section 2.2 (a fully connected or
    convolutional regressor). It is trained with the student, and thrown away.

    Args:
        student: D, columns or channels of the student's layer.
        teacher: E, those of the teacher's.
        generator: draws the first weights.

    Example::

        >>> regress = Regressor(2, 3, torch.Generator().manual_seed(1))
        >>> regress(torch.zeros(5, 2)).shape, regress(torch.zeros(5, 2, 4, 4)).shape
        (torch.Size([5, 3]), torch.Size([5, 3, 4, 4]))
    """

    def __init__(self, student: int, teacher: int, generator: torch.Generator) -> None:
        super().__init__()
        bound = (3 / max(student, 1)) ** 0.5  # as wide as its input: an identity in the mean
        self.weight_ED = nn.Parameter(torch.empty(teacher, student).uniform_(-bound, bound, generator=generator))
        self.bias_E = nn.Parameter(torch.zeros(teacher))

    def forward(self, fs: Tensor) -> Tensor:
        """[B, D] to [B, E], or [B, D, H, W] to [B, E, H, W]."""
        if fs.dim() == 2:
            return nn.functional.linear(fs, self.weight_ED, self.bias_E)
        return nn.functional.conv2d(fs, self.weight_ED[:, :, None, None], self.bias_E)


@hint("equal", learns="regressor", paper="Romero et al., ICLR 2015", scaling="half the squared norm a row")
def fitnet(fs: Tensor, ft: Tensor, *, scaling: str = "half") -> Tensor:
    """1/2 ||ft - fs||^2, fs being what the regressor makes of the student's layer, one cost a row.

    Romero et al., ICLR 2015, arXiv 1412.6550, equation 3, where it is the first of two stages (the second is KD); here
    it may as well be one term of a single stage. `scaling`: "half" the squared norm (the paper), or "mean" over the
    elements of a row (most codes). Gradient at "half": fs - ft.

    >>> fitnet(torch.zeros(1, 2), torch.tensor([[1.0, 3.0]])).tolist()
    [5.0]
    """
    check_same_shape("fitnet", fs, ft, "put a Regressor on the student's")
    square = (fs - ft).square().flatten(1)
    return scaled(scaling, {"half": square.sum(1) / 2, "mean": square.mean(1)})
