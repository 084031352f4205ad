"""The light net as the named arrays that are published (`contracts.weights` fixes names and shapes)."""

import numpy as np
from torch import Tensor

from contracts.weights import KEYS, TouchedRows
from model.trainer import Trainer


def light_arrays(trainer: Trainer) -> dict[str, np.ndarray]:
    """Float32 copies of everything that the scorer needs; the booster stays behind.

    Of a shared table only the prefix that the light net reads is taken.
    """
    return {name: np.array(array, order="C") for name, array in light_views(trainer).items()}


def light_views(trainer: Trainer) -> dict[str, np.ndarray]:
    """The same arrays without a copy of the tables, where these lie in this machine's memory: learning moves them."""
    nets = trainer.nets
    rows = nets.layout.light_rows
    table = nets.light_table.views()
    arrays = {"embedding": _array(table["embedding"][:rows])}
    if "wide" in table:
        arrays["wide"] = _array(table["wide"][:rows, 0])
    if nets.layout.dynamic:
        arrays[KEYS] = trainer.ids.keys[:rows]
    return arrays | {name: _array(tensor) for name, tensor in published_net(trainer).items()}


def published_net(trainer: Trainer) -> dict[str, Tensor]:
    """All of them but the tables: the averaged parameters, and what else says what the net is."""
    return trainer.averages["light"].state() | trainer.nets.light.codes()


def take_touched(trainer: Trainer) -> TouchedRows:
    """Rows of the light tables that learning moved since this was asked last (all at first, and after a restore)."""
    since_step = trainer.taken_step
    trainer.taken_step = trainer.step
    rows = trainer.nets.light_table.take_moved().cpu().numpy()
    return TouchedRows(since_step, rows[: np.searchsorted(rows, trainer.nets.layout.light_rows)])


def _array(tensor: Tensor) -> np.ndarray:
    array: np.ndarray = tensor.detach().cpu().numpy()
    return array
