"""A contract compiled to Great Expectations: the suite of record, for CI and for reports on whole windows.

The only module that imports Great Expectations (seconds, and 125 MB). The hot path has the same rules as one Polars
expression (`contracts.rowcheck`); a test proves that both give the same verdict on every row.

What is known of Great Expectations 1.24 and handled here: it is not thread-safe, not even read-only (one lock a
process); pandas' NumPy types merge large ids and take NaN for null (Arrow types do neither); column expectations pass
on an empty frame (so the rows are counted); its results quote values (only row numbers leave this module).
"""

import math
import sys
import threading
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import great_expectations as gx
import pandas as pd
import polars as pl
from great_expectations.data_context.types.base import ProgressBarsConfig
from great_expectations.expectations.core.expect_column_value_lengths_to_be_between import (
    ExpectColumnValueLengthsToBeBetween,
)
from great_expectations.expectations.core.expect_column_values_to_be_between import ExpectColumnValuesToBeBetween
from great_expectations.expectations.core.expect_column_values_to_be_in_set import ExpectColumnValuesToBeInSet
from great_expectations.expectations.core.expect_column_values_to_be_unique import ExpectColumnValuesToBeUnique
from great_expectations.expectations.core.expect_column_values_to_match_json_schema import (
    ExpectColumnValuesToMatchJsonSchema,
)
from great_expectations.expectations.core.expect_column_values_to_match_regex import ExpectColumnValuesToMatchRegex
from great_expectations.expectations.core.expect_column_values_to_not_be_null import ExpectColumnValuesToNotBeNull
from great_expectations.expectations.core.expect_table_row_count_to_be_between import ExpectTableRowCountToBeBetween
from great_expectations.expectations.expectation import Expectation

from contracts.columns import Column, DataContract
from contracts.errors import ContractError

_LOCK = threading.Lock()  # from four threads without it, verdicts were wrong and nothing said so
_EXACT = 2**53  # it turns bounds into floats, and beyond this neighbours look equal
_ROWS = "no_rows"


@dataclass(frozen=True, slots=True)
class Breach:
    """One expectation that does not hold."""

    expectation: str  #: its name in Great Expectations
    code: str  #: missing, not_finite, range, length, pattern, not_allowed, not_unique or no_rows
    column: str | None  #: None: the whole frame
    rows: tuple[int, ...]  #: numbers of the rows that break it, from 0


@dataclass(frozen=True, slots=True)
class Validation:
    """What Great Expectations says of a frame."""

    expectations: int  #: how many were evaluated
    breaches: tuple[Breach, ...]
    verdicts: pl.Series  #: Boolean, one a row: True where no expectation is broken

    @property
    def success(self) -> bool:
        """Whether every expectation holds."""
        return not self.breaches


def suite(contract: DataContract, *, unique: bool = False) -> gx.ExpectationSuite:
    """The contract as an expectation suite; each expectation's `meta` holds its `code` and `column`.

    It is meant for the frames that `validate` makes: a list column stands there as JSON text, its lengths beside it.

    Args:
        contract: its rules; descriptions do not matter.
        unique: check `unique` columns too. Ingest dedupes, so a repeated id is no breach for it.
    """
    expectations = [_with_code(ExpectTableRowCountToBeBetween(min_value=1), _ROWS, None)]
    for column in contract.columns:
        expectations += _of_column(column, contract, unique=unique)
    return gx.ExpectationSuite(name=f"{contract.id} {contract.version}", expectations=expectations)


def validate(frame: pl.DataFrame, contract: DataContract, *, unique: bool = False) -> Validation:
    """Evaluate the suite on a frame, whatever thread this is; about 0.1 s for 40 expectations, 0.7 s at 100k rows.

    Args:
        frame: rows with the contract's columns and types; an absent column counts as nulls, others are ignored.
        contract: what the rows should be.
        unique: check `unique` columns too.

    Raises:
        ContractError: a column has another type than the contract's, or an expectation could not be evaluated.
    """
    result = _run(frame, contract, unique=unique, result_format="COMPLETE")
    breaches = tuple(_breach(one) for one in result.results if not one.success)
    bad = sorted({row for breach in breaches for row in breach.rows})
    verdicts = pl.repeat(True, frame.height, dtype=pl.Boolean, eager=True).scatter(bad, False)
    order = {column.name: place for place, column in enumerate(contract.columns)}
    breaches = tuple(sorted(breaches, key=lambda breach: (order.get(breach.column or "", -1), breach.code)))
    return Validation(len(result.results), breaches, verdicts.alias("good"))


def verdicts(frame: pl.DataFrame, contract: DataContract) -> pl.Series:
    """True for each row that keeps the contract, from the rows that Great Expectations lists as unexpected.

    Raises:
        ContractError: as `validate`.
    """
    return validate(frame, contract).verdicts


def passes(frame: pl.DataFrame, contract: DataContract, *, unique: bool = False) -> bool:
    """The verdict on the whole frame alone: the result never holds a value of it.

    Raises:
        ContractError: as `validate`.
    """
    return bool(_run(frame, contract, unique=unique, result_format="BOOLEAN_ONLY").success)


def _of_column(column: Column, contract: DataContract, *, unique: bool) -> list[Expectation]:
    name = column.name
    made: list[tuple[str, Expectation]] = []
    if column.required:
        made.append(("missing", ExpectColumnValuesToNotBeNull(column=name)))
    if column.physical == "double":
        made.append(("not_finite", _between(name, -sys.float_info.max, sys.float_info.max)))
    if column.minimum is not None or column.maximum is not None:
        made.append(("range", _between(name, *_bounds(column, contract))))
    if column.min_length is not None or column.max_length is not None:
        low, high = column.min_length, column.max_length
        if column.physical == "list<string>":
            made.append(("length", _between(_length_of(column), low, high)))
        else:
            lengths = ExpectColumnValueLengthsToBeBetween(column=name, min_value=low, max_value=high)
            made.append(("length", lengths))
    if column.pattern is not None:  # \Z: in Python, $ would let a newline at the end pass
        made.append(("pattern", ExpectColumnValuesToMatchRegex(column=name, regex=rf"\A(?:{column.pattern})\Z")))
    if column.allowed is not None and column.physical == "list<string>":
        schema = {"properties": {name: {"items": {"enum": [*column.allowed, None]}}}}
        made.append(("not_allowed", ExpectColumnValuesToMatchJsonSchema(column=name, json_schema=schema)))
    elif column.allowed is not None:
        made.append(("not_allowed", ExpectColumnValuesToBeInSet(column=name, value_set=_typed(column))))
    if unique and column.unique:
        made.append(("not_unique", ExpectColumnValuesToBeUnique(column=name)))
    return [_with_code(expectation, code, name) for code, expectation in made]


def _with_code(expectation: Expectation, code: str, column: str | None) -> Expectation:
    expectation.meta = {"code": code, "column": column}
    return expectation


def _between(name: str, low: float | None, high: float | None) -> Expectation:
    return ExpectColumnValuesToBeBetween(column=name, min_value=low, max_value=high)


def _bounds(column: Column, contract: DataContract) -> tuple[float | None, float | None]:
    """The bounds in the column's own type; those of int64 as whole numbers."""
    low, high = column.minimum, column.maximum
    if column.physical != "int64":
        return low, high
    low = None if low is None or low <= -(2**63) else math.ceil(low)
    high = None if high is None or high >= 2**63 - 1 else math.floor(high)
    for bound in (low, high):
        if bound is not None and abs(bound) >= _EXACT:
            raise ContractError(
                f"{contract.path}: column '{column.name}' has the bound {bound}; Great Expectations compares exactly "
                "below 2^53 only: give a smaller bound or none"
            )
    return low, high


def _typed(column: Column) -> list[Any]:
    words = list(column.allowed or ())
    if column.physical == "int64":
        return [int(word) for word in words]
    if column.physical == "double":
        return [float(word) for word in words]
    if column.physical == "boolean":
        return [word.lower() == "true" for word in words]
    return words


def _length_of(column: Column) -> str:
    """Name of the column that holds the lengths of a list column: of lists the suite could only measure their text."""
    return f"length of {column.name}"


def _run(frame: pl.DataFrame, contract: DataContract, *, unique: bool, result_format: str) -> Any:
    rows = _to_pandas(frame, contract)
    with _LOCK:
        batch = _whole_frame().get_batch(batch_parameters={"dataframe": rows})
        result = batch.validate(_compiled(contract, unique), result_format=result_format)
    for one in result.results:
        if not one.success and (raised := _raised(one.exception_info)):
            raise ContractError(
                f"{contract.path}: Great Expectations could not evaluate {one.expectation_config.type} "
                f"on column '{one.expectation_config.meta['column']}': {raised}"
            )
    return result


@lru_cache(maxsize=1)
def _whole_frame() -> Any:
    """The one context of this process and in it a batch definition for frames; called under the lock only."""
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False, metric_calculations=False)
    asset = context.data_sources.add_pandas("rocket").add_dataframe_asset("frame")
    return asset.add_batch_definition_whole_dataframe("whole")


@lru_cache(maxsize=32)
def _compiled(contract: DataContract, unique: bool) -> gx.ExpectationSuite:  # noqa: FBT001
    return suite(contract, unique=unique)


def _to_pandas(frame: pl.DataFrame, contract: DataContract) -> pd.DataFrame:
    """Arrow-backed pandas; each list column as JSON text, with its lengths beside it."""
    for column in contract.columns:
        if column.name in frame.columns and frame.schema[column.name] != column.dtype:
            raise ContractError(
                f"{contract.path}: column '{column.name}' is {frame.schema[column.name]}, the contract says "
                f"{column.physical} ({column.dtype}); cast the frame first"
            )
    absent = [c for c in contract.columns if c.name not in frame.columns]
    whole = frame.with_columns(pl.repeat(None, frame.height, dtype=c.dtype, eager=True).alias(c.name) for c in absent)
    made: list[pl.Expr] = []
    for column in contract.columns:
        value = pl.col(column.name)
        if column.physical == "list<string>":
            text = pl.struct(column.name).struct.json_encode()
            made.append(pl.when(value.is_not_null()).then(text).alias(column.name))
            made.append(value.list.len().cast(pl.Int64).alias(_length_of(column)))
        elif column.physical == "double":
            plain = pl.when(value == 0).then(0.0).otherwise(value)  # Arrow's `isin` tells -0 from 0
            made.append(plain.alias(column.name))
        else:
            made.append(value)
    rows: pd.DataFrame = whole.select(made).to_pandas(use_pyarrow_extension_array=True)
    return rows


def _breach(result: Any) -> Breach:
    configuration = result.expectation_config
    rows = tuple(int(row) for row in result.result.get("unexpected_index_list") or ())
    return Breach(configuration.type, configuration.meta["code"], configuration.meta["column"], rows)


def _raised(info: dict[str, Any]) -> str | None:
    """The message of what an expectation raised; the info lies flat, or keyed by metric."""
    found = [info] if "raised_exception" in info else [one for one in info.values() if isinstance(one, dict)]
    for one in found:
        if one.get("raised_exception"):
            return " ".join(str(one.get("exception_message")).split())[:200]
    return None
