"""What the light net learns from the booster, by name: one function a hint, in one of two tables.

A hint takes what the light net says and what the booster says and gives one cost a row [B], or one for the whole
minibatch, a scalar, where it compares rows with each other; the caller weighs the rows, detaches the booster and
multiplies by lambda. In `HINTS` both are logits [B]; in `FEATURE_HINTS` hidden layers, [B, H] and [B, H'].
`contracts.model_checks` knows the same names, for the check of an app.
"""

from collections.abc import Callable

from torch import Tensor

from contracts.errors import ContractError, did_you_mean
from model.hints.features import cosine, euclidean
from model.hints.logits import bernoulli_kl, logit_mse

Hint = Callable[[Tensor, Tensor], Tensor]
HINTS: dict[str, Hint] = {hint.__name__: hint for hint in (logit_mse, bernoulli_kl)}
FEATURE_HINTS: dict[str, Hint] = {hint.__name__: hint for hint in (cosine, euclidean)}


def hint_named(name: str) -> Hint:
    """The hint that `rocket.hint` names.

    Raises:
        ContractError: there is none of that name.

    >>> hint_named("logit_mse").__name__
    'logit_mse'
    """
    if name not in HINTS:
        raise ContractError(f"[rocket] hint = '{name}': no such hint; {did_you_mean(name, HINTS)}")
    return HINTS[name]


def feature_hint_named(name: str) -> Hint | None:
    """The hint that `rocket.feature_hint` names; None: "none".

    Raises:
        ContractError: there is none of that name.

    >>> feature_hint_named("none") is None
    True
    """
    if name == "none":
        return None
    if name not in FEATURE_HINTS:
        known = [*FEATURE_HINTS, "none"]
        raise ContractError(f"[rocket] feature_hint = '{name}': no such hint; {did_you_mean(name, known)}")
    return FEATURE_HINTS[name]
