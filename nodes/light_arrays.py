"""The named arrays of a light net: which there must be, and of what shape."""

from collections.abc import Mapping
from itertools import pairwise

import numpy as np

from contracts.errors import CorruptError
from contracts.features import Layout
from contracts.weights import ACTIVATION_CODES, KEYS


def check_arrays(layout: Layout, arrays: Mapping[str, np.ndarray]) -> int:
    """Names and shapes fit the layout and each other; returns the number of layers of the MLP.

    Raises:
        CorruptError: naming the array, what it is and what it should be.
    """
    layers = sum(name.startswith("mlp.") and name.endswith(".weight") for name in arrays)
    if not layers and "fm" not in arrays:
        layers = 1  # a net without an MLP has pairs: here one is missing
    embedding = arrays.get("embedding")
    width = embedding.shape[1] if embedding is not None and embedding.ndim == 2 else 0
    wanted: dict[str, tuple[int, ...]] = {"embedding": (layout.light_rows, width), "bias": (1,)}
    if "wide" in arrays or "wide_dense" in arrays:
        wanted |= {"wide": (layout.light_rows,), "wide_dense": (len(layout.light_dense),)}
    if layout.dynamic:
        wanted[KEYS] = (layout.light_rows,)
    if "fm" in arrays:
        wanted["fm"] = (1,)
    widths = [len(layout.light_ids) * width + len(layout.light_dense)]
    for index in range(layers):
        found = arrays.get(f"mlp.{index}.weight")
        widths.append(found.shape[0] if found is not None and found.ndim == 2 and index < layers - 1 else 1)
    for index, (inputs, outputs) in enumerate(pairwise(widths)):
        wanted |= {f"mlp.{index}.weight": (outputs, inputs), f"mlp.{index}.bias": (outputs,)}
    wanted |= _between(arrays, widths[1:-1])
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
    if "activation" in arrays and float(arrays["activation"][0]) not in ACTIVATION_CODES.values():
        raise CorruptError(
            f"array 'activation' says {float(arrays['activation'][0]):g}, which this scorer does not know; upgrade it, "
            "or roll back"
        )
    return layers


def _between(arrays: Mapping[str, np.ndarray], widths: list[int]) -> dict[str, tuple[int, ...]]:
    """What there must be between the layers, by what there is."""
    wanted: dict[str, tuple[int, ...]] = {}
    for index, width in enumerate(widths):
        if any(name.startswith("norms.") for name in arrays):
            wanted |= {f"norms.{index}.weight": (width,), f"norms.{index}.bias": (width,)}
        if any(name.startswith("slopes.") for name in arrays):
            wanted[f"slopes.{index}"] = (width,)
    if "activation" in arrays and widths:
        wanted["activation"] = (1,)
    return wanted
