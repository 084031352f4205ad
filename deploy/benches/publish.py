"""Publishing a full version against a delta of 1 % of its rows, through a real Valkey.

Medians in milliseconds: *publish* from a trainer's arrays to the pointer moved, *fetch* from there to verified numbers
in memory, *apply* until a reader's arrays are the new version, in one of its two buffers. Rounds of one full version
and a few deltas, on one growing model; what the reader holds is compared, bit for bit, with the trainer's arrays as
they are served.
"""

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from contracts.app import App, load_app
from contracts.errors import CorruptError
from contracts.weights import TouchedRows, WeightManifest, Weights
from nodes.chains import Steps
from nodes.deltas import quantised
from nodes.embedded_valkey import EmbeddedValkey
from nodes.fake_traffic import light_arrays
from nodes.pack import Arrays
from nodes.pack_deltas import Packer
from nodes.redis_weights import RedisWeights
from nodes.weight_buffers import WeightBuffers

_WIDTH, _SHARE = 16, 0.01
_DELTAS = 9  # after each full version
_PHASES = ("publish", "fetch", "apply")


def run(quick: bool) -> dict[str, Any]:  # noqa: FBT001  # the form of every bench
    """Models of 50 and 500 MB in memory (50 MB alone when quick), fp16 on the wire."""
    return {f"{size}_mb": _measure(size, 2 if quick else 3) for size in ((50,) if quick else (50, 500))}


def _measure(megabytes: int, repeats: int) -> dict[str, Any]:
    app = _app(megabytes * 1_000_000 // (4 * (_WIDTH + 1)))
    arrays, draw = light_arrays(app), np.random.default_rng(1)
    rows = arrays["wide"].size
    with tempfile.TemporaryDirectory() as folder, EmbeddedValkey(Path(folder)) as valkey:
        store = RedisWeights(valkey.url, app.name, keep=1, ttl_s=1, timeout_s=60)
        trainer, timed = _Trainer(app, store), _TimedStore(store)
        buffers = WeightBuffers(timed)
        took: dict[str, list[dict[str, float]]] = {"full": [], "delta": []}
        sizes: dict[str, int] = {}
        for number in range((repeats + 1) * (1 + _DELTAS)):
            kind = "delta" if number % (1 + _DELTAS) else "full"
            moved = np.sort(draw.choice(rows, round(_SHARE * rows), replace=False))
            for name in ("embedding", "wide"):
                arrays[name][moved] += np.float32(0.25)
            start = time.perf_counter()
            manifest = trainer.publish(arrays, moved, whole=kind == "full")
            published = time.perf_counter()
            weights = buffers.advance(manifest.version)
            advanced_s = time.perf_counter() - published
            if manifest.kind != kind or not _served(arrays, weights.arrays):
                raise CorruptError(f"version {manifest.version} ({manifest.kind}) is not what was published as {kind}")
            spent = {"publish": published - start, "fetch": timed.seconds, "apply": advanced_s - timed.seconds}
            sizes[kind] = manifest.num_bytes
            if number > _DELTAS:  # the first round warms up
                took[kind].append(spent)
        store.close()
    medians = {
        kind: {f"{phase}_ms": 1000 * float(np.median([spent[phase] for spent in some])) for phase in _PHASES}
        for kind, some in took.items()
    }
    totals = {kind: sum(found.values()) for kind, found in medians.items()}
    return {
        "rows": rows,
        **{kind: found | {"total_ms": totals[kind], "bytes": sizes[kind]} for kind, found in medians.items()},
        "full_over_delta": totals["full"] / totals["delta"],
        "bit_identical": True,  # or it would have been refused above
        "repeats": repeats,
    }


class _Trainer:
    """A trainer's side: one packer, and the live version in memory as a `nodes.publish.Publisher` has it."""

    def __init__(self, app: App, store: RedisWeights) -> None:
        self._app, self._store, self._packer = app, store, Packer(app)
        self._live: Weights | None = None
        self._epoch, self._step = store.take_epoch(), 0

    def publish(self, arrays: Arrays, moved: np.ndarray, *, whole: bool) -> WeightManifest:
        """From arrays to the pointer moved."""
        since, self._step = self._step, self._step + 1
        touched = TouchedRows(since, moved)
        base = None if whole else self._live
        made = self._packer.pack(
            arrays, base, position=self._step, step=self._step, trained_until_ms=0, touched=touched
        )
        if isinstance(made, str):
            raise CorruptError(made)
        manifest = self._store.publish(made.manifest(self._app, self._app.name, self._epoch, 0, {}), made.chunks)
        self._packer.published(made, manifest)
        self._live = Weights(manifest, made.arrays)
        return manifest


class _TimedStore:
    """Tells the reading of a version from the rest of `WeightBuffers.advance`."""

    def __init__(self, store: RedisWeights) -> None:
        self._store, self.seconds = store, 0.0

    def steps(self, version: int, base: Weights | None = None, into: Mapping[str, np.ndarray] | None = None) -> Steps:
        """As the store's."""
        start = time.perf_counter()
        steps = self._store.steps(version, base, into)
        self.seconds = time.perf_counter() - start
        return steps


def _app(rows: int) -> App:
    """Two features that share the rows; 64-32 towers."""
    features = [
        {"name": side, "kind": "id", "column": f"{side}_id", "side": side, "buckets": rows // 2}
        for side in ("user", "item")
    ]
    model = {"embedding_dim": _WIDTH, "light": {"hidden": [64, 32], "fm": False}, "booster": {"kind": "none"}}
    return load_app("adsim", {"features": features, "model": model, "publish": {"full_every": 1000}})


def _served(arrays: Arrays, held: Arrays) -> bool:
    """Whether these are, bit for bit, what a full version of the arrays would give."""
    return all(
        np.array_equal(quantised(array, "float16").view(np.int32), held[name].view(np.int32))
        for name, array in arrays.items()
    )
