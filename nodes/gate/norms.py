"""Weights that must not be published whatever they predict: not finite, or run away."""

from collections.abc import Mapping

import numpy as np

from contracts.sections import Gate
from nodes.gate.judge import Fault

#: fp16 ends at 65504; a weight near it has run away.
MAX_ABS_WEIGHT = 1e4
#: An array whose root mean square is below that may grow as it likes: a net at its start does.
_SMALL = 0.5


def unfit(arrays: Mapping[str, np.ndarray]) -> str | None:
    """Why arrays must not be published, looked at by themselves; None when they may.

    >>> unfit({"bias": np.array([np.nan], np.float32)})
    "array 'bias' holds a NaN or an infinity"
    >>> unfit({"bias": np.array([2e4], np.float32)})
    "array 'bias' has run away: its largest weight is 2e+04, above 1e+04"
    """
    for name, array in arrays.items():
        if array.dtype.kind == "u":  # keys
            continue
        if not np.isfinite(array).all():
            return f"array '{name}' holds a NaN or an infinity"
        largest = float(np.abs(array).max(initial=0))
        if largest > MAX_ABS_WEIGHT:
            return f"array '{name}' has run away: its largest weight is {largest:.3g}, above {MAX_ABS_WEIGHT:.3g}"
    return None


def outgrown(candidate: Mapping[str, np.ndarray], live: Mapping[str, float], settings: Gate) -> Fault | None:
    """Why arrays must not follow the live ones: the norm of one has grown too much; None when they may.

    Args:
        candidate: arrays by name.
        live: `norms` of the version that is live.
        settings: `max_norm_growth`.

    >>> live = norms({"wide": np.full(4, 0.5, np.float32)})
    >>> outgrown({"wide": np.full(4, 6.0, np.float32)}, live, Gate(max_norm_growth=10)).reason
    "array 'wide' has run away: its root mean square is 6, 12 times the 0.5 of the live version"
    """
    for name, size in norms(candidate).items():
        base = max(live.get(name, size), _SMALL)
        if size > settings.max_norm_growth * base:
            return Fault(
                "norms",
                f"array '{name}' has run away: its root mean square is {size:.3g}, {size / base:.3g} times the "
                f"{base:.3g} of the live version",
            )
    return None


def norms(arrays: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The root mean square of each array: its norm, whatever its size."""
    return {
        name: float(np.linalg.norm(array.reshape(-1)) / max(array.size, 1) ** 0.5)
        for name, array in arrays.items()
        if array.dtype.kind == "f"
    }
