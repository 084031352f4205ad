"""Training speed: the light net against its peers and its ceiling, and what the booster adds.

Examples per CPU-second, ids already hashed and in memory, one thread, minibatches of all sides interleaved; medians.
With `--peer-python PATH`, a Python that has them, DeepCTR-Torch and FuxiCTR take their turns too.
"""

import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from contracts.app import App, load_app
from deploy.benches.peers.other_python import CtrLibraries
from deploy.benches.peers.sparse_adam import SparseAdamPeer
from model.embeddings import Touched
from model.optimizers.groups import group_rows
from model.tensors import Batch
from model.trainer import Trainer

_FIELDS, _WIDTH, _HIDDEN, _BATCH = 26, 16, (64, 32), 4096
_BOOSTER = (512, 256, 128)
_SLOW = 2  #: minibatches of a turn of a peer that sweeps its whole table at each step


class _Side(NamedTuple):
    """One that is measured: CPU seconds of a turn, and how many rows that learns."""

    turn: Callable[[], float]
    rows: int


def run(quick: bool, peer_python: Path | None = None) -> dict[str, Any]:  # noqa: FBT001  # the form of every bench
    """Light-only training on a 2.7M x 16 table at batch 4096 (60k rows when quick), and co-training beside it."""
    rows = 60_000 if quick else 2_700_000
    repeats = 3 if quick else 7
    buckets = _cardinalities(rows)
    truth = _Truth(buckets)
    batches = [truth.minibatch(seed) for seed in range(2 if quick else 6)]
    rocket = Trainer(_app(buckets, booster="mlp", wide=True))
    light = Trainer(_app(buckets, booster="none", wide=False))
    ours = {
        "rocket_light": light.learn,
        "tables_not_updated": _frozen(buckets, gradient=True).learn,
        "no_embedding_gradient": _frozen(buckets, gradient=False).learn,
        "torch_sparse_adam": SparseAdamPeer(sum(buckets), _FIELDS, _WIDTH, _HIDDEN).learn,
        "rocket_light_and_wide": Trainer(_app(buckets, booster="none", wide=True)).learn,
        "rocket_light_and_mlp": rocket.learn,
        "rocket_light_and_dcn_v2": Trainer(_app(buckets, booster="dcn_v2", wide=True)).learn,
    }
    sides = {name: _Side(_turn(learn, batches), len(batches) * _BATCH) for name, learn in ours.items()}
    with ExitStack() as stack:
        if peer_python is not None:
            sides |= _libraries(peer_python, buckets, batches[:_SLOW], stack)
        speeds = _interleaved(sides, repeats)
    return {
        "examples_per_cpu_s": speeds,
        **{
            f"light_over_{name}": speeds["rocket_light"] / speed
            for name, speed in speeds.items()
            if not name.startswith("rocket")
        },
        "cotraining_cost_over_light": speeds["rocket_light_and_wide"] / speeds["rocket_light_and_mlp"],
        "cotraining_cost_over_light_dcn_v2": speeds["rocket_light_and_wide"] / speeds["rocket_light_and_dcn_v2"],
        "logloss": _learnt(buckets, truth, 12 if quick else 60),
        "booster": list(_BOOSTER),
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
    model = {
        "embedding_dim": _WIDTH,
        "light": {"hidden": _HIDDEN, "wide": wide, "fm": False},
        "booster": {"kind": booster, "hidden": _BOOSTER},
    }
    train = {"batch_rows": _BATCH, "embedding_lr": 0.05, "device": "cpu", "threads": 1}
    return load_app("adsim", {"features": features, "model": model, "train": train})


class _Truth:
    """Random rows whose clicks hang on their ids; these are skewed as real ones are (a Zipf tail of exponent 1.1)."""

    def __init__(self, buckets: list[int]) -> None:
        self._buckets, self._starts = buckets, np.cumsum([0, *buckets[:-1]])
        self._effects = np.random.default_rng(7).normal(0, 0.25, sum(buckets)).astype(np.float32)

    def minibatch(self, seed: int) -> Batch:
        """The minibatch of that number."""
        draw = np.random.default_rng(seed)
        columns = [
            start + draw.zipf(1.1, _BATCH) % size * 2_654_435_761 % size
            for start, size in zip(self._starts, self._buckets, strict=True)
        ]
        ids_BF = np.stack(columns, axis=1).astype(np.int64)
        chance_B = 1 / (1 + np.exp(1.5 - self._effects[ids_BF].sum(axis=1)))
        label_B = torch.from_numpy((draw.random(_BATCH) < chance_B).astype(np.float32))
        nothing_B, role_B = torch.zeros(_BATCH), torch.zeros(_BATCH, dtype=torch.uint8)
        dense_BN, weight_B = torch.zeros(_BATCH, 0), torch.ones(_BATCH)
        return Batch(torch.from_numpy(ids_BF), dense_BN, (), label_B, weight_B, nothing_B, role_B, nothing_B)


def _frozen(buckets: list[int], *, gradient: bool) -> Trainer:
    """The ceiling: the same net and trainer, but the tables stay as they are.

    Args:
        buckets: of the fields.
        gradient: whether the embeddings' gradient is still computed.
    """
    trainer = Trainer(_app(buckets, booster="none", wide=False))
    table = trainer.nets.light_table
    none = group_rows(torch.zeros(0, dtype=torch.int64))
    nothing = table.slab[:0]

    def touch(rows_M: torch.Tensor) -> Touched:
        return Touched(none, nothing, tuple(leaf.requires_grad_(gradient) for leaf in table.look_up(rows_M)))

    def prepare(touched: Touched, *, rows: int = 1) -> bool:
        del touched, rows
        return True

    def commit(touched: Touched) -> None:
        del touched

    table.touch, table.prepare, table.commit = touch, prepare, commit  # type: ignore[method-assign]
    return trainer


def _libraries(python: Path, buckets: list[int], batches: list[Batch], stack: ExitStack) -> dict[str, _Side]:
    """The peers of another Python, on the same minibatches with ids counted within each field."""
    starts = np.cumsum([0, *buckets[:-1]])
    peers = stack.enter_context(
        CtrLibraries(
            python,
            Path(stack.enter_context(tempfile.TemporaryDirectory())),
            sizes=buckets,
            ids=np.stack([batch.ids_BF.numpy() - starts for batch in batches]),
            label=np.stack([batch.label_B.numpy() for batch in batches]),
            hidden=_HIDDEN,
            width=_WIDTH,
        )
    )

    def side(name: str) -> _Side:
        return _Side(lambda: peers.seconds(name), len(batches) * _BATCH)

    return {name: side(name) for name in peers.names}


def _turn(learn: Callable[[Batch], Any], batches: list[Batch]) -> Callable[[], float]:
    def turn() -> float:
        start = time.process_time()
        for batch in batches:
            learn(batch)
        return time.process_time() - start

    return turn


def _interleaved(sides: dict[str, _Side], repeats: int) -> dict[str, float]:
    """Median examples per CPU-second of each, taking turns so that other load meets all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(repeats + 2):
        for name, side in sides.items():
            taken = side.turn()
            if number >= 2:  # the first two warm up
                seconds[name].append(taken)
    return {name: sides[name].rows / float(np.median(taken)) for name, taken in seconds.items()}


def _learnt(buckets: list[int], truth: _Truth, minibatches: int) -> dict[str, float]:
    """Progressive logloss of the second half of a fresh stream: ours, and SparseAdam at the best of three rates."""
    ours = Trainer(_app(buckets, booster="none", wide=False))
    sides: dict[str, Callable[[Batch], Any]] = {"rocket_light": lambda batch: ours.learn(batch).light}
    for lr in (0.001, 0.003, 0.01):
        sides[f"torch_sparse_adam_{lr:g}"] = SparseAdamPeer(sum(buckets), _FIELDS, _WIDTH, _HIDDEN, lr).learn
    losses: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(minibatches):
        batch = truth.minibatch(1000 + number)
        label_B = batch.label_B.numpy().astype(np.float64)
        for name, learn in sides.items():
            p = np.clip(np.asarray(learn(batch), np.float64), 1e-7, 1 - 1e-7)
            losses[name].append(float(-np.where(label_B == 1, np.log(p), np.log(1 - p)).mean()))
    told = {name: float(np.mean(of[minibatches // 2 :])) for name, of in losses.items()}
    best = min(loss for name, loss in told.items() if name != "rocket_light")
    return told | {"light_minus_best_sparse_adam": told["rocket_light"] - best}
