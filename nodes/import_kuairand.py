"""The KuaiRand-Pure log becomes impressions, clicks and requests.

    log rows ─┬─ + user, video, history ─▶ impressions.ndjson ─▶ requests.ndjson
              └─ is_click, drawn delay  ─▶ clicks.ndjson

The public log has no click times: each click's delay is drawn from a seeded log-normal distribution (median 8 s,
99.95 % within 600 s); import.json says so. What the user did with a video after it was shown (every feedback column)
never gets into an impression: the columns that do are named one by one in `nodes.kuairand_source`.
"""

import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import polars as pl

from contracts.app import App, load_app
from contracts.errors import StoreError
from nodes.files import PARTIAL, sync_folder, write_whole
from nodes.imports.drawn_delays import NOTE, drawn_delays_ms
from nodes.kuairand_source import HISTORY_ITEMS, Source, open_source
from nodes.requests import requests_from

_CHUNK_ROWS = 32_768
_STREAMS = ("impressions", "clicks", "requests")


def import_kuairand(
    source: Path,
    out: Path,
    *,
    seed: int = 1,
    app: App | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Write the events and requests of a KuaiRand-Pure folder; return what was written.

    Every row of the log from 25 April 2022 on gives one impression, in time order, repeated rows too (dropping them is
    ingest's work), and every clicked row one click. What the user saw and liked before that day is the history.

    Args:
        source: a folder with the parquet files (log_*.parquet, user_features_pure.parquet, ...) or with the
            official CSVs (log_standard_*_pure.csv, user_features_pure.csv, video_features_basic_pure.csv).
        out: gets impressions.ndjson, clicks.ndjson, requests.ndjson (one per user and minute) and import.json.
        seed: of the click delays.
        app: whose contracts the events keep; None: the shipped kuairand app.
        on_progress: told of rows written, chunk by chunk.

    Raises:
        ContractError: a source file is missing or is not what the public data set holds.
        StoreError: `out` cannot be written.
    """
    app = app or load_app("kuairand")
    log = open_source(source)
    figures: dict[str, Any] = {
        "source": log.kind,
        "seed": seed,
        "impressions": log.rows.height,
        "clicks": int(log.rows["is_click"].sum()),
        "users": log.rows["user_id"].n_unique(),
        "videos": log.rows["video_id"].n_unique(),
        "first_ms": log.rows["time_ms"].min(),
        "last_ms": log.rows["time_ms"].max(),
        "history_items": HISTORY_ITEMS,
        "click_delay": NOTE,
    }
    out.mkdir(parents=True, exist_ok=True)
    partial = {name: out / f".{name}.ndjson{PARTIAL}" for name in _STREAMS}
    try:
        with ExitStack() as stack:
            sinks = {name: stack.enter_context(path.open("wb")) for name, path in partial.items()}
            _clicks(log.rows, seed).write_ndjson(sinks["clicks"])
            figures["requests"] = _impressions_and_requests(log, app, sinks, on_progress)
        for name, path in partial.items():
            path.replace(out / f"{name}.ndjson")
        sync_folder(out)
    except OSError as error:
        raise StoreError(
            f"{out}: cannot be written ({error}); free the space, or give a folder that you own"
        ) from error
    finally:
        for path in partial.values():
            path.unlink(missing_ok=True)
    write_whole(out / "import.json", json.dumps(figures, indent=2).encode())
    return figures


def _impressions_and_requests(
    log: Source, app: App, sinks: Mapping[str, BinaryIO], on_progress: Callable[[int], None] | None
) -> int:
    """Write both chunk by chunk; the rows of a chunk's last minute wait for the next, so that no request is cut."""
    num_requests = 0
    waiting = pl.DataFrame()
    for start in range(0, log.rows.height, _CHUNK_ROWS):
        rows = log.rows.slice(start, _CHUNK_ROWS)
        impressions = log.impressions(rows)
        impressions.write_ndjson(sinks["impressions"])
        shown = pl.concat([waiting, impressions]) if waiting.height else impressions
        if start + _CHUNK_ROWS < log.rows.height:
            minute = pl.col("event_time_ms") // 60_000
            whole = minute < minute.max()
            shown, waiting = shown.filter(whole), shown.filter(~whole)
        requests = requests_from(shown, app).lines
        sinks["requests"].writelines(f"{line}\n".encode() for line in requests)
        num_requests += requests.len()
        if on_progress:
            on_progress(rows.height)
    return num_requests


def _clicks(rows: pl.DataFrame, seed: int) -> pl.DataFrame:
    """One click a clicked row, in order of their drawn times."""
    clicked = rows.filter(pl.col("is_click") == 1)
    delay_ms = drawn_delays_ms(np.random.default_rng(seed), clicked.height)
    nth = pl.int_range(1, pl.len() + 1).over("impression_id")
    return clicked.select(
        pl.format("{}-c{}", "impression_id", nth).alias("click_id"),
        "impression_id",
        (pl.col("time_ms") + delay_ms).alias("event_time_ms"),
    ).sort("event_time_ms", "click_id")
