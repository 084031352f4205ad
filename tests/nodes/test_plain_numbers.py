"""Features of numbers without frames: the bits that the feature code gives, and no frame for what was seen before."""

import math
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.app import App
from contracts.columns import Column
from contracts.features import Feature
from nodes.fake_traffic import requests
from nodes.features import expression
from nodes.plain_numbers import plainly
from nodes.read_requests import RequestReader

EDGES = [-2.5, 0.0, 1.0, 7.0, 1e300]
DOUBLES = st.none() | st.sampled_from([*EDGES, -0.0, math.nextafter(1.0, 0), 5e-324]) | st.floats(allow_nan=False)
WHOLE = st.none() | st.integers(-(2**63), 2**63 - 1) | st.integers(-200, 200).map(lambda hour: hour * 3_600_000)
DENSE = st.builds(
    lambda transform, mean, std, default: Feature(
        name="f", kind="dense", column="x", side="item", transform=transform, mean=mean, std=std, default=default,
        boundaries=EDGES if transform == "bucketise" else (),
    ),
    st.sampled_from(["raw", "standardise", "bucketise"]),
    st.floats(-1e6, 1e6), st.floats(1e-300, 1e6), st.floats(-1e300, 1e300),
)  # fmt: skip
TIME = st.sampled_from(["hour_of_day", "day_of_week", "hour_of_week"]).map(
    lambda part: Feature(name="f", kind="time", column="x", side="context", part=part)
)


@settings(max_examples=300, deadline=None)
@given(st.one_of(
    st.tuples(DENSE, st.just("double"), st.lists(DOUBLES, min_size=1, max_size=6)),
    st.tuples(DENSE | TIME, st.just("int64"), st.lists(WHOLE, min_size=1, max_size=6)),
))  # fmt: skip
def test_numbers_become_the_bits_that_frames_give(case: tuple[Feature, str, list[Any]]) -> None:
    feature, physical, values = case
    column = Column(name="x", physical=physical)
    made = plainly(feature, column)
    assert made is not None
    frame = pl.DataFrame({"x": values}, schema={"x": column.dtype})
    right = frame.select(expression(feature))["f"].to_numpy()
    found = made(values)
    assert found.dtype == right.dtype
    assert found.tobytes() == right.tobytes()


@pytest.mark.parametrize(
    ("kind", "physical", "more"),
    [("dense", "double", {"transform": "log1p"}), ("dense", "string", {}), ("dense", "boolean", {}),
     ("time", "double", {}), ("id", "int64", {"buckets": 9})],
)  # fmt: skip
def test_all_else_is_left_to_the_frames(kind: str, physical: str, more: dict[str, Any]) -> None:
    feature = Feature(name="f", kind=kind, column="x", side="item", **more)
    assert plainly(feature, Column(name="x", physical=physical)) is None


def test_no_frame_is_made_for_requests_whose_values_were_seen_before(
    adsim: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frame takes half a millisecond, and its threads wait for a core of their own."""
    reader, asked = RequestReader(adsim), requests(adsim, 20, 5, seed=3)
    before = [reader.read([message]).request_side.features for message in asked]

    def refused(*_: object, **__: object) -> None:
        raise AssertionError("a frame was made")

    monkeypatch.setattr(pl.DataFrame, "select", refused)
    monkeypatch.setattr(pl.DataFrame, "with_columns", refused)
    for message, right in zip(asked, before, strict=True):
        found = reader.read([message])
        assert found.request_side.features is not None
        assert found.candidate_side.features is not None
        assert right is not None
        for name, values in found.request_side.features.items():
            np.testing.assert_array_equal(values, right[name])
