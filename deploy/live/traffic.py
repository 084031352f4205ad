"""Simulated traffic that looks as if it happened now, and ends when it is told to."""

from pathlib import Path

import polars as pl

from contracts.app import App
from contracts.errors import ContractError
from nodes.produce import parse, shifted
from nodes.simulate import Faults, simulate

_BLOCK = 65_536  # lines moved at a time
_DAY_S = 86_400


def prepare(app: App, folder: Path, *, seconds: float, per_s: float, seed: int) -> dict[str, Path]:
    """Simulate so many seconds of traffic at so many impressions a second; returns the two files.

    Clicks that would come after the last impression are left out: nobody waits for them.

    Args:
        app: must have the columns of `adsim`; its label wait, dedupe span and disorder time the planted faults.
        folder: takes the files.
        seconds: of event time.
        per_s: impressions.
        seed: of everything random.

    Raises:
        ContractError: the app has other columns than the simulator writes.
    """
    labels = app.config.labels
    rates = Faults(disorder_s=app.config.ingest.disorder_s, wait_s=labels.wait_s, dedupe_s=labels.dedupe_s)
    simulate(folder, impressions=round(seconds * per_s), seed=seed, days=seconds / _DAY_S, rates=rates)
    files = {stream: folder / f"{stream}.ndjson" for stream in ("impressions", "clicks")}
    with files["impressions"].open("rb") as source:
        columns = set(pl.read_ndjson(next(source)).columns)
    missing = {column.name for column in app.impressions.columns if column.required} - columns
    if missing:
        raise ContractError(f"app '{app.name}': the simulator writes no column '{min(missing)}'; use the app adsim")
    times = parse(files["impressions"].read_bytes().splitlines())["event_time_ms"]
    last_ms = int(times.filter(times.is_between(*app.config.ingest.event_times_ms)).max())  # type: ignore[arg-type]
    lines = files["clicks"].read_bytes().splitlines()
    late = (parse(lines)["event_time_ms"] > last_ms).fill_null(value=False).to_list()
    files["clicks"].write_bytes(b"".join(line + b"\n" for line, gone in zip(lines, late, strict=True) if not gone))
    return files


def moved_to(app: App, files: dict[str, Path], folder: Path, start_ms: int) -> dict[str, Path]:
    """The same files with their event times moved so that the first plausible one is `start_ms`.

    Args:
        app: says which times are plausible.
        files: stream -> NDJSON.
        folder: takes the moved files.
        start_ms: epoch milliseconds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lines = {stream: path.read_bytes().splitlines() for stream, path in files.items()}
    times = parse(lines["impressions"])["event_time_ms"]
    first_ms = int(times.filter(times.is_between(*app.config.ingest.event_times_ms)).min())  # type: ignore[arg-type]
    moved = {}
    for stream, some in lines.items():
        moved[stream] = folder / f"{stream}.ndjson"
        with moved[stream].open("wb") as sink:
            for start in range(0, len(some), _BLOCK):
                part = shifted(some[start : start + _BLOCK], start_ms - first_ms)
                sink.write(b"".join(line + b"\n" for line in part))
    return moved
