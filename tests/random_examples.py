"""Small apps and random example logs whose labels can be learnt."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from contracts.app import App, load_app, shipped_apps
from contracts.segments import FeatureBatch, example_schema
from nodes.example_log import ExampleDirectory

START_MS = 1_700_000_000_000


def small_app_folder(folder: Path, name: str = "adsim", *, max_buckets: int = 256) -> Path:
    """A copy of a shipped app with small tables and `SMALL` nets, to be given to `--app`."""
    shutil.copytree(shipped_apps()[name], folder)
    path = folder / "app.toml"
    text = re.sub(r"buckets = ([\d_]+)", lambda m: f"buckets = {min(int(m[1]), max_buckets)}", path.read_text())
    text = re.sub(r"(?m)^\[(model|train|publish)\b[^\n]*\n(?:(?!\[)[^\n]*\n?)*", "", text)  # its own give way to these
    text += """
[model]
embedding_dim = 4
light = { hidden = [8] }
booster = { hidden = [16], cross_layers = 1, cross_rank = 4 }

[train]
batch_rows = 64
checkpoint = { every_batches = 5 }

[publish]
every_rows = 512
gate = { window_rows = 256 }
"""
    path.write_text(text)
    return folder


def small_app(folder: Path, overrides: dict[str, Any] | None = None) -> App:
    """That app, loaded; its folder is made when it is not there."""
    return load_app(folder if folder.exists() else small_app_folder(folder), overrides)


def dynamic_app(
    folder: Path, overrides: dict[str, Any] | None = None, *, names: tuple[str, ...] = ("user", "ad"), **settings: Any
) -> App:
    """The small app with some id features whose ids own their rows; `settings` of `contracts.dynamic`."""
    path = small_app_folder(folder) / "app.toml"
    table = ", ".join(f"{key} = {json.dumps(value)}" for key, value in ({"capacity": 40} | settings).items())
    blocks = path.read_text().split("[[features]]")
    for at, block in enumerate(blocks):
        if any(f'name = "{name}"\n' in block for name in names):
            blocks[at] = re.sub(r"buckets = \d+", f"dynamic = {{ {table} }}", block)
    path.write_text("[[features]]".join(blocks))
    return load_app(folder, overrides)


def keys_of(numbers: npt.ArrayLike) -> npt.NDArray[np.uint64]:
    """Numbers as hashes of ids that own their rows; 0 stays missing."""
    return np.asarray(numbers).astype(np.uint64) * np.uint64(0x9E37_79B9_7F4A_7C15)


def random_examples(app: App, rows: int, seed: int = 0, *, step_ms: int = 1000) -> pl.DataFrame:
    """Rows in order of event time, one each `step_ms`, whose clicks hang on the first id feature."""
    rng = np.random.default_rng(seed)
    offsets = rng.normal(0, 1.5, app.layout.light_ids[0].rows)
    columns: dict[str, Any] = {}
    told = np.zeros(0, np.int64)
    for feature in app.features:
        if feature.output == "id":
            known = feature.rows if feature.dynamic is None else 3 * feature.rows  # more ids than rows
            numbers = (rng.power(0.3, rows) * known).astype(np.uint32)
            columns[feature.name] = numbers if feature.dynamic is None else keys_of(numbers)
            told = numbers if feature is app.layout.light_ids[0] else told
        elif feature.output == "dense":
            columns[feature.name] = rng.normal(size=rows).astype(np.float32)
        else:
            of = next(f for f in app.features if f.name == feature.of)
            sizes = rng.integers(0, 4, rows)
            lists = [rng.integers(1, of.rows, size) for size in sizes]
            columns[feature.name] = [(ids if of.dynamic is None else keys_of(ids)).tolist() for ids in lists]
    logit = -1.0 + offsets[told % offsets.size]
    label = (rng.random(rows) < 1 / (1 + np.exp(-logit))).astype(np.uint8)
    number = np.arange(rows)
    columns |= {
        "example_id": rng.integers(0, 2**63, rows, dtype=np.uint64),
        "impression_id": [f"i{n}" for n in number],
        "user_id": [f"u{n}" for n in rng.integers(0, max(rows // 10, 1), rows)],
        "item_id": [f"a{n}" for n in rng.integers(0, 20, rows)],
        "event_time_ms": START_MS + number * step_ms,
        "label": label,
        "weight": np.ones(rows, np.float32),
        "kept_rate": np.ones(rows, np.float32),
        "role": np.zeros(rows, np.uint8),
        "elapsed_s": np.where(label > 0, 5, 600).astype(np.float32),
    }
    schema = example_schema(app.features)
    return pl.DataFrame({name: pl.Series(columns[name], dtype=dtype) for name, dtype in schema.items()})


def write_log(path: Path, app: App, frame: pl.DataFrame, cuts: list[int] | int = 300) -> Path:
    """The frame as a complete example log, segments of `cuts` rows, or cut at those row numbers."""
    starts = list(range(0, frame.height, cuts)) if isinstance(cuts, int) else [0, *cuts]
    log = ExampleDirectory(path)
    for first, after in zip(starts, [*starts[1:], frame.height], strict=True):
        if after > first:
            log.write(FeatureBatch(frame.slice(first, after - first), first, app.schema_id), app.name)
    log.finish(frame.height, app.schema_id)
    return path
