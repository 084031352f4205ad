"""What a hint between hidden layers learns of its own: maps to the booster's widths, factors, or a discriminator.

A coach is trained beside the light net, saved and restored with the nets (its moments too), and never published.
Shapes: B rows, D columns of the light layer, E of the booster's.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from model.hints.factors import Paraphraser, Translator, factor_transfer, reconstruction
from model.hints.fitnet import Regressor
from model.hints.structured import Discriminator, adversarial, discriminator_loss, gradient_penalty

Loss = Callable[..., Tensor]
Widths = tuple[int, int]
_STEEP = 10.0  # what the gradient penalty weighs (Gulrajani et al. 2017)


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

    def __init__(self, loss: Loss, widths: Widths, generator: torch.Generator) -> None:
        super().__init__()
        self._loss = loss
        self.regress = Regressor(*widths, generator)

    def forward(self, light_BD: Tensor, booster_BE: Tensor) -> Tensor:
        """One cost a row, [B]."""
        return self._loss(self.regress(light_BD), booster_BE)


class FlowHint(nn.Module):
    """A hint on two layers of each net, such as `fsp`: of vectors, which are maps of one place.

    The flow matrix of a row is then the outer product of its two layers, [E, E']. A light layer of the booster's width
    is taken as it is (the paper's nets differ in depth alone); another goes through a `Regressor`.

    Args:
        loss: of two light layers, [B, E] and [B, E'], then two of the booster.
        widths: D and E of the lower layers, and of the upper ones.
        generator: draws the first weights.

    Example::

        >>> hint = FlowHint(lambda a, b, c, d: (a - c).sum(1), ((3, 3), (2, 4)), torch.Generator().manual_seed(1))
        >>> [name for name, _ in hint.named_parameters()]
        ['last.weight_ED', 'last.bias_E']
        >>> hint(torch.ones(5, 3), torch.ones(5, 2), torch.zeros(5, 3), torch.ones(5, 4)).tolist()
        [3.0, 3.0, 3.0, 3.0, 3.0]
    """

    def __init__(self, loss: Loss, widths: tuple[Widths, Widths], generator: torch.Generator) -> None:
        super().__init__()
        self._loss = loss
        self.first, self.last = (_to_width(*pair, generator) for pair in widths)

    def forward(self, first_BD: Tensor, last_BD: Tensor, first_BE: Tensor, last_BE: Tensor) -> Tensor:
        """One cost a row, [B]."""
        return self._loss(self.first(first_BD), self.last(last_BD), first_BE, last_BE)


class AdversarialHint(nn.Module):
    """The light layer is to be taken for the booster's by a discriminator that learns to tell them apart.

    Liu et al., CVPR 2019, arXiv 1903.04197, section 3.3, of hidden layers in place of score maps. Its value is
    `adversarial`, which moves the light net (and a `Regressor`, where the widths differ). In the same step
    `discriminator_loss` and ten times `gradient_penalty` move the discriminator, and nothing else: both nets' layers
    are detached there, and the discriminator is in `adversarial`. The penalty's points are drawn from torch's global
    generator.

    Args:
        widths: D and E.
        generator: draws the first weights.

    Example::

        >>> hint = AdversarialHint((2, 3), torch.Generator().manual_seed(1))
        >>> hint(torch.zeros(4, 2), torch.ones(4, 3)).tolist()
        [-0.0, -0.0, -0.0, -0.0]
    """

    def __init__(self, widths: Widths, generator: torch.Generator) -> None:
        super().__init__()
        self.regress = _to_width(*widths, generator)
        self.discriminate = Discriminator(widths[1], generator)

    def forward(self, light_BD: Tensor, booster_BE: Tensor) -> Tensor:
        """One cost a row, [B]."""
        student_BE, teacher_BE = self.regress(light_BD), booster_BE.detach()
        kept = {name: parameter.detach() for name, parameter in self.discriminate.named_parameters()}
        cost_B = adversarial(functional_call(self.discriminate, kept, (student_BE,)))
        if not torch.is_grad_enabled():  # told, not learnt
            return cost_B
        student_BE = student_BE.detach()
        own_B = discriminator_loss(self.discriminate(student_BE), self.discriminate(teacher_BE))
        share_B = torch.rand(len(teacher_BE), device=teacher_BE.device, dtype=teacher_BE.dtype)
        own_B = own_B + _STEEP * gradient_penalty(self.discriminate, student_BE, teacher_BE, share_B)
        return cost_B + (own_B - own_B.detach())


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
    """One such hint for each pair of layers, or for each two pairs.

    Args:
        make: a hint of these widths: D and E, or two of these.
        widths: of each.

    Example::

        >>> draw = torch.Generator().manual_seed(1)
        >>> coach = Coach(lambda widths: FactorHint(0, widths, draw), [(2, 3), (4, 4)])
        >>> coach.hints[1](torch.zeros(5, 4), torch.ones(5, 4)).shape
        torch.Size([5])
    """

    def __init__(self, make: Callable[[Any], nn.Module], widths: Sequence[Any]) -> None:
        super().__init__()
        self.hints = nn.ModuleList(make(pair) for pair in widths)

    @property
    def draws(self) -> bool:
        """Whether a step draws from torch's global generator."""
        return any(isinstance(hint, AdversarialHint) for hint in self.hints)


def _to_width(student: int, teacher: int, generator: torch.Generator) -> nn.Module:
    return nn.Identity() if student == teacher else Regressor(student, teacher, generator)
