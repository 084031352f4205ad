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
    arrays = {"embedding": _array(table["embedding"][:rows]), "bias": _array(nets.light.bias)}
    if "wide" in table and nets.light.wide_dense is not None:
        arrays["wide"] = _array(table["wide"][:rows, 0])
        arrays["wide_dense"] = _array(nets.light.wide_dense)
    for number, layer in enumerate(nets.light.mlp):
        for name, tensor in layer.named_parameters():
            arrays[f"mlp.{number}.{name}"] = _array(tensor)
    return arrays


def _array(tensor: Tensor) -> np.ndarray:
    return np.array(tensor.detach().cpu().numpy(), dtype=np.float32, order="C")
