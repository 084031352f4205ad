"""An app with tables of a few rows, so that a test can look at every one of them."""

import numpy as np

from contracts.app import App, load_app
from nodes.fake_traffic import light_arrays

BUCKETS = 6


def tiny_app(wide_optimizer: str = "rowwise_adagrad", **publish: object) -> App:
    """Two id features of a few rows each, and nothing else."""
    features = [
        {"name": side, "kind": "id", "column": f"{side}_id", "side": side, "buckets": BUCKETS}
        for side in ("user", "item")
    ]
    model = {"embedding_dim": 2, "light": {"hidden": [2]}, "booster": {"kind": "none"}}
    train = {"wide_optimizer": wide_optimizer}
    more = {"train": train, "publish": {"chunk_bytes": 1024} | publish}
    return load_app("adsim", {"features": features, "model": model} | more)


def tiny_arrays(app: App, seed: int = 0) -> dict[str, np.ndarray]:
    """Random arrays of that app."""
    return light_arrays(app, seed, scale=0.3)


def as_served(arrays: dict[str, np.ndarray], evicted: tuple[int, ...] = (), dtype: str = "float16") -> dict[str, bytes]:
    """The bytes that a scorer must hold: everything cast, rows given up zeroed; nothing clever."""
    served = {}
    for name, array in arrays.items():
        whole = array.copy()
        if name in {"embedding", "wide"}:
            whole[list(evicted)] = 0
        served[name] = whole.astype(dtype).astype(np.float32).tobytes()
    return served


def bits(arrays: dict[str, np.ndarray]) -> dict[str, bytes]:
    """Arrays as bytes, to compare."""
    return {name: array.tobytes() for name, array in arrays.items()}
