"""What is compared takes turns."""

import gc
import time
from collections.abc import Callable
from typing import Any

import numpy as np


def in_turns(
    sides: dict[str, Callable[[], Any]], repeats: int, turn: Callable[[], None]
) -> dict[str, dict[str, float]]:
    """Milliseconds of each side, taking turns in an order drawn anew, so that what comes before hits all alike."""
    took: dict[str, list[float]] = {name: [] for name in sides}
    draw = np.random.default_rng(6)
    gc.collect()
    gc.freeze()  # torch and ONNX Runtime are here to be compared with: their objects are no side's to look through
    for number in range(repeats + 3):
        turn()
        for name in draw.permutation(list(sides)).tolist():
            call = sides[name]
            before = time.perf_counter()
            call()
            if number >= 3:  # the first ones warm up
                took[name].append((time.perf_counter() - before) * 1e3)
    return {name: spread(np.array(values)) for name, values in took.items()}


def spread(took_ms: np.ndarray) -> dict[str, float]:
    """The percentiles that latencies are told by."""
    at = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "p99.9": 0.999}
    return {name: round(float(np.quantile(took_ms, share)), 4) for name, share in at.items()}
