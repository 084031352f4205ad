"""Ids that own their rows: what they cost in memory and time, and what they are worth beside hashed ones.

* `memory`: bytes an id, so megabytes a million ids, of a full table: its map and clocks, and the weights at width 16.
* `lookups_per_cpu_s`: ids -> rows in minibatches of 4096, of a million ids known, three in four looked up known: the
  map, a Python dict, and a Polars join; taking turns, medians.
* `flood`: ten million distinct ids, each seen twice, among them a thousand that keep coming, through a table of a
  million rows: memory after the first fifth and at the end, look-ups without a row, and ids a CPU-second.
* `adsim`: AUC (each row predicted before it is learnt, second half of the stream) of the light net with users and ads
  in hashed tables and in dynamic ones of the same number of rows, where these are scarce (for a quarter of the ids)
  and where there is room for all; means over the seeds, and the standard error of the paired differences.
"""

import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from contracts.app import App, load_app
from contracts.dynamic import OOV_ROW, DynamicTable
from contracts.features import STATEFUL
from contracts.segments import ORDER
from model.id_map import Keys
from model.id_rows import IdRows
from model.metrics import auc
from model.tensors import to_batch
from model.trainer import Trainer
from nodes.featurize import Featurizer
from nodes.featurize_chunks import example_columns
from nodes.join import Joiner
from nodes.sample import sample
from nodes.simulate import simulate
from nodes.source import read_events

_BATCH, _WIDTH = 4096, 16
_MIX = np.uint64(0x9E37_79B9_7F4A_7C15)
#: For a quarter of the users and ads in the simulated world, and for all with room to spare.
_ROWS = {"scarce": {"user": 750, "ad": 100}, "ample": {"user": 3400, "ad": 450}}
_ADMIT_AFTER = {"scarce": 2, "ample": 1}


def run(quick: bool) -> dict[str, Any]:  # noqa: FBT001  # the form of every bench
    """A million rows and ten million ids, three days of adsim (quick: a fiftieth of it)."""
    began, capacity = time.process_time(), 20_000 if quick else 1_000_000
    return {
        "memory": _memory(capacity),
        "lookups_per_cpu_s": _look_ups(capacity, 3 if quick else 15),
        "flood": _flood(capacity, 10 * capacity),
        "adsim": _adsim((1,) if quick else (1, 2, 3, 4, 5), 4_000 if quick else 120_000),
        "rows": capacity,
        "cpu_seconds": time.process_time() - began,
    }


def _ids(start: int, stop: int) -> Keys:
    return np.arange(start + 1, stop + 1, dtype=np.uint64) * _MIX


def _full(capacity: int) -> IdRows:
    rows = IdRows(DynamicTable(capacity=capacity), np.zeros(capacity + 2, np.uint64))
    for start in range(0, capacity, _BATCH):
        rows.admit(_ids(start, min(start + _BATCH, capacity)), start)
    return rows


def _memory(capacity: int) -> dict[str, float]:
    own = _full(capacity).nbytes / capacity
    light, booster = 4 * (_WIDTH + 1 + 2), 4 * (_WIDTH + 1)
    return {
        "map_mb_per_million": own,
        "light_weights_mb_per_million": light,
        "booster_weights_mb_per_million": booster,
        "published_fp16_mb_per_million": 2 * (_WIDTH + 1) + 8,
    }


def _look_ups(capacity: int, repeats: int) -> dict[str, float]:
    rows, draw = _full(capacity), np.random.default_rng(1)
    owned = np.flatnonzero(rows.keys)
    known = dict(zip(rows.keys[owned].tolist(), owned.tolist(), strict=True))
    table = pl.DataFrame({"id": rows.keys[owned], "row": owned})
    batches = [_MIX * draw.integers(1, capacity * 4 // 3, _BATCH).astype(np.uint64) for _ in range(16)]

    def by_dict(keys: Keys) -> np.ndarray:
        return np.array([known.get(key, 1) for key in keys.tolist()], np.int64)

    def by_join(keys: Keys) -> np.ndarray:
        asked = pl.DataFrame({"id": keys})
        return asked.join(table, on="id", how="left", maintain_order="left")["row"].fill_null(1).to_numpy()

    seconds: dict[str, list[float]] = {}
    for _ in range(repeats):
        for name, find in {"map": rows.look_up, "dict": by_dict, "polars_join": by_join}.items():
            start = time.process_time()
            for keys in batches[: 2 if name == "polars_join" else None]:
                assert find(keys).min() >= 1  # noqa: S101
            taken = (time.process_time() - start) * (8 if name == "polars_join" else 1)
            seconds.setdefault(name, []).append(taken)
    speeds = {name: len(batches) * _BATCH / float(np.median(taken)) for name, taken in seconds.items()}
    return speeds | {"map_over_dict": speeds["map"] / speeds["dict"]}


def _flood(capacity: int, ids: int) -> dict[str, float]:
    table = DynamicTable(capacity=capacity, admit_after=2, admission="bloom", barrier_rows=capacity)
    rows, again = IdRows(table, np.zeros(table.rows, np.uint64)), _ids(ids, ids + 1000)
    began, without, early, early_peak = time.process_time(), 0, 0, 0
    for start in range(0, ids, _BATCH):
        stop = min(start + _BATCH, ids)
        if start // capacity < stop // capacity:
            rows.evict(start)
        got = rows.admit(np.concatenate([np.repeat(_ids(start, stop), 2), np.repeat(again, 2)]), start)
        comes_again = got.rows_M[-2 * again.size :]
        without += int((got.rows_M < OOV_ROW).sum() + (rows.keys[comes_again] != np.repeat(again, 2)).sum())
        if stop >= ids // 5 and not early:
            early, early_peak = rows.nbytes, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "ids": float(ids),
        "failed_lookups": float(without),
        "mb_after_a_fifth": early / 1e6,
        "mb_at_the_end": rows.nbytes / 1e6,
        "peak_rss_growth_mb": (peak - early_peak) / 1024,
        "used_rows": float(rows.used),
        "ids_per_cpu_s": ids / (time.process_time() - began),
    }


def _adsim(seeds: tuple[int, ...], impressions: int) -> dict[str, dict[str, float]]:
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in _ROWS}
    for seed in seeds:
        with tempfile.TemporaryDirectory() as name:
            simulate(Path(name), impressions=impressions, days=2.0, seed=seed)
            for case, rows in _ROWS.items():
                hashed, dynamic = (
                    _judged(_app(rows, admit_after), Path(name), seed) for admit_after in (None, _ADMIT_AFTER[case])
                )
                found[case].append((hashed, dynamic))
    made = {}
    for case, pairs in found.items():
        hashed, dynamic = np.array(pairs).T
        gain = dynamic - hashed
        made[case] = {
            "auc_hashed": float(hashed.mean()),
            "auc_dynamic": float(dynamic.mean()),
            "gain": float(gain.mean()),
            "gain_se": float(gain.std(ddof=1) / np.sqrt(gain.size)) if gain.size > 1 else 0.0,
        }
    return made


def _app(rows: dict[str, int], admit_after: int | None) -> App:
    """The light net alone; users and ads in tables of so many rows (and two), hashed where nothing admits."""
    features = []
    for feature in load_app("adsim").features:
        if feature.kind in STATEFUL or feature.output == "ids":
            continue
        made = feature.model_dump(by_alias=True, exclude_none=True)
        if feature.name in rows:
            made["buckets"] = rows[feature.name] + 2
            if admit_after is not None:
                del made["buckets"]
                made["dynamic"] = {"capacity": rows[feature.name], "barrier_rows": 4096, "admit_after": admit_after}
        features.append(made)
    model = {"booster": {"kind": "none"}}
    return load_app("adsim", {"features": features, "model": model, "train": {"device": "cpu", "batch_rows": 256}})


def _judged(app: App, folder: Path, seed: int) -> float:
    """AUC of the second half of a stream, each minibatch predicted before it was learnt."""
    joiner = Joiner(app)
    joiner.add(*(_events(app, folder, stream) for stream in ("impressions", "clicks")))
    kept = sample(joiner.settle(None).examples, app).kept
    frame = kept.select(example_columns(app)).hstack(Featurizer(app.features)(kept)).sort(ORDER)
    trainer, batch, size = Trainer(app, seed=seed), to_batch(frame, app), app.config.train.batch_rows
    told = [trainer.learn(batch.slice(start, start + size)).light for start in range(0, frame.height - size + 1, size)]
    p, label = np.concatenate(told), frame["label"].to_numpy()[: len(told) * size]
    half = p.size // 2
    return auc(label[half:], p[half:]) or 0.5


def _events(app: App, folder: Path, stream: str) -> pl.DataFrame:
    contract = app.impressions if stream == "impressions" else app.clicks
    return pl.concat([chunk.frame for chunk in read_events(folder / f"{stream}.ndjson", contract, app, stream)])
