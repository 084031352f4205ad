"""The co-training loss of Rocket Launching (Zhou et al., AAAI 2018, arXiv 1708.04106), for one logit.

    loss = label loss(light) + label loss(booster) + lambda * hint(light, booster)

Who feels what (a test holds the table; "block" is `rocket.gradient_block`, "updates" `rocket.light_updates_shared`):

    parameters                       label(light)   label(booster)   lambda * hint
    light's own: wide, bias, MLP     yes            no               yes
    embeddings that both read        with updates   yes              light's side with updates; booster's without block
    embeddings of a light alone      yes            no               yes
    booster's own: tower, rows       no             yes              without block
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from model.hints import Hint

#: Logits [B] and the net (0 light, 1 booster) to nats [B], before the rows' weights.
RowLoss = Callable[[Tensor, int], Tensor]


class Terms(NamedTuple):
    """The loss and its terms, each a weighted mean over the rows."""

    total: Tensor
    light: Tensor
    booster: Tensor | None
    hint: Tensor | None  #: before lambda


def label_loss(logit_B: Tensor, label_B: Tensor, weight_B: Tensor, shift_B: Tensor) -> Tensor:
    """Cross-entropy in nats: the sum of weighted rows over the number of rows.

    Divided by rows and not by the sum of weights, which would favour minibatches that happen to hold few heavy rows and
    so bias the click rate. The shift is the sampling correction: learnt with, predicted without.

    >>> zero, one = torch.zeros(2), torch.ones(2)
    >>> label_loss(zero, one, one, zero).item()
    0.693...
    """
    return (F.binary_cross_entropy_with_logits(logit_B + shift_B, label_B, reduction="none") * weight_B).mean()


def rocket_loss(
    light_B: Tensor,
    booster_B: Tensor | None,
    label_B: Tensor,
    weight_B: Tensor,
    shift_B: Tensor,
    *,
    hint: Hint,
    hint_weight: float,
    gradient_block: bool,
    row_loss: RowLoss | None = None,
) -> Terms:
    """Both nets learn the label; the light net also follows the booster.

    Args:
        light_B: logits, float32.
        booster_B: logits, float32; None trains the light net alone.
        label_B: 0 or 1.
        weight_B: what each row counts, in every term.
        shift_B: added to the logits in the label terms only.
        hint: a row of `model.hints.HINTS`.
        hint_weight: lambda now; 0 leaves the hint out of the loss (it is still reported).
        gradient_block: whether the booster is spared the hint's gradient (law 10).
        row_loss: in place of the cross-entropy, where labels come late (`model.delayed`).
    """

    def learnt(logit_B: Tensor, net: int) -> Tensor:
        if row_loss is None:
            return label_loss(logit_B, label_B, weight_B, shift_B)
        return (row_loss(logit_B, net) * weight_B).mean()

    light = learnt(light_B, 0)
    if booster_B is None:
        return Terms(light, light.detach(), None, None)
    booster = learnt(booster_B, 1)
    total = light + booster
    if hint_weight:
        distance = (hint(light_B, booster_B.detach() if gradient_block else booster_B) * weight_B).mean()
        total = total + hint_weight * distance
    else:
        with torch.no_grad():
            distance = (hint(light_B, booster_B) * weight_B).mean()
    return Terms(total, light.detach(), booster.detach(), distance.detach())
