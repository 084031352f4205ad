"""A contract compiled to Polars: the schema of a chunk, and one expression that says what is wrong with each row.

The expression is the hot path's whole row check: one `select` a chunk, no Python per row. `unique` is not a property of
a row: ingest dedupes.
"""

import math
from collections.abc import Iterator

import polars as pl

from contracts.errors import ContractError
from contracts.odcs import Column, DataContract

_INT64 = (-(2**63), 2**63 - 1)


def polars_schema(contract: DataContract) -> dict[str, pl.DataType]:
    """Column name -> Polars type of a chunk of this contract, in contract order."""
    return contract.schema_


def reasons(contract: DataContract) -> pl.Expr:
    """One expression over a chunk: null for a good row, else "code: detail" of its first breach.

    Columns are judged in contract order, and within a column: missing, not_finite, below_minimum, above_maximum,
    too_short, too_long, pattern, not_allowed. The detail says what the contract asks for; it never quotes the value.

    Args:
        contract: the chunk that the expression meets must have its columns, with the types of `polars_schema`.

    Raises:
        ContractError: a rule that its column's type cannot have, or a pattern that Polars cannot compile.

    >>> age = Column(name="age", physical="int64", required=True, minimum=0)
    >>> people = DataContract(path="p.yaml", id="p", name="people", version="1", columns=(age,))
    >>> pl.DataFrame({"age": [30, None, -1]}).select(reason=reasons(people))["reason"].to_list()
    [None, 'missing: age is required', 'below_minimum: age must be at least 0']
    """
    rules = [rule for column in contract.columns for rule in _rules(column, contract)]
    if not rules:
        return pl.repeat(None, pl.len(), dtype=pl.String)
    # The first breach as a small number, and only then its text: far cheaper than a chain of strings.
    number = pl.coalesce(pl.when(breach).then(pl.lit(index, pl.UInt32)) for index, (breach, _) in enumerate(rules))
    return pl.lit(pl.Series("reason", [text for _, text in rules], pl.String)).gather(number)


def _rules(column: Column, contract: DataContract) -> Iterator[tuple[pl.Expr, str]]:
    """Each rule of a column: where it is broken (null counts as not broken), and "code: detail"."""
    name, value = column.name, pl.col(column.name)
    if column.required:
        yield value.is_null(), f"missing: {name} is required"
    if column.physical == "double":
        yield ~value.is_finite(), f"not_finite: {name} must be a finite number"
    if column.minimum is not None:
        yield (
            value < _bound(column, column.minimum, contract),
            (f"below_minimum: {name} must be at least {_plain(column.minimum)}"),
        )
    if column.maximum is not None:
        yield (
            value > _bound(column, column.maximum, contract),
            (f"above_maximum: {name} must be at most {_plain(column.maximum)}"),
        )
    if column.min_length is not None or column.max_length is not None:
        length, unit = _length(column, contract)
        if column.min_length is not None:
            yield length < column.min_length, f"too_short: {name} must have at least {column.min_length} {unit}"
        if column.max_length is not None:
            yield length > column.max_length, f"too_long: {name} must have at most {column.max_length} {unit}"
    if column.pattern is not None:
        yield ~_matches(column, contract), f"pattern: {name} must match {column.pattern}"
    if column.allowed is not None:
        some = ", ".join(column.allowed[:10]) + (", ..." if len(column.allowed) > 10 else "")
        yield ~_is_allowed(column, contract), f"not_allowed: {name} must be one of {some}"


def _bound(column: Column, bound: float, contract: DataContract) -> pl.Expr:
    """The bound in the column's own type: a whole number stays exact beyond 2^53."""
    if column.physical == "double" and not math.isnan(bound):
        return pl.lit(bound, pl.Float64)
    if column.physical == "int64" and math.isfinite(bound):
        whole = math.ceil(bound) if bound == column.minimum else math.floor(bound)
        return pl.lit(min(max(whole, _INT64[0]), _INT64[1]), pl.Int64)
    raise _unfit(column, contract, f"the bound {bound}", "a finite one on an int64 or double column")


def _length(column: Column, contract: DataContract) -> tuple[pl.Expr, str]:
    if column.physical == "string":
        return pl.col(column.name).str.len_chars(), "characters"
    if column.physical == "list<string>":
        return pl.col(column.name).list.len(), "items"
    raise _unfit(column, contract, "a length", "it on a string or list<string> column only")


def _matches(column: Column, contract: DataContract) -> pl.Expr:
    whole = pl.col(column.name).str.contains(f"^(?:{column.pattern})$")
    try:
        pl.select(pl.lit("").alias(column.name)).select(whole)
    except pl.exceptions.PolarsError as error:
        raise _unfit(column, contract, f"the pattern {column.pattern}", "one without look-around") from error
    if column.physical != "string":
        raise _unfit(column, contract, "a pattern", "it on a string column only")
    return whole


def _is_allowed(column: Column, contract: DataContract) -> pl.Expr:
    value, allowed = pl.col(column.name), list(column.allowed or ())
    if column.physical == "list<string>":
        return value.list.eval(pl.element().is_in(allowed)).list.all()
    if column.physical == "boolean":
        return value.cast(pl.String).is_in([word.lower() for word in allowed])
    try:
        typed = [_CAST[column.physical](word) for word in allowed]
    except ValueError as error:
        raise _unfit(column, contract, "an allowed value", f"values of the type {column.physical}") from error
    return value.is_in(pl.Series(typed, dtype=column.dtype).implode())


_CAST = {"string": str, "int64": int, "double": float}


def _plain(bound: float) -> str:
    return str(int(bound)) if bound == int(bound) else str(bound)


def _unfit(column: Column, contract: DataContract, what: str, mend: str) -> ContractError:
    return ContractError(
        f"{contract.path}, column '{column.name}' ({column.physical}): it cannot have {what}; give {mend}"
    )
