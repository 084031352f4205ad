"""Every Beam node keeps the house rules."""

from pathlib import Path
from typing import Any

import apache_beam as beam
import polars as pl
import pytest
from apache_beam.pvalue import PCollection

from contracts.app import load_app
from nodes.featurize_chunks import AddStreamingFeatures, Featurize
from nodes.join_clicks import JoinClicks
from nodes.order import OrderRows
from nodes.read import ReadEvents
from nodes.sample import SampleNegatives
from nodes.testing import check_node
from nodes.write import WriteExamples, WriteParts

APP = load_app("adsim")


@pytest.mark.parametrize(
    "node",
    [
        ReadEvents(APP),
        JoinClicks(APP),
        SampleNegatives(APP),
        Featurize(APP),
        OrderRows(["event_time_ms", "impression_id"], 100),
        AddStreamingFeatures(APP),
        WriteExamples(Path("unused"), "adsim"),
        WriteParts(Path("unused")),
    ],
    ids=lambda node: type(node).__name__,
)
def test_the_node_keeps_the_house_rules(node):
    check_node(node)


class _Undeclared(beam.PTransform):
    """Says nothing of what it takes."""

    def expand(self, rows):
        return rows


class _Undocumented(beam.PTransform):
    def expand(self, rows: PCollection[pl.DataFrame]) -> PCollection[pl.DataFrame]:
        return rows


class _Unsendable(beam.PTransform):
    """Holds an open file."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = (n for n in range(3))

    def expand(self, rows: PCollection[pl.DataFrame]) -> PCollection[pl.DataFrame]:
        return rows


class _FromNothing(beam.PTransform):
    """Makes a row of no rows."""

    def expand(self, rows: PCollection[pl.DataFrame]) -> PCollection[pl.DataFrame]:
        return rows.pipeline | beam.Create([pl.DataFrame({"a": [1]})], reshuffle=False)


@pytest.mark.parametrize(
    ("node", "complaint"),
    [
        (_Undeclared(), "does not declare"),
        (_Undocumented(), "no docstring"),
        (_Unsendable(), "pickle"),
        (_FromNothing(), "Failed assert"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, beam.PTransform) else "",
)
def test_a_node_that_breaks_a_rule_is_found(node: Any, complaint: str):
    with pytest.raises(Exception, match=complaint):
        check_node(node)
