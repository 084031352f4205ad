"""Factor transfer: the teacher's layer is compressed to factors, which the student's translator reproduces.

Kim et al., "Paraphrasing Complex Network: Network Compression via Factor Transfer", NeurIPS 2018, arXiv 1802.04977. The
paraphraser, an autoencoder of the teacher's layer, is trained first, by `reconstruction`, and then left alone; the
student and its translator are trained with `factor_transfer`. Shapes: B rows, M columns or channels of the teacher, K
of a factor. The paper's convolutions with batch normalisation are here single maps (1 x 1 of maps) without it: a
statistic of a minibatch would make a row's factor depend on its neighbours.
"""

import torch
from torch import Tensor, nn

from contracts.declared_hints import hint
from model.hints.fitnet import Regressor
from model.hints.geometry import check_same_shape, scaled, unit

_SLOPE = 0.1  # of the leaky ReLU, as the paper's


class Paraphraser(nn.Module):
    """M columns to K = rate * M, and back.

    Args:
        columns: M.
        generator: draws the first weights.
        rate: the paraphrase rate k; .5 is the paper's for most nets.

    Example::

        >>> paraphrase = Paraphraser(4, torch.Generator().manual_seed(1))
        >>> factor = paraphrase(torch.ones(3, 4))
        >>> factor.shape, paraphrase.back(factor).shape
        (torch.Size([3, 2]), torch.Size([3, 4]))
    """

    def __init__(self, columns: int, generator: torch.Generator, rate: float = 0.5) -> None:
        super().__init__()
        self.factors = max(1, round(columns * rate))  #: K
        self.shrink = Regressor(columns, self.factors, generator)
        self.expand = Regressor(self.factors, columns, generator)

    def forward(self, ft: Tensor) -> Tensor:
        """The teacher's factor, [B, K] or [B, K, H, W]."""
        return nn.functional.leaky_relu(self.shrink(ft), _SLOPE)

    def back(self, factor: Tensor) -> Tensor:
        """The teacher's layer again, as far as the factor holds it."""
        restored: Tensor = self.expand(factor)
        return restored


class Translator(nn.Module):
    """The student's layer to a factor of K columns.

    Args:
        columns: D, of the student's layer.
        factors: K, `Paraphraser.factors`.
        generator: draws the first weights.

    Example::

        >>> Translator(3, 2, torch.Generator().manual_seed(1))(torch.ones(5, 3)).shape
        torch.Size([5, 2])
    """

    def __init__(self, columns: int, factors: int, generator: torch.Generator) -> None:
        super().__init__()
        self.translate = Regressor(columns, factors, generator)

    def forward(self, fs: Tensor) -> Tensor:
        """[B, D] to [B, K], or [B, D, H, W] to [B, K, H, W]."""
        return nn.functional.leaky_relu(self.translate(fs), _SLOPE)


@hint(
    "equal",
    instead="factor_transfer",
    because="it is what factor_transfer's paraphraser learns from, not a hint of its own",
    paper="Kim et al., NeurIPS 2018",
    scaling="squared norm a row",
)
def reconstruction(restored: Tensor, ft: Tensor) -> Tensor:
    """||restored - ft||^2, one cost a row: what the paraphraser learns from, before it teaches (section 3.1).

    >>> reconstruction(torch.zeros(1, 2), torch.tensor([[1.0, 3.0]])).tolist()
    [10.0]
    """
    check_same_shape("reconstruction", restored, ft, "restore with Paraphraser.back")
    return (restored - ft).square().flatten(1).sum(1)


@hint("equal", learns="factors", paper="Kim et al., NeurIPS 2018", scaling="norm a row, p = 1")
def factor_transfer(factor_s: Tensor, factor_t: Tensor, *, power: int = 1, scaling: str = "norm") -> Tensor:
    """||n(factor_t) - n(factor_s)||_p, one cost a row; n divides a row's whole factor by its length.

    Kim et al., NeurIPS 2018, section 3.2: p = 1 (its best) or 2. `scaling`: "norm" (the paper; its gradient is 0 where
    the factors are one), "sum" over the elements of the p-th powers (the same at p = 1), or "mean" of these
    (RepDistiller's, whose weight is 200). Blind to the scale of either factor.

    >>> factor_transfer(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 3.0]])).tolist()
    [2.0]
    """
    check_same_shape("factor_transfer", factor_s, factor_t, "make the Translator with factors = Paraphraser.factors")
    apart = unit(factor_s.flatten(1)) - unit(factor_t.flatten(1))
    powers = apart.abs() ** power
    return scaled(scaling, {"norm": apart.norm(power, dim=1), "sum": powers.sum(1), "mean": powers.mean(1)})
