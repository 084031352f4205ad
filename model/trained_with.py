"""Whether a checkpoint was trained as an app says: labels, scheme, optimizers, shapes."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from contracts.app import App
from contracts.errors import ContractError
from model.dynamic_ids import STATE  # grows with the ids that own rows

#: What checkpoints that do not say it were trained with.
_FIRST = {"embedding_optimizer": "rowwise_adagrad", "wide_optimizer": "rowwise_adagrad", "dense.optimizer": "adam"}


def optimizers_of(app: App) -> dict[str, str]:
    """Setting of `train` -> what moves that kind of parameter; a wide term that there is not counts as the default."""
    train = app.config.train
    return {
        "embedding_optimizer": train.embedding_optimizer,
        "wide_optimizer": train.wide_optimizer if app.config.model.light.wide else _FIRST["wide_optimizer"],
        "dense.optimizer": train.dense.optimizer,
    }


def check_fits(app: App, own: Mapping[str, Tensor], state: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Refuse a checkpoint that this app cannot go on from.

    Args:
        app: says how to train.
        own: the state of a trainer of this app.
        state: the checkpoint's.
        meta: the checkpoint's.

    Raises:
        ContractError: other labels, scheme, optimizers or shapes; names the first, and the mend.
    """
    mode, wanted = meta.get("label_mode", "wait"), app.config.labels.mode
    if mode != wanted:
        raise ContractError(
            f'the checkpoint was trained with labels.mode = "{mode}", but app \'{app.name}\' says "{wanted}"; '
            "set it back, or train into a new folder"
        )
    scheme, wanted_scheme = meta.get("scheme", "rocket"), app.config.rocket.scheme
    if scheme != wanted_scheme:
        raise ContractError(
            f"the checkpoint was trained with rocket.scheme = \"{scheme}\", but app '{app.name}' says "
            f'"{wanted_scheme}"; set it back, or train into a new folder'
        )
    trained = _FIRST | dict(meta.get("optimizers", {}))
    for setting, name in optimizers_of(app).items():
        if trained[setting] != name:
            raise ContractError(
                f"the checkpoint was trained with train.{setting} = \"{trained[setting]}\", but app '{app.name}' says "
                f'"{name}"; set it back, or train into a new folder'
            )
    shapes = {key: tuple(tensor.shape) for key, tensor in own.items() if not key.startswith(STATE)}
    found = {key: tuple(tensor.shape) for key, tensor in state.items() if not key.startswith(STATE)}
    if found != shapes:
        odd = sorted(key for key in shapes.keys() | found.keys() if shapes.get(key) != found.get(key))[0]
        raise ContractError(
            f"the checkpoint does not fit the nets of app '{app.name}': '{odd}' has shape {found.get(odd)} in it and "
            f"{shapes.get(odd)} here; restore [model], [train] and [rocket] as they "
            "were, or train into a new folder"
        )
