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
    at = f"{path}, line {line_of(path, ('model', 'booster'))}, [model.booster] kind = '{booster.kind}'"
    if ":" not in booster.kind and booster.kind not in {*BOOSTERS, NO_BOOSTER}:
        raise ContractError(
            f"{at}: no such booster; {did_you_mean(booster.kind, [*BOOSTERS, NO_BOOSTER])}; "
            'a net of your own is named "module:Class"'
        )
    if booster.kind == "din" and not any(feature.output == "ids" for feature in features):
        raise ContractError(
            f"{at}: it attends over a sequence feature, and the app has none; add a feature of kind sequence or "
            "recent, or take another booster, such as dcn_v2"
        )
    if (width := _fused(booster)) and width % booster.attention_heads:
        raise ContractError(
            f"{at}: {booster.attention_heads} attention_heads do not divide the last layer's {width} columns; choose a "
            "divisor"
        )


def _fused(booster: Booster) -> int:
    """The columns that FinalMLP cuts into heads; 0 where nothing is cut."""
    return booster.hidden[-1] if booster.kind == "finalmlp" and booster.hidden else 0
