"""Columns to features: stateless ones against pandas, streaming ones against a loop over dictionaries.

pandas gets its own vectorised hash (SipHash, `pandas.util.hash_array`), so that both do the work of hashing, and no
sequence; the loop keeps the same counts and last items in dictionaries and a queue of rows that wait for their label.
"""

import math
import statistics
import time
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl

from contracts.app import App, load_app
from contracts.errors import RocketError
from contracts.features import STATEFUL, Feature
from nodes.featurize import Featurizer
from nodes.streaming import StreamingFeatures

try:
    import pandas as pd
except ImportError as error:
    raise RocketError("this stage is measured against pandas; install it: pip install pandas") from error

_START_MS = 1_651_000_000_000


def run(quick: bool) -> dict[str, Any]:  # noqa: FBT001 - every bench is called so
    """Rows per CPU-second of the kuairand app's light features, of its streaming features, and of their peers."""
    app = load_app("kuairand")
    rows, repeats = (8_000, 1) if quick else (200_000, 5)
    frame = _impressions(rows)
    light = [feature for feature in app.features if feature.only is None]
    featurizer, pandas_frame = Featurizer(light), frame.to_pandas()
    paths: dict[str, Callable[[], Any]] = {
        "featurize": lambda: [featurizer(part) for part in frame.iter_slices(app.config.ingest.chunk_rows)],
        "featurize_pandas": lambda: _pandas(pandas_frame, light),
        "streaming": lambda: _streaming(app, frame),
        "streaming_loop": lambda: _loop(app, frame),
    }
    seconds: dict[str, list[float]] = {name: [] for name in paths}
    for _ in range(repeats):  # by turns, so that a slow moment of the machine meets all
        for name, path in paths.items():
            start = time.process_time()
            path()
            seconds[name].append(time.process_time() - start)
    cpu = {name: statistics.median(times) for name, times in seconds.items()}
    return {
        "rows": rows,
        "repeats": repeats,
        "features": {"light": len(light), "streaming": len(StreamingFeatures(app).names)},
        "rows_per_cpu_second": {name: rows / value for name, value in cpu.items()},
        "featurize_times_pandas": cpu["featurize_pandas"] / cpu["featurize"],
        "streaming_times_loop": cpu["streaming_loop"] / cpu["streaming"],
    }


def _impressions(rows: int) -> pl.DataFrame:
    """Ten days of a feed whose users and videos are as skewed as real ones."""
    rng = np.random.default_rng(1)

    def ids(most: int) -> pl.Series:
        return pl.Series(np.minimum(rng.zipf(1.3, rows), most)).cast(pl.String)

    return pl.DataFrame(
        {
            "event_time_ms": np.sort(rng.integers(0, 10 * 86_400_000, rows)) + _START_MS,
            "user_id": pl.Series(rng.integers(0, 25_000, rows)).cast(pl.String),
            "item_id": ids(7_000),
            "author_id": ids(6_000),
            "tag": ids(100),
            "tab": ids(14),
            "duration_ms": rng.lognormal(11, 1, rows),
            "freshness_days": rng.integers(0, 30, rows).astype(np.float64),
            "label": (rng.random(rows) < 0.4).astype(np.uint8),
        }
    )


def _pandas(frame: pd.DataFrame, features: list[Feature]) -> pd.DataFrame:
    made = {}
    for feature in features:
        column = frame[feature.inputs[0]]
        if feature.kind == "id":
            hashed = pd.util.hash_array(column.to_numpy(object), categorize=True)
            made[feature.name] = (hashed % np.uint64(feature.rows - 1) + 1).astype(np.uint32)
        elif feature.kind == "time":
            made[feature.name] = (column // 3_600_000 % 24 + 1).astype(np.uint32)
        else:
            made[feature.name] = (np.searchsorted(feature.boundaries, column, "right") + 1).astype(np.uint32)
    return pd.DataFrame(made)


def _streaming(app: App, frame: pl.DataFrame) -> None:
    stream = StreamingFeatures(app)
    for part in frame.iter_slices(app.config.ingest.chunk_rows):
        stream.push(part)


def _loop(app: App, frame: pl.DataFrame) -> list[list[Any]]:
    """The usual online way: dictionaries of counts, row by row."""
    features = [feature for feature in app.features if feature.kind in STATEFUL]
    wait_ms = round(app.config.labels.wait_s * 1000)
    counts: list[dict[Any, list[int]]] = [defaultdict(lambda: [0, 0]) for _ in features]
    items = [_last_items(feature.length) for feature in features]
    waiting: deque[dict[str, Any]] = deque()
    made = []
    for row in frame.iter_rows(named=True):
        while waiting and waiting[0]["event_time_ms"] + wait_ms <= row["event_time_ms"]:
            settled = waiting.popleft()
            for at, feature in enumerate(features):
                key = tuple(settled[column] for column in feature.columns)
                if feature.kind == "recent":
                    if settled["label"]:
                        items[at][key].append(settled["item_id"])
                else:
                    counts[at][key][0] += 1
                    counts[at][key][1] += settled["label"]
        made.append([_value(f, row, counts[at], items[at]) for at, f in enumerate(features)])
        waiting.append(row)
    return made


def _last_items(length: int) -> dict[Any, deque[str]]:
    return defaultdict(lambda: deque(maxlen=length))


def _value(feature: Feature, row: dict[str, Any], counts: dict[Any, list[int]], items: dict[Any, deque[str]]) -> Any:
    key = tuple(row[column] for column in feature.columns)
    if feature.kind == "recent":
        return list(items[key])
    shown, clicks = counts[key]
    if feature.kind == "count":
        return math.log1p(shown)
    return math.log((clicks + feature.prior * feature.strength) / (shown + feature.strength) / feature.prior)
