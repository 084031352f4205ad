"""Training speed: the light net against torch's SparseAdam, and what the booster adds.

Examples per CPU-second, ids already hashed and in memory, one thread, minibatches of both sides interleaved; medians.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contracts.app import App, load_app
from model.tensors import Batch
from model.trainer import Trainer

_FIELDS, _WIDTH, _HIDDEN, _BATCH = 26, 16, (64, 32), 4096


def run(quick: bool) -> dict[str, Any]:  # noqa: FBT001  # the form of every bench
    """Light-only training on a 2.7M x 16 table at batch 4096 (60k rows when quick), and co-training beside it."""
    rows = 60_000 if quick else 2_700_000
    repeats = 3 if quick else 15
    buckets = _cardinalities(rows)
    batches = [_minibatch(buckets, seed) for seed in range(2 if quick else 8)]
    light = Trainer(_app(buckets, booster="none", wide=False))
    with_wide = Trainer(_app(buckets, booster="none", wide=True))
    rocket = Trainer(_app(buckets, booster="dcn_v2", wide=True))
    peer = _SparseAdamPeer(sum(buckets))
    speeds = _interleaved(
        {
            "rocket_light": light.learn,
            "torch_sparse_adam": peer.learn,
            "rocket_light_and_wide": with_wide.learn,
            "rocket_light_and_booster": rocket.learn,
        },
        batches,
        repeats,
    )
    return {
        "examples_per_cpu_s": speeds,
        "light_over_sparse_adam": speeds["rocket_light"] / speeds["torch_sparse_adam"],
        "cotraining_cost_over_light": speeds["rocket_light_and_wide"] / speeds["rocket_light_and_booster"],
        "booster_bf16": rocket.bf16,
        "table_rows": sum(buckets),
        "batch_rows": _BATCH,
        "repeats": repeats,
    }


def _cardinalities(rows: int) -> list[int]:
    """Field sizes that grow geometrically, as in the usual CTR data sets, `rows` together."""
    sizes = np.geomspace(10, rows, _FIELDS)
    return [int(size) for size in np.maximum(sizes * rows / sizes.sum(), 3)]


def _app(buckets: list[int], *, booster: str, wide: bool) -> App:
    features = [
        {"name": f"field_{i}", "kind": "id", "column": "user_id", "side": "user", "buckets": size}
        for i, size in enumerate(buckets)
    ]
    model = {"embedding_dim": _WIDTH, "light": {"hidden": _HIDDEN, "wide": wide}, "booster": {"kind": booster}}
    train = {"batch_rows": _BATCH, "device": "cpu", "threads": 1}
    return load_app("adsim", {"features": features, "model": model, "train": train})


def _minibatch(buckets: list[int], seed: int) -> Batch:
    """Random rows; ids are skewed as real ones are (a Zipf tail of exponent 1.1, spread over each field's buckets)."""
    draw = np.random.default_rng(seed)
    starts = np.cumsum([0, *buckets[:-1]])
    columns = [
        start + draw.zipf(1.1, _BATCH) % size * 2_654_435_761 % size
        for start, size in zip(starts, buckets, strict=True)
    ]
    label_B = torch.from_numpy((draw.random(_BATCH) < 0.2).astype(np.float32))
    ids_BF = torch.from_numpy(np.stack(columns, axis=1).astype(np.int64))
    nothing_B, role_B = torch.zeros(_BATCH), torch.zeros(_BATCH, dtype=torch.uint8)
    return Batch(ids_BF, torch.zeros(_BATCH, 0), (), label_B, torch.ones(_BATCH), nothing_B, role_B, nothing_B)


class _SparseAdamPeer:
    """The same net written as one would in plain torch: one sparse embedding with SparseAdam, the rest with Adam."""

    def __init__(self, rows: int) -> None:
        self.table = nn.Embedding(rows, _WIDTH, sparse=True)
        first, second = _HIDDEN
        self.mlp = nn.Sequential(
            nn.Linear(_FIELDS * _WIDTH, first), nn.ReLU(), nn.Linear(first, second), nn.ReLU(), nn.Linear(second, 1)
        )
        self.sparse = torch.optim.SparseAdam(self.table.parameters(), lr=0.002)
        self.dense = torch.optim.Adam(self.mlp.parameters(), lr=0.002, fused=True)

    def learn(self, batch: Batch) -> Tensor:
        """One step; returns the probabilities, as ours does."""
        self.sparse.zero_grad()
        self.dense.zero_grad()
        logit_B: Tensor = self.mlp(self.table(batch.ids_BF).flatten(1)).squeeze(1)
        F.binary_cross_entropy_with_logits(logit_B, batch.label_B).backward()  # type: ignore[no-untyped-call]
        self.sparse.step()  # type: ignore[no-untyped-call]
        self.dense.step()
        return logit_B.detach().sigmoid()


def _interleaved(learners: dict[str, Callable[[Batch], Any]], batches: list[Batch], repeats: int) -> dict[str, float]:
    """Median examples per CPU-second of each, taking turns so that other load meets all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in learners}
    for number in range(repeats + 2):
        for name, learn in learners.items():
            start = time.process_time()
            for batch in batches:
                learn(batch)
            if number >= 2:  # the first two warm up
                seconds[name].append(time.process_time() - start)
    return {name: len(batches) * _BATCH / float(np.median(taken)) for name, taken in seconds.items()}
