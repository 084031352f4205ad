"""Shipped nodes compose: a new flow in a few lines."""

import apache_beam as beam
import polars as pl

from flows.runners import bounded_pipeline, run_to_end
from nodes.join_clicks import JoinClicks
from nodes.read import ReadEvents
from nodes.simulate import simulate
from nodes.write import WriteParts


def clicks_by_site(app, events, out):
    """A report of clicks by site, from three shipped nodes: read, join, write."""
    pipeline = bounded_pipeline()
    files = [("impressions", str(events / "impressions.ndjson")), ("clicks", str(events / "clicks.ndjson"))]
    _ = (
        (pipeline | "Name files" >> beam.Create(files, reshuffle=False) | "Read" >> ReadEvents(app)).events
        | "Join" >> JoinClicks(app)
        | "Count" >> beam.Map(lambda s: s.examples.group_by("site").agg(shown=pl.len(), clicked=pl.col("label").sum()))
        | "Write" >> WriteParts(out)
    )
    run_to_end(pipeline)
    return pl.read_parquet(out / "*.parquet").group_by("site").sum().sort("site")


def test_a_new_flow_is_a_few_lines_of_shipped_nodes(adsim, tmp_path):
    told = simulate(tmp_path / "events", impressions=2_000, seed=3)
    sites = clicks_by_site(adsim, tmp_path / "events", tmp_path / "sites")
    assert sites["shown"].sum() == told["expected"]["impressions"]["accepted"]
    assert 0 < sites["clicked"].sum() <= told["expected"]["clicks"]["accepted"]
