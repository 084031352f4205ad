"""Text becomes typed columns; a value that is none of its type makes its record a dead letter."""

from collections.abc import Collection, Mapping
from pathlib import Path

import polars as pl

from nodes.imports.delimited import Rows, dead_letters

_WORDS = {"true": True, "1": True, "false": False, "0": False}
_KINDS: dict[type[pl.DataType], str] = {
    pl.Int64: "a whole number",
    pl.Float64: "a finite number",
    pl.Boolean: "0 or 1, true or false",
}


def typed(
    rows: Rows,
    schema: Mapping[str, pl.DataType],
    *,
    stream: str,
    origin: Path,
    null: Collection[str] = ("",),
    required: Collection[str] = (),
    list_separator: str = "|",
) -> Rows:
    """The columns of `schema` in its order, and `_line`; other columns go.

    Args:
        rows: as text.
        schema: column -> type.
        stream: for dead letters: what the records are.
        origin: their file.
        null: texts that say that a value is missing.
        required: columns that must have one.
        list_separator: between the items of a list.

    >>> frame = pl.DataFrame({"n": ["7", "", "x"], "_line": [0, 1, 2]})
    >>> nothing = dead_letters(pl.DataFrame(schema=["line", "reason", "detail", "raw"]), "s", Path("f"))
    >>> good, dead = typed(Rows(frame, nothing), {"n": pl.Int64()}, stream="s", origin=Path("f"))
    >>> good["n"].to_list(), dead.select("line", "reason", "detail").rows()
    ([7, None], [(2, 'wrong_type', 'n must be a whole number')])
    """
    text = {name: pl.when(~pl.col(name).is_in(list(null))).then(name) for name in schema}
    values = [_value(text[name], kind, list_separator).alias(name) for name, kind in schema.items()]
    made = rows.frame.select("_line", *values)
    wrong = {
        name: made[name].is_null() & ~rows.frame[name].is_in(list(null))
        for name, kind in schema.items()
        if not isinstance(kind, (pl.String, pl.List)) and made[name].null_count()
    }
    wrong = {name: bad for name, bad in wrong.items() if bad.any()}
    absent = {name: bad for name in required if (bad := made[name].is_null()).any()}
    if not wrong and not absent:
        return Rows(made, rows.dead)
    reasons = [(bad, "wrong_type", f"{name} must be {_KINDS[type(schema[name])]}") for name, bad in wrong.items()] + [
        (bad, "missing", f"{name} is missing") for name, bad in absent.items()
    ]
    marked = pl.DataFrame({f"{number}": bad for number, (bad, _, _) in enumerate(reasons)})
    told = marked.select(
        reason=pl.coalesce(pl.when(f"{number}").then(pl.lit(why)) for number, (_, why, _) in enumerate(reasons)),
        detail=pl.coalesce(pl.when(f"{number}").then(pl.lit(what)) for number, (_, _, what) in enumerate(reasons)),
    )
    bad = told["reason"].is_not_null()
    raw = rows.frame.select(line="_line", raw=pl.concat_str(pl.exclude("_line"), separator=",")).hstack(told)
    dead = dead_letters(raw.filter(bad), stream, origin)
    return Rows(made.filter(~bad), pl.concat([rows.dead, dead]).sort("line"))


def refused(rows: Rows, bad: pl.Series, reason: str, detail: str, *, stream: str, origin: Path) -> Rows:
    """The rows without those that are `bad` (a mask), which become dead letters."""
    if not bad.any():
        return rows
    raw = pl.struct(pl.exclude("_line")).struct.json_encode()
    gone = rows.frame.filter(bad).select(line="_line", reason=pl.lit(reason), detail=pl.lit(detail), raw=raw)
    return Rows(rows.frame.filter(~bad), pl.concat([rows.dead, dead_letters(gone, stream, origin)]).sort("line"))


def _value(text: pl.Expr, kind: pl.DataType, list_separator: str) -> pl.Expr:
    if isinstance(kind, pl.Boolean):
        return text.str.to_lowercase().replace_strict(_WORDS, default=None, return_dtype=pl.Boolean)
    if isinstance(kind, pl.List):
        return text.str.split(list_separator)
    if isinstance(kind, pl.Float64):
        number = text.cast(pl.Float64, strict=False)
        return pl.when(number.is_finite()).then(number)
    return text if isinstance(kind, pl.String) else text.cast(kind, strict=False)
