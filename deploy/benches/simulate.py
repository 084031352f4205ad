"""Simulated impressions a CPU-second, files included; the peer only writes the same rows (Polars' write_ndjson)."""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import polars as pl

from nodes.simulate import Faults, simulate


def run(quick: bool) -> dict[str, Any]:  # noqa: FBT001
    """Medians over repeats, CPU seconds of the whole process.

    Args:
        quick: one small run.

    Returns:
        `impressions_per_cpu_s`, and `ratio`: how much faster than the peer, which has its rows ready and only writes.
    """
    impressions, repeats = (50_000, 1) if quick else (300_000, 3)
    made, written = [], []
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        simulate(out, impressions=impressions, rates=Faults(malformed=0))  # pays for imports and thread pools too
        rows = pl.read_ndjson(out / "impressions.ndjson")
        for seed in range(1, repeats + 1):
            started = time.process_time()
            simulate(out, impressions=impressions, seed=seed)
            made.append(impressions / (time.process_time() - started))
            started = time.process_time()
            rows.write_ndjson(out / "peer.ndjson")
            written.append(rows.height / (time.process_time() - started))
        megabytes = (out / "impressions.ndjson").stat().st_size / 1e6
    return {
        "impressions": impressions,
        "repeats": repeats,
        "megabytes": megabytes,
        "impressions_per_cpu_s": statistics.median(made),
        "polars_write_ndjson_rows_per_cpu_s": statistics.median(written),
        "ratio": statistics.median(made) / statistics.median(written),
    }
