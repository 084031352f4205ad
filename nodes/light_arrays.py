"""The named arrays of a light net: which there must be, and of what shape."""

from collections.abc import Mapping

import numpy as np

from contracts.errors import CorruptError
from contracts.features import Layout


def check_arrays(layout: Layout, arrays: Mapping[str, np.ndarray]) -> int:
    """Names and shapes fit the layout and each other; returns the number of layers.

    Raises:
        CorruptError: naming the array, what it is and what it should be.
    """
    layers = sum(name.startswith("mlp.") and name.endswith(".weight") for name in arrays)
    embedding = arrays.get("embedding")
    width = embedding.shape[1] if embedding is not None and embedding.ndim == 2 else 0
    wide = "wide" in arrays or "wide_dense" in arrays
    wanted: dict[str, tuple[int, ...]] = {"embedding": (layout.light_rows, width), "bias": (1,)}
    if wide:
        wanted |= {"wide": (layout.light_rows,), "wide_dense": (len(layout.light_dense),)}
    inputs = len(layout.light_ids) * width + len(layout.light_dense)
    for index in range(max(layers, 1)):
        found = arrays.get(f"mlp.{index}.weight")
        outputs = found.shape[0] if found is not None and found.ndim == 2 and index < layers - 1 else 1
        wanted |= {f"mlp.{index}.weight": (outputs, inputs), f"mlp.{index}.bias": (outputs,)}
        inputs = outputs
    for name in [*wanted, *arrays]:
        if name not in arrays:
            raise CorruptError(f"array '{name}' is missing; publish the version again")
        if name not in wanted:
            raise CorruptError(f"array '{name}' is unknown to this scorer; publish the version again")
        if arrays[name].shape != wanted[name]:
            raise CorruptError(
                f"array '{name}' has the shape {arrays[name].shape}, but the app's features need {wanted[name]}; "
                "use the app that trained it, or publish again"
            )
    return layers
