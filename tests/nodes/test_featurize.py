"""Featurize: one row at a time whatever the batch, and errors that name the feature."""

import itertools
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.errors import ContractError
from contracts.features import Feature
from nodes.featurize import Featurizer, featurize, fill_serving_defaults


def feature(**given: Any) -> Feature:
    return Feature(**{"name": "f", "side": "user"} | given)


TABLE = [
    feature(name="user", kind="id", column="u", buckets=97),
    feature(name="pair", kind="cross", columns=("u", "site"), buckets=101),
    feature(name="hour", kind="time", column="at", part="hour_of_week"),
    feature(name="raw", kind="dense", column="x"),
    feature(name="log", kind="dense", column="x", transform="log1p"),
    feature(name="norm", kind="dense", column="x", transform="standardise", mean=0.3, std=1.7),
    feature(name="step", kind="dense", column="x", transform="bucketise", boundaries=(-1.0, 0.0, 3.5)),
    feature(name="seen", kind="sequence", column="h", of="user", length=3, only="booster"),
]
SCHEMA = {"u": pl.String(), "site": pl.String(), "at": pl.Int64(), "x": pl.Float64(), "h": pl.List(pl.String())}
TEXT = st.none() | st.text(max_size=4)
ROWS = st.lists(
    st.tuples(
        TEXT,
        TEXT,
        st.none() | st.integers(-(2**52), 2**52),
        st.none() | st.floats(),
        st.none() | st.lists(TEXT, max_size=5),
    ),
    min_size=1,
    max_size=40,
)


def bits(frame: pl.DataFrame) -> list[Any]:
    """Values of which two are equal only if their bits are."""
    return frame.with_columns(pl.col(pl.Float32).reinterpret(signed=False)).rows()


@settings(max_examples=60, deadline=None)
@given(ROWS, st.data())
def test_any_cut_and_any_column_order_give_the_same_bits(rows: list[tuple[Any, ...]], data: st.DataObject) -> None:
    frame = pl.DataFrame(rows, schema=SCHEMA, orient="row")
    whole = featurize(frame, TABLE)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=4)))
    columns = data.draw(st.permutations(list(SCHEMA)))
    edges = [0, *cuts, len(rows)]
    parts = [featurize(frame.select(columns)[start:stop], TABLE) for start, stop in itertools.pairwise(edges)]
    assert whole.height == len(rows)
    assert bits(pl.concat(parts)) == bits(whole)
    assert bits(featurize(frame.reverse(), TABLE).reverse()) == bits(whole)


@settings(max_examples=40, deadline=None)
@given(ROWS)
def test_no_row_gives_a_null_an_infinity_or_a_bucket_beyond_its_table(rows: list[tuple[Any, ...]]) -> None:
    got = featurize(pl.DataFrame(rows, schema=SCHEMA, orient="row"), TABLE)
    assert sum(got.null_count().row(0)) == 0
    for one in TABLE:
        if one.output == "dense":
            assert got[one.name].is_finite().all()
        elif one.output == "id":
            assert got[one.name].max() < one.rows
        else:
            assert got[one.name].list.len().max() <= one.length


def test_no_rows_give_typed_empty_columns() -> None:
    got = featurize(pl.DataFrame(schema=SCHEMA), TABLE)
    assert got.schema == featurize(pl.DataFrame([("a", "b", 1, 1.0, ["c"])], schema=SCHEMA, orient="row"), TABLE).schema


def test_streaming_features_are_left_out() -> None:
    rate = feature(name="rate", kind="rate", columns=("u",), only="booster")
    assert featurize(pl.DataFrame({"u": ["a"]}), [TABLE[0], rate]).columns == ["user"]


def test_an_absent_column_is_named_with_a_suggestion() -> None:
    with pytest.raises(ContractError, match=r"feature 'user': the rows have no column 'u'; known: user_id"):
        featurize(pl.DataFrame({"user_id": ["a"]}), [TABLE[0]])


def test_a_column_that_a_kind_cannot_read_is_named() -> None:
    with pytest.raises(ContractError, match=r"feature 'raw': kind 'dense' cannot be computed \(x is String\)"):
        featurize(pl.DataFrame({"u": ["a"], "x": ["cheap"]}), [TABLE[0], TABLE[3]])


def test_a_sequence_without_its_feature_is_refused() -> None:
    with pytest.raises(ContractError, match=r"feature 'seen': of = 'user' is no feature with buckets"):
        Featurizer([TABLE[-1]])


def test_two_features_of_one_name_are_refused() -> None:
    with pytest.raises(ContractError, match="give each its own name"):
        featurize(pl.DataFrame({"u": ["a"]}), [TABLE[0], TABLE[0]])


def test_a_serving_default_fills_nulls_and_absent_columns_only() -> None:
    slot = feature(name="slot", kind="dense", column="position", serve_default=1)
    site = feature(name="site", kind="id", column="site", buckets=9, serve_default="home")
    given_ = pl.DataFrame({"position": pl.Series([None, 3], dtype=pl.Int64)})
    filled = fill_serving_defaults(given_, [slot, site, TABLE[0], TABLE[2], TABLE[7]])
    assert filled["position"].to_list() == [1, 3]
    assert filled["site"].to_list() == ["home", "home"]
    assert filled.select("u", "at", "h").rows() == [(None, None, None)] * 2
    assert filled.select("u", "at", "h").dtypes == [pl.String, pl.Int64, pl.List(pl.String)]
    assert filled.schema["position"] == pl.Int64


def test_a_serving_default_is_hashed_as_the_training_value_is() -> None:
    slot = feature(name="slot", kind="id", column="position", buckets=999, serve_default=1)
    trained = featurize(pl.DataFrame({"position": [1]}), [slot])["slot"].item()
    for asked in (pl.DataFrame({"other": [0]}), pl.DataFrame({"position": pl.Series([None], dtype=pl.Int64)})):
        assert featurize(fill_serving_defaults(asked, [slot]), [slot])["slot"].item() == trained


def test_defaults_that_disagree_or_do_not_fit_are_refused() -> None:
    one = feature(name="a", kind="id", column="position", buckets=9, serve_default=1)
    with pytest.raises(ContractError, match="'a' and 'b' give the column 'position' different serve_default"):
        fill_serving_defaults(pl.DataFrame(), [one, one.model_copy(update={"name": "b", "serve_default": 2})])
    with pytest.raises(ContractError, match=r"serve_default = 'top' is no Int64"):
        fill_serving_defaults(pl.DataFrame({"position": [1]}), [one.model_copy(update={"serve_default": "top"})])
