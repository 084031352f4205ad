"""Importing a log: rows of Criteo's layout a CPU-second, against the loop that one would write first.

The loop reads with the csv module and writes a JSON object a row; it makes the same impressions and clicks (it draws
other delays) and no requests, so none are made here either. `ratio` says how many times faster the import is.
"""

import csv
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from contracts.app import load_app
from nodes.imports.criteo import IDS, KAGGLE_DAY, NUMBERS, START_MS, criteo_rows
from nodes.imports.event_files import write_events


def run(quick: bool) -> dict[str, Any]:  # noqa: FBT001  # the form of every bench
    """Medians over repeats in turns, CPU seconds of the whole process."""
    rows, repeats = (5_000, 1) if quick else (100_000, 3)
    app = load_app("criteo")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = folder / "train.txt"
        source.write_bytes(_lines(rows))
        paths: dict[str, Callable[[], Any]] = {
            "rocket_import": lambda: write_events(
                criteo_rows([source]), folder / "rocket", app, about={"source": str(source)}, requests=False
            ),
            "row_by_row": lambda: _row_by_row(source, folder),
        }
        seconds: dict[str, list[float]] = {path: [] for path in paths}
        for _ in range(repeats):
            for path, work in paths.items():
                started = time.process_time()
                work()
                seconds[path].append(time.process_time() - started)
        same = (folder / "rocket" / "impressions.ndjson").read_bytes() == (folder / "impressions.ndjson").read_bytes()
        megabytes = source.stat().st_size / 1e6
    speed = {path: rows / statistics.median(took) for path, took in seconds.items()}
    return {
        "rows": rows,
        "megabytes": megabytes,
        "repeats": repeats,
        "same_impressions": same,
        "rows_per_cpu_s": speed,
        "ratio": speed["rocket_import"] / speed["row_by_row"],
    }


def _lines(rows: int) -> bytes:
    """Random rows: one field of ten is missing."""
    draw = np.random.default_rng(1)
    numbers = draw.integers(0, 1000, (rows, len(NUMBERS))).astype("U")
    ids = np.strings.zfill(draw.integers(0, 10**8, (rows, len(IDS))).astype("U"), 8)
    fields = np.concatenate([draw.integers(0, 2, (rows, 1)).astype("U"), numbers, ids], axis=1)
    fields[:, 1:][draw.random((rows, fields.shape[1] - 1)) < 0.1] = ""
    return "".join("\t".join(row) + "\n" for row in fields.tolist()).encode()


def _row_by_row(source: Path, folder: Path) -> None:
    with (
        source.open(newline="") as file,
        (folder / "impressions.ndjson").open("w") as shown,
        (folder / "clicks.ndjson").open("w") as clicked,
    ):
        clicks = []
        for number, record in enumerate(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)):
            key, at = f"train-{number}", START_MS + number * 86_400_000 // KAGGLE_DAY
            row: dict[str, Any] = {"impression_id": key, "event_time_ms": at, "user_id": key, "item_id": key}
            row |= {name: int(text) if text else None for name, text in zip(NUMBERS, record[1:14], strict=True)}
            row |= {name: text or None for name, text in zip(IDS, record[14:], strict=True)}
            shown.write(json.dumps(row, separators=(",", ":")) + "\n")
            if record[0] == "1":
                delay_ms = 1 + int(random.lognormvariate(2.08, 1.3) * 1000)
                clicks.append({"click_id": f"{key}-c", "impression_id": key, "event_time_ms": at + delay_ms})
        clicks.sort(key=lambda one: str(one["event_time_ms"]))
        clicked.writelines(json.dumps(one, separators=(",", ":")) + "\n" for one in clicks)
