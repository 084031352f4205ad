"""Hints on the one logit of a click. No softmax: each logit is its own."""

import torch.nn.functional as F
from torch import Tensor


def logit_mse(light_B: Tensor, booster_B: Tensor) -> Tensor:
    """Squared distance between the logits, one a row: the paper's hint (Zhou et al., AAAI 2018, arXiv 1708.04106).

    The paper sums over C classes where we have one logit, so its lambda of .03 at C = 10 is about .3 here. Gradient on
    the light logit: 2 (light - booster).

    >>> import torch
    >>> logit_mse(torch.tensor([1.0, 0.0]), torch.tensor([3.0, 0.0])).tolist()
    [4.0, 0.0]
    """
    return (light_B - booster_B).square()


def bernoulli_kl(light_B: Tensor, booster_B: Tensor) -> Tensor:
    """KL(booster || light) between the two click probabilities, in nats, one a row (Hinton et al. 2015 at T = 1).

    Gradient on the light logit: p_light - p_booster, so that one lambda weighs it as it weighs the label.

    >>> import torch
    >>> bernoulli_kl(torch.tensor([0.0]), torch.tensor([0.0])).tolist()
    [0.0]
    """
    target_B = booster_B.sigmoid()
    cross_B = F.binary_cross_entropy_with_logits(light_B, target_B, reduction="none")
    return cross_B - F.binary_cross_entropy_with_logits(booster_B, target_B, reduction="none")
