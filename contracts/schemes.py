"""The schemes of training by name: what each asks of an app. No torch: `rocket check`. `model.schemes` has the nets."""

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from contracts.app_errors import line_of
from contracts.errors import ContractError
from contracts.features import Feature
from contracts.hint_names import asks_hidden
from contracts.nets import Model, Rocket, Scheme

#: The booster of the app learns beside the light net; in all others `[model.booster]` trains nothing.
WITH_BOOSTER = ("rocket", "mutual", "rocket_kd")
#: A booster leads, or does not: the gate asks. Elsewhere the gate has no say.
LED = ("rocket", "offline", "rocket_kd")
#: A net that stands still teaches.
FROM_CHECKPOINT = ("offline", "rocket_kd", "born_again")
SCHEMES: tuple[Scheme, ...] = get_args(Scheme)


def check_scheme(path: Path, model: Model, rocket: Rocket, features: Sequence[Feature]) -> None:
    """The scheme finds what it needs.

    Raises:
        ContractError: naming the line, the setting and the mend.
    """
    dynamic = any(feature.dynamic is not None for feature in features)
    told = scheme_trouble(model, rocket, dynamic=dynamic)
    if told is not None:
        line = line_of(path, ("rocket", "scheme"))
        raise ContractError(f'{path}, {f"line {line}, " if line else ""}[rocket] scheme = "{rocket.scheme}": {told}')


def scheme_trouble(model: Model, rocket: Rocket, *, dynamic: bool = False) -> str | None:
    """Why an app cannot be trained by its scheme, and the mend; None where it can.

    Args:
        model: its nets.
        rocket: names the scheme.
        dynamic: whether ids of some feature own their rows.

    >>> scheme_trouble(Model(), Rocket(scheme="mutual", gradient_block=True))[:49]
    'both nets follow each other by definition, and gr'
    """
    scheme = rocket.scheme
    if model.booster.kind == "none" and scheme in {"mutual", "rocket_kd", "offline"}:
        return 'it needs a booster, and model.booster.kind is "none"; name one, or take scheme = "own_teacher"'
    if scheme == "mutual" and rocket.gradient_block and "gradient_block" in rocket.model_fields_set:
        return (
            "both nets follow each other by definition, and gradient_block = true would stop one; leave gradient_block "
            'out, or take scheme = "rocket"'
        )
    if scheme in {"offline", "rocket_kd"} and rocket.teacher is None:
        return 'it has no teacher; set teacher = "DIR", the folder of a run of this app that trained the booster'
    if rocket.teacher is not None and scheme not in FROM_CHECKPOINT:
        return 'no teacher from a checkpoint takes part in it; leave teacher out, or take scheme = "offline"'
    if scheme in FROM_CHECKPOINT and dynamic:
        return (
            "its teacher keeps rows of its own, and ids that own their rows may have others by now; give these "
            'features buckets in place of dynamic, or take scheme = "rocket"'
        )
    if scheme in {"own_teacher", "net_aug", "one"} and not model.light.layers:
        return "it works on the light net's hidden layers, and there are none; set [model.light] deep and hidden"
    if rocket.feature_hint != "none" and scheme not in {*WITH_BOOSTER, "offline"}:
        return 'feature_hint compares hidden layers with a booster\'s, and there is none; set feature_hint = "none"'
    if rocket.feature_hint != "none" and not asks_hidden(rocket.feature_hint) and scheme not in WITH_BOOSTER:
        return (
            f"{rocket.feature_hint} compares how both losses move with embeddings that both nets learn, and this "
            "teacher stands still; take feature_hint = 'fitnet'"
        )
    if model.share == "trunk" and scheme not in WITH_BOOSTER:
        return 'no booster learns that could share a trunk; set [model] share = "embeddings"'
    return None
