"""Whether an app's nets can be made, without making them: `rocket check` has no torch."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from contracts.app_errors import line_of
from contracts.errors import ContractError, did_you_mean
from contracts.features import Feature
from contracts.hint_names import asks_hidden, hint_names, hint_trouble
from contracts.nets import Booster, Model, Rocket
from contracts.training import Train

#: The boosters that are built in; `model.boosters` says where each of them is.
BOOSTERS = ("autoint", "dcn_v2", "deepfm", "din", "fibinet", "finalmlp", "masknet", "mlp", "wdl")
NO_BOOSTER = "none"


def check_model(path: Path, model: Model, features: tuple[Feature, ...]) -> None:
    """The booster is known and finds what it needs, and so does the trunk.

    Raises:
        ContractError: naming the line, the setting and the mend.
    """
    booster = model.booster
    told = trouble(booster, sequences=any(feature.output == "ids" for feature in features))
    if told is not None and booster.kind != NO_BOOSTER:
        raise ContractError(f"{_at(path, 'model', 'booster')} kind = '{booster.kind}': {told}")
    told = _trunk_trouble(model)
    if told is not None and model.share == "trunk" and booster.kind != NO_BOOSTER:
        raise ContractError(f'{_at(path, "model")} share = "trunk": {told}')


def check_light(path: Path, model: Model) -> None:
    """The light net can be made, and the scorer can compute it.

    Raises:
        ContractError: naming the line, the setting and the mend.
    """
    light = model.light
    at = _at(path, "model", "light")
    if light.activation == "dice" or light.norm == "batch":
        said = 'activation = "dice"' if light.activation == "dice" else 'norm = "batch"'
        raise ContractError(
            f"{at} {said}: it needs moments of the minibatch, and what is published is an average over many steps, "
            'whose moments nobody has seen; take norm = "layer", or an activation of relu, gelu, silu and prelu'
        )
    if not light.deep and not light.fm:
        raise ContractError(
            f"{at} deep = false: without fm nothing would read the embeddings; set fm = true, or deep = true with "
            "hidden = []"
        )


def check_rocket(path: Path, model: Model, rocket: Rocket) -> None:
    """The hints are known, the layers that they compare are there and fit, and the schedule says something.

    Raises:
        ContractError: naming the line, the setting and the mend.
    """
    at = _at(path, "rocket")
    for setting, name in (("hint", rocket.hint), ("feature_hint", rocket.feature_hint)):
        told = hint_trouble(name, setting)
        if told is not None:
            raise ContractError(f"{at} {setting} = '{name}': {told}")
    for schedule, rows in (("warmup", rocket.warmup_rows), ("ramp", rocket.ramp_rows)):
        if rocket.schedule == schedule and not rows:
            raise ContractError(
                f'{at} schedule = "{schedule}": {schedule}_rows is 0, so that it would be "constant"; say how many rows'
            )
    if rocket.feature_hint == "none" or model.booster.kind == NO_BOOSTER:
        return
    if not asks_hidden(rocket.feature_hint):
        told = _gradients_trouble(model, rocket)
        if told is not None:
            raise ContractError(f"{at} feature_hint = '{rocket.feature_hint}': {told}")
    else:
        if hint_names()[rocket.feature_hint].learns and ":" in model.booster.kind:
            raise ContractError(
                f"{at} feature_hint = '{rocket.feature_hint}': it learns a map to the booster's width, which a net of "
                "your own tells only when it runs; take one that needs no map, such as 'rkd_distance'"
            )
        told = pairs_trouble(model.light.layers, hidden_widths(model.booster, model.embedding_dim), rocket)
        if told is not None:
            raise ContractError(f"{at} feature_layers: {told}")


def _gradients_trouble(model: Model, rocket: Rocket) -> str | None:
    """Why gradients of both nets cannot be compared, and the mend; None where they can."""
    if rocket.feature_layers:
        return "it compares gradients by the embeddings and no hidden layers; leave feature_layers out"
    if model.sharing != "shared":
        return (
            "each net reads embeddings of its own, and gradients by different inputs do not compare; set [model] "
            "sharing = \"shared\", or take feature_hint = 'fitnet'"
        )
    if not rocket.light_updates_shared:
        return (
            "the light net's loss does not reach the embeddings that both read; set light_updates_shared = true, or "
            "take feature_hint = 'fitnet'"
        )
    return None


def _at(path: Path, *where: str) -> str:
    """File, line where there is one, and section."""
    line = line_of(path, where)
    return f"{path}, line {line}, [{'.'.join(where)}]" if line else f"{path}, [{'.'.join(where)}]"


def check_train(path: Path, train: Train, model: Model) -> None:
    """What moves first-order weights has some to move.

    Raises:
        ContractError: naming the line, the setting and the mend.
    """
    if train.wide_optimizer == "ftrl" and not model.light.wide:
        at = f"{path}, line {line_of(path, ('train', 'wide_optimizer'))}, [train] wide_optimizer = 'ftrl'"
        raise ContractError(
            f"{at}: it moves first-order weights, and with model.light.wide = false there are none; set that true, or "
            "leave wide_optimizer out"
        )


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


def hidden_widths(booster: Booster, embedding_dim: int) -> tuple[int, ...] | None:
    """Widths of the hidden layers that a booster gives, from the input on; None: a net of one's own, nobody knows.

    >>> hidden_widths(Booster(kind="finalmlp", hidden=(8, 4)), 16)
    (8, 4, 8, 4)
    """
    if ":" in booster.kind:
        return None
    if booster.kind == "finalmlp":
        return booster.hidden * 2
    if booster.kind == "masknet":
        width = booster.hidden[0] if booster.hidden else embedding_dim
        return (width,) * booster.mask_blocks + booster.hidden[1:]
    return booster.hidden


def _trunk_trouble(model: Model) -> str | None:
    """Why the light net's lowest layers cannot be shared, and the mend."""
    layers = model.light.layers
    if model.sharing != "shared":
        return 'layers over embeddings that each net has for itself cannot be shared; set sharing = "shared"'
    if model.trunk_layers > len(layers):
        return (
            f"trunk_layers = {model.trunk_layers}, but the light net has {len(layers)} hidden layers; lower it, or add "
            "layers to [model.light] hidden"
        )
    if model.booster.kind == "autoint" and not model.booster.hidden:
        return "autoint without hidden layers does not read it; give [model.booster] hidden layers"
    return None


def pairs_trouble(lights: Sequence[int], boosters: Sequence[int] | None, rocket: Rocket) -> str | None:
    """Why the layers that `rocket.feature_layers` names cannot be compared, and the mend; None where they can.

    Args:
        lights: widths of the light net's hidden layers.
        boosters: of the booster's; None: not known yet.
        rocket: names the pairs and the hint.
    """
    fits = [[i, j] for i, a in enumerate(lights) for j, b in enumerate(boosters or ()) if a == b]
    could = f"layers of equal width: {fits}" if fits else "no two layers have one width; make one as wide as another"
    if not rocket.feature_layers:
        return f"it names no pair of a light and a booster layer; {could if boosters is not None else 'name one'}"
    for i, j in rocket.feature_layers:
        if i >= len(lights) or (boosters is not None and j >= len(boosters)):
            net, widths = ("light", lights) if i >= len(lights) else ("booster", boosters or ())
            return f"[{i}, {j}]: the {net} net's hidden layers are {list(widths)}, counted from 0; name one of them"
        row = hint_names()[rocket.feature_hint]
        if boosters is not None and row.takes == "equal" and not row.learns and lights[i] != boosters[j]:
            return (
                f"[{i}, {j}]: the light layer has {lights[i]} columns and the booster's {boosters[j]}, and \""
                f'{rocket.feature_hint}" compares them one by one; {could}, or take fitnet, which maps one to the other'
            )
    if hint_names()[rocket.feature_hint].span == 2 and not _climbs(rocket.feature_layers):
        return (
            f'"{rocket.feature_hint}" compares how each net gets from one layer to a later one; name two pairs or '
            "more, from the input on, as in [[0, 0], [1, 2]], or take fitnet, which compares layer with layer"
        )
    return None


def _climbs(pairs: Sequence[tuple[int, int]]) -> bool:
    """Whether there are two pairs or more, each of later layers than the one before, in both nets."""
    return len(pairs) > 1 and all(i < k and j < m for (i, j), (k, m) in pairwise(pairs))
