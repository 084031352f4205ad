"""The whole live flow on Prism, whose event time jumps over many slots at once."""

from pathlib import Path

import apache_beam as beam
import polars as pl
import pytest

from contracts.app import load_app
from contracts.events import Mark
from flows.ingest import wire
from flows.runners import live_pipeline, start
from nodes.append_examples import AppendExamples, close_examples
from nodes.example_log import ExampleDirectory
from nodes.follow_log import FollowLog
from nodes.ledger import read_fates
from nodes.positions import basis_of, newest
from nodes.read import Checked
from nodes.slots import slots_of
from tests.endless_chunks import ReadChunks, traffic
from tests.flows.ingest_files import example_rows
from tests.live_world import expected

pytestmark = pytest.mark.e2e
APP = load_app(
    "adsim",
    {
        "labels": {"wait_s": 10, "dedupe_s": 25},
        "ingest": {"disorder_s": 4, "shards": 2},
        "live": {"slot_s": 0.5, "position_every_s": 0.2},
    },
)


def test_event_time_that_jumps_over_many_slots_changes_no_row_and_positions_are_written(tmp_path: Path):
    events = traffic(300)
    topics = {stream: [e for e in events if e.stream == stream] for stream in ("impressions", "clicks")}
    basis = basis_of(APP, {"t": 1})
    pipeline = live_pipeline("prism", APP)
    read = pipeline | ReadChunks(events)  # five seconds of event time, ten slots, a step
    dead = read | "Dead" >> beam.FlatMap(lambda _: ()).with_output_types(pl.DataFrame)
    marks = read | "Marks" >> beam.Map(lambda chunk: Mark(chunk.stream, 0, -(2**62))).with_output_types(Mark)
    ingested = wire(Checked(read, dead, marks), APP, FollowLog(APP, tmp_path, None, basis=basis))
    _ = ingested.examples | "Append" >> AppendExamples(APP, tmp_path / "examples", str(tmp_path))
    try:
        with start(pipeline) as running:
            assert running.wait()
            counted = running.counters()
    finally:
        close_examples(str(tmp_path))
    rows, fates = expected(APP, topics)
    assert example_rows(tmp_path, APP).equals(rows)
    keys = ["stream", "line"]
    written = read_fates(tmp_path / "fates").drop("origin").sort(keys)
    assert written.equals(fates.drop("origin").sort(keys))
    assert counted["ctr_follow_rows_total"] == rows.height
    position = newest(
        tmp_path / "positions", ExampleDirectory(tmp_path / "examples").rows(), basis, slots_of(APP).fine_ms
    )
    assert position is not None
    assert position.row == rows.height
