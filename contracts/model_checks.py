"""Whether an app's nets can be made, without making them: `rocket check` has no torch."""

from pathlib import Path

from contracts.app_errors import line_of
from contracts.errors import ContractError, did_you_mean
from contracts.features import Feature
from contracts.sections import Booster, Model

#: The boosters that are built in; `model.boosters` says where each of them is.
BOOSTERS = ("autoint", "dcn_v2", "deepfm", "din", "fibinet", "finalmlp", "masknet", "mlp", "wdl")
NO_BOOSTER = "none"


def check_model(path: Path, model: Model, features: tuple[Feature, ...]) -> None:
    """The booster is known and finds what it needs.

    Raises:
        ContractError: naming the line, the setting and the mend.
    """
    booster = model.booster
    told = trouble(booster, sequences=any(feature.output == "ids" for feature in features))
    if told is not None and booster.kind != NO_BOOSTER:
        at = f"{path}, line {line_of(path, ('model', 'booster'))}"
        raise ContractError(f"{at}, [model.booster] kind = '{booster.kind}': {told}")


def trouble(booster: Booster, *, sequences: bool, inputs: int = 0) -> str | None:
    """Why a booster cannot be made, and the mend; None where it can.

    Args:
        booster: its settings.
        sequences: whether there is a sequence feature.
        inputs: columns of its input, where they are known.

    >>> trouble(Booster(kind="din"), sequences=True), trouble(Booster(kind="din"), sequences=False)[:37]
    (None, 'it attends over a sequence feature, a')
    """
    if ":" not in booster.kind and booster.kind not in BOOSTERS:
        return (
            f"no such booster; {did_you_mean(booster.kind, [*BOOSTERS, NO_BOOSTER])}; "
            'a net of your own is named "module:Class"'
        )
    if booster.kind == "din" and not sequences:
        return (
            "it attends over a sequence feature, and the app has none; add a feature of kind sequence or recent, or "
            "take another booster, such as dcn_v2"
        )
    fused = booster.hidden[-1] if booster.hidden else inputs
    if booster.kind == "finalmlp" and fused % booster.attention_heads:
        heads = booster.attention_heads
        return f"{heads} attention_heads do not divide the last layer's {fused} columns; choose a divisor"
    return None
