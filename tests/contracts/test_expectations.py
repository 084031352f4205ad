"""Great Expectations and the Polars check give the same verdict on every row."""

import json
import math
import random
import subprocess
import sys
import threading

import polars as pl
import pytest

from contracts.app import App
from contracts.columns import Column, DataContract
from contracts.errors import ContractError
from contracts.expectations import passes, suite, validate, verdicts
from contracts.rowcheck import polars_schema, reasons

_EDGES = DataContract(
    path="edges.odcs.yaml",
    id="edges",
    name="edges",
    version="1",
    columns=(
        Column(name="n", physical="int64", required=True, minimum=-3, maximum=2**53 - 1),
        Column(name="id", physical="int64", allowed=("1", str(2**53), str(2**53 + 2))),
        Column(name="x", physical="double"),
        Column(name="y", physical="double", minimum=0, maximum=1, allowed=("0", "0.5", "2")),
        Column(name="s", physical="string", min_length=1, max_length=4, pattern=r"[a-z]+\d?"),
        Column(name="w", physical="string", required=True, pattern=r"\w*|a.b", allowed=("", "é", "a b", "q\n")),
        Column(name="b", physical="boolean", allowed=("True",)),
        Column(name="l", physical="list<string>", required=True, min_length=1, max_length=3, allowed=("p", 'q"')),
        Column(name="m", physical="list<string>", max_length=2),
    ),
)
#: physicalType -> values that may break a rule, or lie on its edge.
_NASTY = {
    "int64": [None, 0, -3, -4, 1, 2**53 - 1, 2**53, 2**53 + 1, 2**53 + 2, 2**63 - 1, -(2**63), 10**12, 2 * 10**12],
    "double": [None, math.nan, math.inf, -math.inf, 0.0, -0.0, -1e-300, 0.5, 1.0, 1 + 1e-12, 2.0, 1.79e308, 1000.5],
    "string": [None, "", "a", "a1", "a1\n", "A", "é", "a b", "q\n", "x" * 65, "ü" * 64, "٣", "abcd1", "18-24", "tv"],
    "boolean": [None, True, False],
    "list<string>": [None, [], ["p"], ['q"', "p"], ["p"] * 4, ["z"], ["a"] * 51, [""]],
}


def _good(column: Column, draw: random.Random) -> object:
    """A value that keeps the rules of a shipped contract."""
    if column.allowed:
        return {"string": draw.choice(column.allowed), "boolean": True}.get(column.physical)
    if column.physical in {"int64", "double"}:
        low, high = column.minimum or 0, column.maximum if column.maximum is not None else 100
        return draw.randint(int(low), int(high)) if column.physical == "int64" else draw.uniform(low, high)
    if column.physical == "list<string>":
        return [f"v{n}" for n in range(draw.randint(column.min_length or 0, min(column.max_length or 5, 5)))]
    return "".join(
        draw.choices("abcxyz", k=draw.randint(max(column.min_length or 1, 1), min(column.max_length or 9, 9)))
    )


def _batch(contract: DataContract, rows: int, seed: int) -> pl.DataFrame:
    """Rows that are good but for planted breaches in about a third of them."""
    draw = random.Random(seed)
    table: dict[str, list[object]] = {column.name: [] for column in contract.columns}
    for _ in range(rows):
        bad = set(draw.sample(range(len(contract.columns)), k=draw.choice([0, 0, 1, 2])))
        for place, column in enumerate(contract.columns):
            value = draw.choice(_NASTY[column.physical]) if place in bad else _good(column, draw)
            table[column.name].append(value)
    return pl.DataFrame(table, schema=polars_schema(contract), strict=True)


def _assert_same(frame: pl.DataFrame, contract: DataContract) -> None:
    reason = frame.select(reason=reasons(contract))["reason"]
    said = verdicts(frame, contract)
    different = frame.with_columns(reason, said).filter(pl.col("good") != pl.col("reason").is_null())
    assert different.is_empty(), different.head(5).rows(named=True)


@pytest.mark.parametrize("name", ["adsim", "kuairand"])
@pytest.mark.parametrize("stream", ["impressions", "clicks", "requests"])
def test_both_checkers_give_the_same_verdict_row_for_row(
    name: str, stream: str, request: pytest.FixtureRequest
) -> None:
    contract = getattr(request.getfixturevalue(name), stream)
    for seed in range(4):
        frame = _batch(contract, 300, seed)
        bad = frame.select(reasons(contract).is_not_null().sum()).item()
        assert 15 < bad < 280
        _assert_same(frame, contract)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adsim", "kuairand"])
def test_both_checkers_agree_on_hundreds_of_batches(name: str, request: pytest.FixtureRequest) -> None:
    contract = request.getfixturevalue(name).impressions
    for seed in range(125):
        _assert_same(_batch(contract, 80, 1000 + seed), contract)


def test_both_checkers_agree_on_the_edges_of_every_rule() -> None:
    draw = random.Random(7)
    base = {"n": 1, "id": 1, "x": 0.5, "y": 0.5, "s": "a1", "w": "é", "b": True, "l": ["p"], "m": []}
    rows = [base | {column.name: value} for column in _EDGES.columns for value in _NASTY[column.physical]]
    rows += [{c.name: draw.choice(_NASTY[c.physical]) for c in _EDGES.columns} for _ in range(400)]
    frame = pl.DataFrame(rows, schema=polars_schema(_EDGES))
    good = frame.select(reasons(_EDGES).is_null()).to_series()
    assert 15 < good.sum() < 80
    _assert_same(frame, _EDGES)


def test_each_planted_breach_is_named_with_its_column_and_row(adsim: App) -> None:
    frame = _batch(adsim.clicks, 5, 0).with_columns(
        click_id=pl.Series(["c", None, "", "x" * 65, "d"]),
        impression_id=pl.lit("i"),
        event_time_ms=pl.Series([1_700_000_000_000, 1_700_000_000_000, 5, 1_700_000_000_000, None]),
    )
    said = validate(frame, adsim.clicks)
    assert [(one.column, one.code, one.rows) for one in said.breaches] == [
        ("click_id", "length", (2, 3)),
        ("click_id", "missing", (1,)),
        ("event_time_ms", "missing", (4,)),
        ("event_time_ms", "range", (2,)),
    ]
    assert said.verdicts.to_list() == [True, False, False, False, False]
    assert not said.success


def test_ids_beyond_2_to_53_are_not_merged() -> None:
    ids = Column(name="id", physical="int64", unique=True)
    contract = _EDGES.model_copy(update={"columns": (ids,)})
    assert passes(pl.DataFrame({"id": [2**53, 2**53 + 1, None, None]}), contract, unique=True)
    assert not passes(pl.DataFrame({"id": [2**53 + 1, 2**53 + 1]}), contract, unique=True)
    assert passes(pl.DataFrame({"id": [7, 7]}), contract)


def test_an_empty_frame_does_not_pass(adsim: App) -> None:
    for frame in (pl.DataFrame(schema=polars_schema(adsim.clicks)), pl.DataFrame()):
        said = validate(frame, adsim.clicks)
        assert [one.code for one in said.breaches] == ["no_rows"]
        assert said.verdicts.to_list() == []


def test_an_absent_column_counts_as_nulls(adsim: App) -> None:
    frame = _batch(adsim.clicks, 3, 1).select(pl.lit("c").alias("click_id"), event_time_ms=pl.lit(1_700_000_000_000))
    assert [(one.column, one.code) for one in validate(frame, adsim.clicks).breaches] == [("impression_id", "missing")]


def test_a_column_of_another_type_is_refused_by_name(adsim: App) -> None:
    with pytest.raises(ContractError, match=r"clicks.odcs.yaml: column 'click_id' is Int64, the contract says string"):
        validate(pl.DataFrame({"click_id": [1]}), adsim.clicks)


def test_a_bound_that_cannot_be_compared_exactly_is_refused() -> None:
    contract = _EDGES.model_copy(update={"columns": (Column(name="n", physical="int64", minimum=2**53 + 1),)})
    with pytest.raises(ContractError, match=r"below 2\^53"):
        validate(pl.DataFrame({"n": [1]}), contract)


def test_the_verdict_alone_and_the_report_quote_no_value(adsim: App, capfd: pytest.CaptureFixture[str]) -> None:
    frame = _batch(adsim.clicks, 3, 2).with_columns(click_id=pl.lit("canary" * 20))
    said = validate(frame, adsim.clicks)
    assert not said.success
    assert not passes(frame, adsim.clicks)
    assert "canary" not in repr(said)
    assert capfd.readouterr() == ("", "")  # no progress bars either


def test_the_suite_is_compiled_from_every_rule() -> None:
    said = [(one.meta["column"], one.meta["code"]) for one in suite(_EDGES).expectations]
    assert said == [
        (None, "no_rows"), ("n", "missing"), ("n", "range"), ("id", "not_allowed"), ("x", "not_finite"),
        ("y", "not_finite"), ("y", "range"), ("y", "not_allowed"), ("s", "length"), ("s", "pattern"),
        ("w", "missing"), ("w", "pattern"), ("w", "not_allowed"), ("b", "not_allowed"),
        ("l", "missing"), ("l", "length"), ("l", "not_allowed"), ("m", "length"),
    ]  # fmt: skip
    assert json.dumps(suite(_EDGES).to_json_dict())  # can be stored beside a report


def test_four_threads_of_mixed_batches_get_the_right_verdicts(adsim: App) -> None:
    good = pl.DataFrame({"click_id": ["c"], "impression_id": ["i"], "event_time_ms": [1_700_000_000_000]})
    bad = good.with_columns(impression_id=pl.lit(None, pl.String))
    said: list[tuple[bool, bool]] = []

    def judge(seed: int) -> None:
        draw = random.Random(seed)
        for _ in range(6):
            fine = draw.random() < 0.5
            said.append((fine, verdicts(good if fine else bad, adsim.clicks).to_list() == [True]))

    threads = [threading.Thread(target=judge, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(said) == 24
    assert all(fine == judged for fine, judged in said)


def test_contracts_without_expectations_do_not_import_great_expectations() -> None:
    code = (
        "import sys, contracts.app, contracts.rowcheck, contracts.jsonschema, contracts.asyncapi, flows.check_app\n"
        "print([name for name in ('great_expectations', 'pandas', 'torch', 'apache_beam') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
