"""What the light net learns from the booster, by name: one function a hint, in one table.

A hint takes two logits [B] and gives one cost a row [B]; the caller weighs the rows, detaches the booster and
multiplies by lambda.
"""

from collections.abc import Callable

from torch import Tensor

from contracts.errors import ContractError, did_you_mean
from model.hints.logits import bernoulli_kl, logit_mse

Hint = Callable[[Tensor, Tensor], Tensor]
HINTS: dict[str, Hint] = {hint.__name__: hint for hint in (logit_mse, bernoulli_kl)}


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
