"""What the light net learns from the booster, by name; `model.hints.shelf` has every method, these are a click's.

A hint takes what the light net says and what the booster says and gives one cost a row [B], or one for the whole
minibatch, a scalar, where it compares rows with each other; the caller weighs the rows, detaches the booster and
multiplies by lambda. In `HINTS` both are logits [B]; in `FEATURE_HINTS` hidden layers, [B, H] and [B, H'] (or how both
nets' losses move with the embeddings), as far as nothing is learnt on the way: `feature_hints_of` has those too.
`contracts.hint_names` has the names without torch; `contracts.declared_hints` reads them above the functions.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from contracts.errors import ContractError
from contracts.hint_names import hint_names, hint_trouble, usable
from contracts.model_checks import NO_BOOSTER, hidden_widths
from contracts.nets import Model, Rocket
from model.hints.coach import AdversarialHint, Coach, FactorHint, FlowHint, MappedHint
from model.hints.shelf import METHODS

Hint = Callable[..., Tensor]  #: of what the light net says, then what the booster says; two layers of each: `fsp`
ToldHint = Callable[[Tensor, Tensor, Tensor], Tensor]  #: of both logits and the label, [B] each
HINTS: dict[str, Hint] = {name: METHODS[name].fixed() for name, row in usable("hint").items() if row.takes == "logit"}
FEATURE_HINTS: dict[str, Hint] = {
    name: METHODS[name].fixed() for name, row in usable("feature_hint").items() if not row.learns
}


def hint_of(rocket: Rocket) -> ToldHint:
    """The hint that `rocket.hint` names, with its settings; the label is for those that ask for it.

    Raises:
        ContractError: there is none of that name, or it has no meaning for a click.

    >>> hint = hint_of(Rocket(hint="bounded_click"))
    >>> hint(torch.tensor([2.0, 2.0]), torch.tensor([1.0, 3.0]), torch.ones(2)).count_nonzero().item()
    1
    """
    _check(rocket.hint, "hint")
    loss = METHODS[rocket.hint].fixed(**_options(rocket.hint, rocket))
    if hint_names()[rocket.hint].takes == "logit, label":
        return loss

    def untold(light_B: Tensor, booster_B: Tensor, label_B: Tensor) -> Tensor:
        del label_B  # of no use to it
        return loss(light_B, booster_B)

    return untold


def make_coach(model: Model, rocket: Rocket, seed: int) -> Coach | None:
    """What `rocket.feature_hint` learns of its own; None where that is nothing.

    Args:
        model: whose layers `rocket.feature_layers` names.
        rocket: the hint and its settings.
        seed: draws the first weights.
    """
    row = hint_names().get(rocket.feature_hint)
    boosters = hidden_widths(model.booster, model.embedding_dim)
    if row is None or not row.learns or model.booster.kind == NO_BOOSTER or boosters is None:
        return None
    draw = torch.Generator().manual_seed(seed)
    widths = [(model.light.layers[i], boosters[j]) for i, j in rocket.feature_layers]
    loss = METHODS[rocket.feature_hint].fixed(**_options(rocket.feature_hint, rocket))
    if row.span == 2:
        return Coach(partial(FlowHint, loss, generator=draw), [*pairwise(widths)])
    makers: dict[str, Callable[..., torch.nn.Module]] = {
        "factors": partial(FactorHint, rocket.factor_rows),
        "discriminator": AdversarialHint,
        "regressor": partial(MappedHint, loss),
    }
    return Coach(partial(makers[row.learns], generator=draw), widths)


def feature_hints_of(rocket: Rocket, coach: Coach | None) -> Sequence[Hint] | None:
    """The hint that `rocket.feature_hint` names, with its settings, for each cost that it tells; None: "none".

    Raises:
        ContractError: there is none of that name, or it has no meaning for the nets of an app.
    """
    name = rocket.feature_hint
    _check(name, "feature_hint")
    if name == "none":
        return None
    if coach is not None:
        return [*coach.hints]
    hint = METHODS[name].fixed()
    if hint_names()[name].pairs:
        hint = partial(_of_some, hint, rocket.relation_rows)
    return [hint] * (1 if hint_names()[name].takes == "gradients" else len(rocket.feature_layers))


def _of_some(hint: Hint, most: int, light_BD: Tensor, booster_BE: Tensor) -> Tensor:
    """A hint of at most so many rows, evenly spread: which, hangs on the number of rows alone."""
    rows = light_BD.shape[0]
    if rows <= most:
        return hint(light_BD, booster_BE)
    some = torch.arange(most, device=light_BD.device) * rows // most
    return hint(light_BD[some], booster_BE[some])


def _options(name: str, rocket: Rocket) -> dict[str, Any]:
    margin = {} if rocket.hint_margin is None else {"margin": rocket.hint_margin}
    options: dict[str, dict[str, Any]] = {
        "bernoulli_kd": {"temperature": rocket.hint_temperature},
        "bounded_click": margin,
        "activation_boundaries": margin,
    }
    return options.get(name, {})


def _check(name: str, setting: str) -> None:
    told = hint_trouble(name, setting)
    if told is not None:
        raise ContractError(f"[rocket] {setting} = '{name}': {told}")
