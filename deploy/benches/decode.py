"""JSON lines to features: Rocket's path against the usual pandas ways, on the same bytes in the same process.

Ours: strict decode, row check, featurize. pandas: `read_json(lines=True)`, or `json.loads` a line and a DataFrame; then
xxHash64 into buckets once per unique value, `searchsorted` and `log1p`. pandas checks nothing; both give the same
features.
"""

import io
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl

from contracts.app import App, load_app
from contracts.buckets import bucket
from contracts.errors import RocketError
from contracts.features import Feature
from contracts.rowcheck import reasons
from nodes.decode import decode
from nodes.featurize import Featurizer

try:
    import pandas as pd
except ImportError as error:
    raise RocketError("this stage is measured against pandas; install it: pip install pandas") from error

Values = np.ndarray[Any, np.dtype[Any]]
_START_MS = 1_700_000_000_000


def run(quick: bool) -> dict[str, Any]:  # noqa: FBT001 - every bench is called so
    """Rows per CPU-second of each path, and how many times faster ours is than the faster pandas way."""
    app = load_app("adsim")
    rows, repeats = (4_000, 1) if quick else (100_000, 5)
    data = _events(rows)
    light = (*app.layout.light_ids, *app.layout.light_dense)
    features = tuple(feature for feature in light if feature.kind in {"id", "time", "dense"})
    rocket = _Ours(app, features)
    paths: dict[str, Callable[[], Any]] = {
        "rocket": lambda: rocket(data),
        "pandas_read_json": lambda: _pandas_features(pd.read_json(io.BytesIO(data), lines=True), features),
        "pandas_json_loads": lambda: _pandas_features(pd.DataFrame(list(map(json.loads, data.splitlines()))), features),
    }
    _same(rocket(data), paths["pandas_read_json"](), features)
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in paths}
    for _ in range(repeats):  # by turns, so that a slow moment of the machine meets all
        for name, path in paths.items():
            seconds[name].append(_time(path))
    cpu = {name: statistics.median(c for c, _ in taken) for name, taken in seconds.items()}
    wall = {name: statistics.median(w for _, w in taken) for name, taken in seconds.items()}
    times = {
        name: statistics.median(theirs / ours for (theirs, _), (ours, _) in zip(taken, seconds["rocket"], strict=True))
        for name, taken in seconds.items()
    }
    return {
        "rows": rows,
        "bytes_per_row": len(data) / rows,
        "repeats": repeats,
        "rows_per_cpu_second": {name: rows / value for name, value in cpu.items()},
        "rows_per_wall_second": {name: rows / value for name, value in wall.items()},
        "times_pandas_read_json": times["pandas_read_json"],
        "times_pandas_json_loads": times["pandas_json_loads"],
        "times_faster_pandas": min(times["pandas_read_json"], times["pandas_json_loads"]),
        "goal_times_pandas": 2.5,
    }


class _Ours:
    """The path that ingest takes, chunk by chunk."""

    def __init__(self, app: App, features: tuple[Feature, ...]) -> None:
        self._contract, self._ingest = app.impressions, app.config.ingest
        self._reasons, self._featurize = reasons(app.impressions), Featurizer(features)

    def __call__(self, data: bytes) -> pl.DataFrame:
        lines, size = data.splitlines(), self._ingest.chunk_rows
        return pl.concat(self._chunk(lines[start : start + size]) for start in range(0, len(lines), size))

    def _chunk(self, lines: list[bytes]) -> pl.DataFrame:
        limit = self._ingest.max_event_bytes
        got = decode(lines, self._contract, stream="impressions", origin="", first_line=0, max_event_bytes=limit)
        return self._featurize(got.frame.filter(self._reasons.is_null()))


def _pandas_features(frame: "pd.DataFrame", features: tuple[Feature, ...]) -> dict[str, Values]:
    return {feature.name: _pandas_feature(frame[feature.inputs[0]], feature) for feature in features}


def _pandas_feature(column: "pd.Series[Any]", feature: Feature) -> Values:
    if feature.kind == "id":
        codes, unique = pd.factorize(column)
        buckets = np.array([*(bucket(str(value), feature.rows) for value in unique), 0], np.uint32)
        made = buckets[codes]  # a null has the code -1
    elif feature.kind == "time":
        made = (pd.to_datetime(column, unit="ms").dt.hour + 1).to_numpy(np.uint32)
    elif feature.transform == "bucketise":
        made = (np.searchsorted(feature.boundaries, column.to_numpy(), side="right") + 1).astype(np.uint32)
    elif feature.transform == "log1p":
        made = np.log1p(column.to_numpy(np.float64)).astype(np.float32)
    else:
        mean, std = (feature.mean, feature.std) if feature.transform == "standardise" else (0.0, 1.0)
        made = ((column.to_numpy(np.float64) - mean) / std).astype(np.float32)
    return np.asarray(made)


def _same(ours: pl.DataFrame, theirs: dict[str, Values], features: tuple[Feature, ...]) -> None:
    for feature in features:
        if not np.allclose(ours[feature.name].to_numpy(), theirs[feature.name], rtol=1e-6):
            raise RocketError(f"feature '{feature.name}' differs between the paths, so their times mean nothing")


def _time(path: Callable[[], Any]) -> tuple[float, float]:
    cpu, wall = time.process_time(), time.perf_counter()
    path()
    return time.process_time() - cpu, time.perf_counter() - wall


def _events(rows: int) -> bytes:
    """Impressions of adsim as JSON lines, with its columns, sizes and repeats of ids."""
    rng = np.random.default_rng(7)

    def word(prefix: str, kinds: int) -> pl.Series:
        return pl.Series([f"{prefix}{number}" for number in range(kinds)]).gather(rng.integers(kinds, size=rows))

    history = [[f"ad{ad}" for ad in ads[: len(ads) - drop]] for ads, drop in _clicked(rng, rows)]
    frame = pl.DataFrame(
        {
            "impression_id": [f"imp-{number:09d}" for number in range(rows)],
            "event_time_ms": _START_MS + 37 * np.arange(rows),
            "user_id": word("u", 20_000),
            "segment": word("s", 20),
            "age_band": pl.Series(["18-24", "25-34", "55+", None]).gather(rng.integers(4, size=rows)),
            "user_activity": rng.uniform(0, 30, rows).round(3),
            "history": history,
            "device": pl.Series(["mobile", "desktop", "tablet"]).gather(rng.integers(3, size=rows)),
            "site": word("site", 300),
            "position": rng.integers(1, 9, rows),
            "item_id": word("ad", 5000),
            "campaign_id": word("c", 900),
            "category": word("cat", 60),
            "format": pl.Series(["banner", "native", "video"]).gather(rng.integers(3, size=rows)),
            "bid": rng.uniform(0, 50, rows).round(2),
        }
    )
    return frame.write_ndjson().encode()


def _clicked(rng: np.random.Generator, rows: int) -> Any:
    return zip(rng.integers(5000, size=(rows, 7)).tolist(), rng.integers(8, size=rows).tolist(), strict=True)
