"""Join speed on the embedded runner: chunks of events into labelled examples, against a join row by row.

Events per CPU-second of the whole pipeline run, decoded events in memory; runs of both sides interleaved; medians.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam

from contracts.app import App, load_app
from flows.runners import bounded_pipeline, run_to_end
from nodes.chunks import Chunk
from nodes.join_clicks import JoinClicks
from nodes.simulate import simulate
from nodes.source import read_events

_Row = tuple[str, dict[str, Any]]
#: The events of each side; in `beam.Create`, or in a lambda, they would be pickled and compressed with the pipeline.
_CHUNKS: list[Chunk] = []
_ROWS: list[_Row] = []


def run(quick: bool) -> dict[str, Any]:  # noqa: FBT001  # the form of every bench
    """JoinClicks on 300k impressions and their clicks (20k when quick), and the peer on the first tenth of them."""
    app, repeats = load_app("adsim"), 3 if quick else 5
    with tempfile.TemporaryDirectory() as folder:
        _CHUNKS[:] = _chunks(app, Path(folder), 20_000 if quick else 300_000)
    _ROWS[:] = [
        (row["impression_id"], row | {"is_click": chunk.stream == "clicks"})
        for chunk in _CHUNKS
        for row in chunk.frame.head(max(1, chunk.frame.height // 10)).iter_rows(named=True)
    ]
    events = sum(chunk.frame.height for chunk in _CHUNKS)
    sides: dict[str, Callable[[], None]] = {
        "rocket": lambda: _chunk_wise(app),
        "row_by_row": lambda: _row_by_row(app, len(_ROWS)),
        "nothing": lambda: _row_by_row(app, 1),
    }
    took: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, side in sides.items():
            begun = time.process_time()
            side()
            took[name].append(time.process_time() - begun)
    spent = {name: statistics.median(seconds) for name, seconds in took.items()}
    rocket, peer = events / spent["rocket"], len(_ROWS) / spent["row_by_row"]
    return {
        "events_per_cpu_s": {"rocket": rocket, "row_by_row": peer},
        "rocket_over_row_by_row": rocket / peer,
        "empty_pipeline_cpu_s": spent["nothing"],
        "events": {"rocket": events, "row_by_row": len(_ROWS)},
        "repeats": repeats,
    }


def _chunks(app: App, folder: Path, impressions: int) -> list[Chunk]:
    simulate(folder, impressions=impressions, seed=1)
    streams = (("impressions", app.impressions), ("clicks", app.clicks))
    return [
        Chunk(stream, read.frame)
        for stream, contract in streams
        for read in read_events(folder / f"{stream}.ndjson", contract, app, stream)
    ]


def _held_chunks(_: bytes) -> Iterable[Chunk]:
    return _CHUNKS


def _held_rows(_: bytes, rows: int) -> Iterable[_Row]:
    return _ROWS[:rows]


def _chunk_wise(app: App) -> None:
    pipeline = bounded_pipeline()
    events = pipeline | beam.Impulse() | "Events" >> beam.FlatMap(_held_chunks)
    _ = events | "Join clicks" >> JoinClicks(app) | "Count" >> beam.Map(lambda settled: settled.examples.height)
    run_to_end(pipeline)


class _LabelOne(beam.DoFn):
    """The usual way: one impression's rows together; a click inside the wait makes it positive."""

    def __init__(self, wait_ms: int) -> None:
        self._wait_ms = wait_ms

    def process(self, keyed: tuple[str, Iterable[dict[str, Any]]]) -> Iterator[dict[str, Any]]:
        rows = sorted((row for row in keyed[1] if not row["_late"]), key=lambda row: row["event_time_ms"])
        shown = next((row for row in rows if not row["is_click"]), None)
        if shown is not None:
            until = shown["event_time_ms"] + self._wait_ms
            label = any(row["is_click"] and row["event_time_ms"] <= until for row in rows)
            yield shown | {"label": int(label)}


def _row_by_row(app: App, rows: int) -> None:
    pipeline = bounded_pipeline()
    labelled = (
        pipeline
        | beam.Impulse()
        | "Rows" >> beam.FlatMap(_held_rows, rows)
        | "Group by impression" >> beam.GroupByKey()
        | "Label" >> beam.ParDo(_LabelOne(round(app.config.labels.wait_s * 1000)))
    )
    _ = labelled | "Count" >> beam.Map(lambda row: row["label"])
    run_to_end(pipeline)
