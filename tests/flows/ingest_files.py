"""Events as files for the ingest tests, and what was written read back."""

import json
from pathlib import Path

import polars as pl
import xxhash

from contracts.app import App
from contracts.buckets import SEED
from contracts.events import DEAD_LETTERS, FATES
from nodes.example_log import ExampleDirectory

START_MS = 1_767_225_600_000


def impression(number: int, at_s: float, **columns) -> bytes:
    row = {
        "impression_id": f"i{number}", "event_time_ms": START_MS + round(at_s * 1000), "user_id": f"u{number % 7}",
        "segment": "s1", "device": "mobile", "site": "news", "position": 1 + number % 3, "item_id": f"a{number % 5}",
        "campaign_id": "k1", "category": "c1", "format": "banner", "bid": 1.5,
    }  # fmt: skip
    return json.dumps(row | columns).encode()


def click(number: int, of: int, at_s: float, **columns) -> bytes:
    row = {"click_id": f"c{number}", "impression_id": f"i{of}", "event_time_ms": START_MS + round(at_s * 1000)}
    return json.dumps(row | columns).encode()


def write_lines(path: Path, lines: list[bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def fates(out: Path) -> pl.DataFrame:
    parts = sorted((out / "fates").glob("*.parquet"))
    rows = pl.read_parquet(parts) if parts else pl.DataFrame(schema=FATES)
    return rows.sort("stream", "origin", "line")


def dead_letters(out: Path) -> pl.DataFrame:
    parts = sorted((out / "dead_letters").glob("*.parquet"))
    rows = pl.read_parquet(parts) if parts else pl.DataFrame(schema=DEAD_LETTERS)
    return rows.sort("stream", "origin", "line")


def example_rows(out: Path, app: App) -> pl.DataFrame:
    return pl.concat([batch.frame for batch in ExampleDirectory(out / "examples").read(0, app.schema_id)])


def hash_of(line: bytes) -> int:
    return xxhash.xxh64_intdigest(line, SEED)
