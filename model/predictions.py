"""What the nets said of some rows, as NumPy arrays."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

Floats = npt.NDArray[np.float64]


class Predictions(NamedTuple):
    """What the nets said of some rows, and after learning what it cost."""

    light: Floats  #: probabilities [rows]
    booster: Floats | None  #: probabilities [rows]; None when the light net trains alone
    light_logit: Floats
    booster_logit: Floats | None
    #: after `learn`: loss_light, loss_booster, hint and feature (before their lambdas; feature where there is a feature
    #: hint), hint_weight (lambda now), grad_norm_light, grad_norm_booster (of the towers); losses in nats a row
    terms: dict[str, float]
    skipped: bool = False  #: nothing was learnt of these rows, since their loss or its gradient was not finite


def predictions_of(
    light_B: Tensor, booster_B: Tensor | None, terms: dict[str, float], link: Literal["sigmoid", "odds"] = "sigmoid"
) -> Predictions:
    """Probabilities and logits in float64 from float32 logits on any device.

    Args:
        light_B: logits.
        booster_B: logits; None when the light net trains alone.
        terms: of the loss.
        link: how a logit becomes a probability (`contracts.sections.Labels.link`).

    >>> import torch
    >>> predictions_of(torch.zeros(1), None, {}).light.tolist()
    [0.5]
    >>> predictions_of(torch.tensor([0.0, -0.69314718]), None, {}, "odds").light.tolist()
    [1.0, 0.5]
    """
    light = light_B.detach().double().cpu()
    booster = None if booster_B is None else booster_B.detach().double().cpu()
    return Predictions(
        _chance(light, link),
        None if booster is None else _chance(booster, link),
        light.numpy(),
        None if booster is None else booster.numpy(),
        terms,
    )


def _chance(logit_B: Tensor, link: Literal["sigmoid", "odds"]) -> Floats:
    chance: Floats = (logit_B.sigmoid() if link == "sigmoid" else logit_B.clamp(max=0.0).exp()).numpy()
    return chance


def joined(parts: Sequence[Predictions]) -> Predictions:
    """Predictions of consecutive rows (at least one part) as those of all rows, without terms."""
    return Predictions(
        np.concatenate([part.light for part in parts]),
        _known([part.booster for part in parts]),
        np.concatenate([part.light_logit for part in parts]),
        _known([part.booster_logit for part in parts]),
        {},
    )


def _known(parts: Sequence[Floats | None]) -> Floats | None:
    known = [part for part in parts if part is not None]
    return np.concatenate(known) if known else None
