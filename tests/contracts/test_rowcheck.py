"""The compiled row check against each rule, and against a judge that goes row by row."""

import math
import re

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.app import App
from contracts.errors import ContractError
from contracts.odcs import Column, DataContract
from contracts.rowcheck import polars_schema, reasons


def _contract(*columns: Column) -> DataContract:
    return DataContract(path="made.odcs.yaml", id="made", name="made", version="1", columns=columns)


def _reasons(contract: DataContract, rows: list[dict[str, object]]) -> list[str | None]:
    frame = pl.DataFrame(rows, schema=polars_schema(contract))
    return frame.select(reason=reasons(contract))["reason"].to_list()


def _codes(column: Column, values: list[object]) -> list[str | None]:
    found = _reasons(_contract(column), [{column.name: value} for value in values])
    return [text.split(":")[0] if text else None for text in found]


@pytest.mark.parametrize(
    ("column", "values", "codes"),
    [
        (Column(name="c", physical="string", required=True), ["", None], [None, "missing"]),
        (Column(name="c", physical="int64", minimum=3), [3, 2, None], [None, "below_minimum", None]),
        (Column(name="c", physical="int64", maximum=3), [3, 4, None], [None, "above_maximum", None]),
        (Column(name="c", physical="int64", minimum=2.5), [3, 2], [None, "below_minimum"]),
        (Column(name="c", physical="int64", maximum=2.5), [2, 3], [None, "above_maximum"]),
        (Column(name="c", physical="int64", minimum=-1e30, maximum=1e30), [-(2**63), 2**63 - 1], [None, None]),
        (Column(name="c", physical="double", minimum=0.5, maximum=1), [0.5, 0.4, 1.5, 1.0],
         [None, "below_minimum", "above_maximum", None]),
        (Column(name="c", physical="double"), [1.0, math.nan, math.inf, -math.inf, None],
         [None, "not_finite", "not_finite", "not_finite", None]),
        (Column(name="c", physical="double", maximum=1), [math.nan, math.inf], ["not_finite", "not_finite"]),
        (Column(name="c", physical="string", min_length=2, max_length=3), ["é", "éé", "ééé", "éééé", None],
         ["too_short", None, None, "too_long", None]),
        (Column(name="c", physical="list<string>", min_length=1, max_length=2), [[], ["a"], ["a"] * 3, None],
         ["too_short", None, "too_long", None]),
        (Column(name="c", physical="string", pattern="a|bc"), ["a", "bc", "ac", "xbc", "bc\n", None],
         [None, None, "pattern", "pattern", "pattern", None]),
        (Column(name="c", physical="string", allowed=("x", "y")), ["x", "z", None], [None, "not_allowed", None]),
        (Column(name="c", physical="int64", allowed=("1", "2")), [1, 3], [None, "not_allowed"]),
        (Column(name="c", physical="double", allowed=("1", "2.5")), [1.0, 2.5, 3.0], [None, None, "not_allowed"]),
        (Column(name="c", physical="boolean", allowed=("True",)), [True, False, None], [None, "not_allowed", None]),
        (Column(name="c", physical="list<string>", allowed=("x", "y")), [["x", "y"], [], ["x", "z"], None],
         [None, None, "not_allowed", None]),
    ],
)  # fmt: skip
def test_each_rule_refuses_what_breaks_it_and_nothing_else(column, values, codes):
    assert _codes(column, values) == codes


def test_bounds_of_whole_numbers_are_exact_beyond_the_precision_of_a_double():
    edge = 2**53
    assert _codes(Column(name="c", physical="int64", maximum=edge), [edge, edge + 1]) == [None, "above_maximum"]


def test_the_first_breach_in_contract_order_is_told():
    contract = _contract(
        Column(name="first", physical="string", required=True, min_length=2, pattern="[a-z]*"),
        Column(name="second", physical="int64", minimum=0),
    )
    rows = [{"first": "1", "second": -1}, {"first": "12", "second": -1}, {"first": "ab", "second": -1}]
    assert _reasons(contract, rows) == [
        "too_short: first must have at least 2 characters",
        "pattern: first must match [a-z]*",
        "below_minimum: second must be at least 0",
    ]


def test_the_detail_never_quotes_the_value():
    column = Column(name="c", physical="string", max_length=3, allowed=("x",), pattern="x")
    assert "secret" not in str(_reasons(_contract(column), [{"c": "secret"}]))


def test_a_long_list_of_allowed_values_is_cut_in_the_detail():
    column = Column(name="c", physical="string", allowed=tuple(f"value{n}" for n in range(1000)))
    [reason] = _reasons(_contract(column), [{"c": "other"}])
    assert reason is not None
    assert len(reason) < 200


def test_a_contract_without_rules_finds_every_row_good_and_keeps_the_height():
    contract = _contract(Column(name="c", physical="string"))
    assert _reasons(contract, []) == []
    assert _reasons(contract, [{"c": "a"}, {"c": None}]) == [None, None]


def test_an_empty_chunk_has_no_reasons(adsim: App):
    assert _reasons(adsim.impressions, []) == []


@pytest.mark.parametrize(
    "column",
    [
        Column(name="c", physical="string", minimum=1),
        Column(name="c", physical="boolean", maximum=1),
        Column(name="c", physical="int64", minimum=math.inf),
        Column(name="c", physical="double", minimum=math.nan),
        Column(name="c", physical="int64", max_length=3),
        Column(name="c", physical="int64", pattern="1"),
        Column(name="c", physical="string", pattern="(?=a)b"),
        Column(name="c", physical="int64", allowed=("one",)),
    ],
)
def test_a_rule_that_its_type_cannot_have_is_a_contract_error(column):
    with pytest.raises(ContractError, match=r"made\.odcs\.yaml, column 'c'"):
        reasons(_contract(column))


def test_the_check_is_one_expression_beside_others_in_one_select(adsim: App):
    frame = pl.DataFrame({"impression_id": ["i"]}).with_columns(
        pl.lit(None, dtype).alias(name) for name, dtype in polars_schema(adsim.impressions).items() if name[0] != "i"
    )
    frame = frame.with_columns(pl.lit("a").alias("item_id"))
    got = frame.lazy().select("impression_id", reason=reasons(adsim.impressions)).collect()
    assert got.rows() == [("i", "missing: event_time_ms is required")]


MIXED = _contract(
    Column(name="id", physical="string", required=True, min_length=1, max_length=4, pattern="[a-c]*"),
    Column(name="n", physical="int64", minimum=-2, maximum=5),
    Column(name="x", physical="double", required=True, minimum=-1.5, maximum=2),
    Column(name="tags", physical="list<string>", max_length=2),
    Column(name="kind", physical="string", allowed=("a", "b")),
)


def _judge(row: dict[str, object]) -> str | None:
    """The same rules, one row and one value at a time."""
    for column in MIXED.columns:
        value = row[column.name]
        if value is None:
            if column.required:
                return "missing"
            continue
        if isinstance(value, float) and not math.isfinite(value):
            return "not_finite"
        if column.minimum is not None and value < column.minimum:
            return "below_minimum"
        if column.maximum is not None and value > column.maximum:
            return "above_maximum"
        if column.min_length is not None and len(value) < column.min_length:
            return "too_short"
        if column.max_length is not None and len(value) > column.max_length:
            return "too_long"
        if column.pattern is not None and not re.fullmatch(column.pattern, value):
            return "pattern"
        if column.allowed is not None and value not in column.allowed:
            return "not_allowed"
    return None


_ROWS = st.fixed_dictionaries(
    {
        "id": st.none() | st.text("abcd", max_size=5),
        "n": st.none() | st.integers(-4, 7),
        "x": st.none() | st.floats(-3, 3) | st.sampled_from([math.nan, math.inf, -math.inf]),
        "tags": st.none() | st.lists(st.just("t"), max_size=4),
        "kind": st.none() | st.sampled_from(["a", "b", "c"]),
    }
)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(_ROWS, max_size=20))
def test_the_check_agrees_with_a_judge_that_goes_row_by_row(rows):
    got = [reason.split(":")[0] if reason else None for reason in _reasons(MIXED, rows)]
    assert got == [_judge(row) for row in rows]
