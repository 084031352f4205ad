"""The kinds of features: pinned values, missing values, and kinds of one's own."""

import math
from collections.abc import Iterator
from typing import Any

import polars as pl
import pytest

from contracts.buckets import bucket
from contracts.errors import ContractError
from contracts.features import Feature
from nodes.features import KINDS, kind
from nodes.featurize import featurize


def made(frame: dict[str, Any], *features: Feature, schema: dict[str, pl.DataType] | None = None) -> list[Any]:
    """The values of the last feature."""
    return featurize(pl.DataFrame(frame, schema_overrides=schema), features)[features[-1].name].to_list()


def feature(**given: Any) -> Feature:
    return Feature(**{"name": "f", "side": "user"} | given)


@pytest.fixture
def registry() -> Iterator[None]:
    before = dict(KINDS)
    yield
    KINDS.clear()
    KINDS.update(before)


def test_an_id_is_its_pinned_bucket_and_a_null_is_bucket_0() -> None:
    got = made({"c": ["user-1", "", "äöü 🚀", None]}, feature(kind="id", column="c", buckets=32_768))
    assert got == [bucket("user-1", 32_768), bucket("", 32_768), bucket("äöü 🚀", 32_768), 0]
    assert got == [23321, 8319, 7822, 0]


def test_an_integer_id_is_hashed_as_its_digits() -> None:
    ids = feature(kind="id", column="c", buckets=100)
    assert made({"c": [7, -7]}, ids) == made({"c": ["7", "-7"]}, ids)


def test_a_cross_is_the_bucket_of_its_parts_and_0_if_any_is_null() -> None:
    pair = feature(kind="cross", columns=("a", "b"), buckets=1000)
    assert made({"a": ["x", "xy", "x", None], "b": ["yz", "z", None, "y"]}, pair) == [
        bucket("x\x1fyz", 1000),
        bucket("xy\x1fz", 1000),
        0,
        0,
    ]
    assert bucket("x\x1fyz", 1000) != bucket("xy\x1fz", 1000)


@pytest.mark.parametrize(
    ("part", "expected"),
    [("hour_of_day", [1, 4, 24, 0]), ("day_of_week", [4, 6, 3, 0]), ("hour_of_week", [73, 124, 72, 0])],
)
def test_clock_parts_are_utc_and_begin_on_monday(part: str, expected: list[int]) -> None:
    times = [0, 1_672_459_199_999, -1, None]  # Thursday 00:00, Saturday 03:59 (31 December 2022), Wednesday 23:59
    assert made({"c": times}, feature(kind="time", column="c", part=part)) == expected


def test_a_clock_value_stays_below_its_rows() -> None:
    for part in ("hour_of_day", "day_of_week", "hour_of_week"):
        clock = feature(kind="time", column="c", part=part)
        week = featurize(pl.DataFrame({"c": pl.int_range(0, 8 * 24, eager=True) * 3_600_000}), [clock])["f"]
        assert (week.min(), week.max(), week.n_unique()) == (1, clock.rows - 1, clock.rows - 1)


NUMBERS = [0.0, 1.0, -1.0, 2.5, None, math.nan, math.inf, 1e300]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"transform": "raw"}, [0.0, 1.0, -1.0, 2.5, -7.0, -7.0, -7.0, 3.4028234663852886e38]),
        (
            {"transform": "log1p"},
            [0.0, 0.6931471824645996, -0.6931471824645996, 1.2527629137039185, -7.0, -7.0, -7.0, 690.7755126953125],
        ),
        (
            {"transform": "standardise", "mean": 1.0, "std": 2.0},
            [-0.5, 0.0, -1.0, 0.75, -7.0, -7.0, -7.0, 3.4028234663852886e38],
        ),
    ],
)
def test_a_number_is_transformed_and_a_missing_one_is_the_default(
    settings: dict[str, Any], expected: list[float]
) -> None:
    dense = feature(kind="dense", column="c", default=-7.0, **settings)
    assert made({"c": NUMBERS}, dense) == expected


def test_buckets_begin_on_their_boundary_and_a_missing_number_is_bucket_0() -> None:
    buckets = feature(kind="dense", column="c", transform="bucketise", boundaries=(0.0, 2.5))
    assert made({"c": NUMBERS}, buckets) == [2, 2, 1, 3, 0, 0, 0, 3]
    assert made({"c": [-5, 0, 3, None]}, buckets) == [1, 2, 3, 0]
    assert buckets.rows == 4


def test_a_sequence_keeps_the_last_ids_in_the_buckets_of_its_feature() -> None:
    ad = feature(name="ad", kind="id", column="item", buckets=500)
    seen = feature(kind="sequence", column="h", of="ad", length=2, only="booster")
    rows = {"item": ["x"] * 5, "h": [["a", "b", "c"], ["a", None, "b"], [], None, [None]]}
    tail = [bucket(text, 500) for text in "abc"]
    assert made(rows, ad, seen) == [tail[1:], tail[:2], [], [], []]


def test_a_column_of_nulls_alone_is_all_missing() -> None:
    nothing = pl.DataFrame({"c": [None, None]})
    ad = feature(name="ad", kind="id", column="c", buckets=500)
    kinds = [
        (ad, 0),
        (feature(kind="time", column="c"), 0),
        (feature(kind="dense", column="c"), 0.0),
        (feature(kind="sequence", column="c", of="ad"), []),
    ]
    for one, missing in kinds:
        assert featurize(nothing, [ad, one] if one is not ad else [one])[one.name].to_list() == [missing, missing]


@pytest.mark.usefixtures("registry")
def test_a_kind_of_ones_own_is_one_decorated_function() -> None:
    @kind("name_length")
    def name_length(feature: Feature) -> pl.Expr:
        return pl.col(feature.inputs[0]).str.len_chars().fill_null(0).cast(pl.Float32).alias(feature.name)

    assert made({"c": ["abc", None]}, feature(kind="name_length", column="c", output="dense")) == [3.0, 0.0]


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize(
    ("function", "output", "complaint"),
    [
        (lambda f: pl.col("c").alias(f.name), "dense", r"feature 'f': kind 'mine' gives Int64, .*\.cast\(pl.Float32\)"),
        (lambda f: pl.col("c").cast(pl.UInt32).alias(f.name), "id", r"gives the bucket 9, but the feature has 5"),
        (lambda f: pl.when(pl.col("c") > 1).then(pl.lit(1, pl.Float32)), "dense", r"gives nulls; .*fill_null"),
        (lambda f: (pl.col("c") / 0).cast(pl.Float32).alias(f.name), "dense", r"gives NaN or infinity"),
        (
            lambda f: pl.col("c").str.len_bytes().alias(f.name),
            "id",
            r"feature 'f': .*cannot be computed \(c is Int64\)",
        ),
        (lambda f: pl.col("c").head(1).cast(pl.Float32).alias(f.name), "dense", r"gives 1 rows for 2"),
    ],
)
def test_a_kind_that_breaks_its_promise_is_named(function: Any, output: str, complaint: str) -> None:
    kind("mine")(function)
    with pytest.raises(ContractError, match=complaint):
        featurize(pl.DataFrame({"c": [1, 9]}), [feature(kind="mine", column="c", output=output, buckets=5)])


def test_an_unknown_kind_is_refused_with_a_suggestion() -> None:
    with pytest.raises(ContractError, match=r"feature 'f': no kind 'dens'; did you mean 'dense'\?"):
        made({"c": [1]}, feature(kind="dens", column="c", output="dense"))


def test_a_streaming_kind_is_not_computed_row_by_row() -> None:
    from nodes.features import expression

    with pytest.raises(ContractError, match=r"'f': kind 'rate' needs the stream's past"):
        expression(feature(kind="rate", columns=("c",), only="booster"))


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize("taken", ["id", "rate"])
def test_a_taken_name_is_refused(taken: str) -> None:
    with pytest.raises(ContractError, match=f"feature kind '{taken}' is taken"):
        kind(taken)(lambda f: pl.lit(0))


@pytest.mark.usefixtures("registry")
def test_registering_the_same_function_again_is_fine() -> None:
    kind("id")(KINDS["id"])
