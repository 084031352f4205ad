"""Scoring 500 candidates with the light net: NumPy with the split first layer against torch, in one process."""

import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from contracts.app import load_app
from contracts.weights import Weights
from nodes.fake_traffic import examples, light_arrays, requests
from nodes.fakes import MemoryWeights
from nodes.light_numpy import LightNet, one_thread
from nodes.publish import Publisher
from nodes.score import LightScorer

CANDIDATES = 500


class _Torch(nn.Module):
    """The same net as one would write it in torch for serving."""

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        super().__init__()
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        rows, width = tensors["embedding"].shape
        self.embedding = nn.Embedding(rows, width, _weight=tensors["embedding"])
        self.wide = nn.Embedding(rows, 1, _weight=tensors["wide"][:, None])
        self.bias, self.wide_dense = tensors["bias"], tensors["wide_dense"]
        layers: list[nn.Module] = []
        for index in range(sum(name.startswith("mlp.") and name.endswith("weight") for name in arrays)):
            weight = tensors[f"mlp.{index}.weight"]
            layer = nn.Linear(weight.shape[1], weight.shape[0])
            layer.load_state_dict({"weight": weight, "bias": tensors[f"mlp.{index}.bias"]})
            layers += [layer, nn.ReLU()]
        self.mlp = nn.Sequential(*layers[:-1])

    def forward(self, ids_BF: torch.Tensor, dense_BN: torch.Tensor) -> torch.Tensor:
        inputs = torch.cat([self.embedding(ids_BF).flatten(1), dense_BN], 1)
        wide = self.wide(ids_BF).sum((1, 2)) + dense_BN @ self.wide_dense
        logit_B: torch.Tensor = self.mlp(inputs)[:, 0] + wide + self.bias
        return logit_B


def run(quick: bool) -> dict[str, Any]:  # noqa: FBT001
    """Medians in microseconds, one thread; `times_torch` above 1 is faster than torch.

    Args:
        quick: fewer repeats.
    """
    repeats = 60 if quick else 500
    app = load_app("adsim")
    arrays = light_arrays(app)
    layout = app.layout
    rows = examples(app, CANDIDATES, seed=1)
    mine = [f.name for f in app.features if f.only is None and f.side != "item"]
    theirs = [f.name for f in app.features if f.only is None and f.side == "item"]
    user, items = rows[:1].select(mine), rows.select(theirs)
    request_of = np.zeros(CANDIDATES, np.int64)
    whole = user[request_of].hstack(items)
    split, plain = LightNet(layout, arrays, frozenset(mine)), LightNet(layout, arrays)
    starts = np.array([layout.offsets[f.name] for f in layout.light_ids])
    ids_BF = torch.from_numpy(np.stack([whole[f.name].to_numpy() for f in layout.light_ids], 1) + starts)
    dense_BN = torch.from_numpy(np.stack([whole[f.name].to_numpy() for f in layout.light_dense], 1).astype(np.float32))
    net = _Torch(arrays).eval()
    message = requests(app, 1, CANDIDATES)
    scorer = LightScorer(app, _published(arrays))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with one_thread(), torch.inference_mode():
            difference = np.abs(split.split_logits(user, items, request_of) - net(ids_BF, dense_BN).numpy()).max()
            took = _medians_us(
                {
                    "torch": lambda: net(ids_BF, dense_BN),
                    "numpy": lambda: plain.logits(whole),
                    "numpy_split": lambda: split.split_logits(user, items, request_of),
                    "request_to_response": lambda: scorer.answer(message, now_ms=0),
                    "json_only": lambda: json.loads(message[0]),
                },
                repeats,
            )
    finally:
        torch.set_num_threads(threads)
    return {
        "candidates": CANDIDATES,
        "fields": len(mine) + len(theirs),
        "repeats": repeats,
        "p50_us": took,
        "times_torch": {name: round(took["torch"] / took[name], 2) for name in ("numpy", "numpy_split")},
        "request_bytes": len(message[0]),
        "max_abs_difference": float(difference),
    }


def _medians_us(what: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Medians of each, taken in turns, so that a busy moment hits all alike."""
    took: dict[str, list[float]] = {name: [] for name in what}
    for _ in range(repeats):
        for name, call in what.items():
            before = time.perf_counter()
            call()
            took[name].append((time.perf_counter() - before) * 1e6)
    return {name: round(float(np.median(values)), 1) for name, values in took.items()}


def _published(arrays: dict[str, np.ndarray]) -> Weights:
    app = load_app("adsim")
    store = MemoryWeights(app.name)
    publisher = Publisher(app, store, force=True)
    publisher.offer(arrays, position=1, step=1, trained_until_ms=1)
    publisher.finish()
    return store.fetch()
