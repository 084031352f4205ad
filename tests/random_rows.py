"""Random impressions that keep a contract: nulls, Unicode, extremes, and pages that one request can ask for."""

import numpy as np
import polars as pl

from contracts.app import App
from contracts.columns import Column

#: As objects: NumPy's own text drops NUL.
_ALPHABET = np.array(list("ab09-_ /\\\"'{}[],:\t\u00e9\u00df\u4e2d\u0416\u200d\U0001f680\x7f\x00"), dtype=object)
_MINUTE_MS = 60_000


def _texts(column: Column, rows: int, rng: np.random.Generator) -> list[str]:
    if column.allowed:
        return rng.choice(np.array(column.allowed), rows).tolist()
    low, high = column.min_length or 0, min(column.max_length or 12, 12)
    pool = ["".join(rng.choice(_ALPHABET, rng.integers(low, high + 1))) for _ in range(min(rows, 300))]
    return [pool[at] for at in rng.integers(0, len(pool), rows)]


def random_column(column: Column, rows: int, rng: np.random.Generator) -> pl.Series:
    """Values that the contract allows; a fifth of them null where it allows that."""
    low, high = column.minimum, column.maximum
    if column.physical == "int64":
        values = rng.integers(int(low or 0), int(high or 2**62), rows, endpoint=True).tolist()
    elif column.physical == "double":
        low, high = (-1e300 if low is None else low), (1e300 if high is None else high)
        values = rng.uniform(low / 2, high / 2, rows).tolist()
        values = [rng.choice([low, high, 0.0 if low <= 0 else low]) if rng.random() < 0.1 else v for v in values]
    elif column.physical == "list<string>":
        sizes = rng.integers(0, (column.max_length or 20) + 1, rows)
        pool = _texts(column.model_copy(update={"max_length": None, "min_length": None}), 200, rng)
        values = [[pool[at] for at in rng.integers(0, len(pool), size)] for size in sizes]
    elif column.physical == "boolean":
        values = (rng.random(rows) < 0.5).tolist()
    else:
        values = _texts(column, rows, rng)
    if not column.required:
        values = [None if gone else value for gone, value in zip(rng.random(rows) < 0.2, values, strict=True)]
    return pl.Series(column.name, values, column.dtype)


def random_impressions(app: App, rows: int, seed: int) -> pl.DataFrame:
    """Rows of `rows / 3` pages: those of a page share minute, user and context."""
    rng = np.random.default_rng(seed)
    pages = max(1, rows // 3)
    page = pl.Series(np.sort(rng.integers(0, pages, rows)))
    event_time = app.impressions.role("event_time")
    made = []
    for column in app.impressions.columns:
        if column.name == event_time:
            first, last = int(column.minimum or 0) // _MINUTE_MS + 1, int(column.maximum or 2**40) // _MINUTE_MS
            minute = np.sort(rng.integers(first, last, pages))[page.to_numpy()]
            made.append(pl.Series(column.name, minute * _MINUTE_MS + rng.integers(0, _MINUTE_MS, rows)))
        elif column.role == "impression_id":
            made.append(pl.Series(column.name, [f"i{n}" for n in range(rows)]))
        elif column.side in {"user", "context"}:
            made.append(random_column(column, pages, rng)[page])
        else:
            made.append(random_column(column, rows, rng))
    return pl.DataFrame(made)
