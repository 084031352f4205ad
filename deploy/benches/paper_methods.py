"""The ways of the paper to train a light net, as rows of one table, and the step that they share.

Every term comes from the functions that train a CTR net: `model.losses.rocket_loss` and `model.hints`. Scalings are
those of the authors' code: the hint is summed over classes and weighs .03; KD at T = 4 weighs 2 x .9 / C beside
a tenth of the label (beside all of it in rocket + KD); attention weighs 1000 on means over the pixels of maps that
begin at 32 x 32. Maps have length 1, so that a mean over fewer pixels is as much larger: for smaller images it weighs
less by their share of these pixels.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from model.hints import Hint
from model.hints.attention import attention_transfer
from model.hints.classes import class_logit_mse, kd, softmax_mse
from model.losses import class_loss, rocket_loss
from model.vision.wrn import Seen

_HINT, _ALPHA, _ATTENTION = 0.03, 0.9, 1000.0
_PIXELS = 32 * 32  # of the images that 1000 is for
_old_kd = partial(kd, temperature=4.0, scaling="elements")


@dataclass(frozen=True, slots=True)
class Method:
    """One way; the fields say what the light net's loss is made of and who trains with it."""

    hint: Hint | None = None  #: rocket_loss's, on the booster's logits
    hint_weight: float = 0.0
    joint: bool = False  #: the booster trains with the light net; else it was trained before and is frozen
    shared: bool = False  #: both run through the same convolutions; needs `joint`
    block: bool = True  #: the booster feels nothing of the hint
    label_weight: float = 1.0
    kd_weight: float = 0.0  #: of KD from the frozen booster
    attention_weight: float = 0.0  #: of attention transfer from the frozen booster, on images of 32 x 32

    @property
    def teacher(self) -> bool:
        """Whether a booster that was trained before takes part."""
        return bool(self.kd_weight or self.attention_weight or (self.hint is not None and not self.joint))


_ROCKET = partial(Method, class_logit_mse, _HINT, joint=True, shared=True)
METHODS: dict[str, Method] = {
    "base": Method(),
    "AT": Method(attention_weight=_ATTENTION),
    "KD": Method(label_weight=1 - _ALPHA, kd_weight=2 * _ALPHA),
    "rocket": _ROCKET(),
    "rocket+KD": _ROCKET(kd_weight=2 * _ALPHA),
    "no gradient block": _ROCKET(block=False),
    "no sharing": _ROCKET(shared=False),
    "no joint training": Method(class_logit_mse, _HINT),
    "softmax MSE": Method(softmax_mse, 1.0, joint=True, shared=True),
    "KD as the hint": Method(_old_kd, 2 * _ALPHA, joint=True, shared=True),
}


def loss_of(method: Method, light: Seen, booster: Seen | None, teacher: Seen | None, class_B: Tensor) -> Tensor:
    """What a step descends.

    Args:
        method: a row of `METHODS`.
        light: with gradients.
        booster: that trains along, with gradients; None unless the method is joint.
        teacher: a frozen booster's, without gradients; None unless the method has one.
        class_B: the labels.
    """
    learnt = class_loss(class_B)

    def row_loss(logit_BC: Tensor, net: int) -> Tensor:
        return learnt(logit_BC, net) if method.label_weight == 1.0 else method.label_weight * learnt(logit_BC, net)

    guide = booster if method.joint else teacher if method.hint is not None else None
    nothing_B = torch.zeros_like(class_B, dtype=torch.float32)
    total = rocket_loss(
        light.logit_BC,
        None if guide is None else guide.logit_BC,
        nothing_B,
        nothing_B + 1.0,
        nothing_B,
        hint=method.hint or class_logit_mse,
        hint_weight=method.hint_weight,
        gradient_block=method.block,
        row_loss=row_loss,
    ).total
    if method.kd_weight and teacher is not None:
        total = total + method.kd_weight * _old_kd(light.logit_BC, teacher.logit_BC).mean()
    if method.attention_weight and teacher is not None:
        pairs = zip(light.maps, teacher.maps, strict=False)  # a light net of fewer groups is compared on those it has
        apart = torch.stack([attention_transfer(mine, theirs, scaling="mean").mean() for mine, theirs in pairs])
        total = total + method.attention_weight * light.maps[0][0, 0].numel() / _PIXELS * apart.sum()
    return total
