"""The light net as the named arrays that are published (`contracts.weights` fixes names and shapes)."""

import numpy as np
from torch import Tensor

from model.trainer import Trainer


def light_arrays(trainer: Trainer) -> dict[str, np.ndarray]:
    """Float32 copies of everything that the scorer needs; the booster stays behind.

    Of a shared table only the prefix that the light net reads is taken.
    """
    nets = trainer.nets
    rows = nets.layout.light_rows
    table = nets.light_table.weights()
    arrays = {"embedding": _array(table["embedding"][:rows])}
    if "wide" in table:
        arrays["wide"] = _array(table["wide"][:rows, 0])
    return arrays | {name: _array(tensor) for name, tensor in trainer.averages["light"].state().items()}


def _array(tensor: Tensor) -> np.ndarray:
    return np.array(tensor.detach().cpu().numpy(), dtype=np.float32, order="C")
