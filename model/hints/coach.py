"""What a hint between hidden layers learns of its own: a map to the booster's width, or factors.

A coach is trained beside the light net, saved and restored with the nets, and never published. Shapes: B rows, D
columns of the light layer, E of the booster's.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from model.hints.factors import Paraphraser, Translator, factor_transfer, reconstruction
from model.hints.fitnet import Regressor

Loss = Callable[[Tensor, Tensor], Tensor]


class MappedHint(nn.Module):
    """A hint that compares element by element, on the light layer as a `Regressor` maps it to the booster's width.

    Args:
        loss: such as `fitnet`, of [B, E] and [B, E].
        widths: D and E.
        generator: draws the first weights.

    Example::

        >>> hint = MappedHint(lambda s, t: (s - t).abs().sum(1), (2, 3), torch.Generator().manual_seed(1))
        >>> hint(torch.zeros(4, 2), torch.ones(4, 3)).tolist()
        [3.0, 3.0, 3.0, 3.0]
    """

    def __init__(self, loss: Loss, widths: tuple[int, int], generator: torch.Generator) -> None:
        super().__init__()
        self._loss = loss
        self.regress = Regressor(*widths, generator)

    def forward(self, light_BD: Tensor, booster_BE: Tensor) -> Tensor:
        """One cost a row, [B]."""
        return self._loss(self.regress(light_BD), booster_BE)


class FactorHint(nn.Module):
    """Factor transfer in one pass: the paraphraser learns to restore first, then it is left alone and teaches.

    Until `rows` rows have been learnt with the hint on, the cost is `reconstruction`, which moves the paraphraser only;
    from then on it is `factor_transfer`, which moves the translator and the light net. The count is a buffer: it is
    saved, and the change comes at the same row wherever training was interrupted.

    Args:
        rows: that the paraphraser learns from.
        widths: D and E.
        generator: draws the first weights.

    Example::

        >>> hint = FactorHint(4, (2, 3), torch.Generator().manual_seed(1))
        >>> light = torch.ones(4, 2, requires_grad=True)
        >>> costs = [hint(light, torch.ones(4, 3)).sum() for _ in range(2)]
        >>> [torch.autograd.grad(cost, light, allow_unused=True)[0] is None for cost in costs]
        [True, False]
    """

    seen: Tensor

    def __init__(self, rows: int, widths: tuple[int, int], generator: torch.Generator) -> None:
        super().__init__()
        self._rows = rows
        self.paraphrase = Paraphraser(widths[1], generator)
        self.translate = Translator(widths[0], self.paraphrase.factors, generator)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, light_BD: Tensor, booster_BE: Tensor) -> Tensor:
        """One cost a row, [B]."""
        early = int(self.seen) < self._rows
        if torch.is_grad_enabled():  # learnt, not only told
            self.seen += light_BD.shape[0]
        if early:
            target_BE = booster_BE.detach()
            return reconstruction(self.paraphrase.back(self.paraphrase(target_BE)), target_BE)
        kept = {name: parameter.detach() for name, parameter in self.paraphrase.named_parameters()}
        factor_BK: Tensor = functional_call(self.paraphrase, kept, (booster_BE,))
        return factor_transfer(self.translate(light_BD), factor_BK)


class Coach(nn.Module):
    """One such hint for each pair of layers.

    Args:
        make: a hint of these widths, D and E.
        widths: of each pair.

    Example::

        >>> draw = torch.Generator().manual_seed(1)
        >>> coach = Coach(lambda widths: FactorHint(0, widths, draw), [(2, 3), (4, 4)])
        >>> coach.hints[1](torch.zeros(5, 4), torch.ones(5, 4)).shape
        torch.Size([5])
    """

    def __init__(self, make: Callable[[tuple[int, int]], nn.Module], widths: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self.hints = nn.ModuleList(make(pair) for pair in widths)
