"""The impressions that a join has accepted, found by id at the cost of what is asked for, not of what is remembered."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from contracts.buckets import hash_expr

#: What is known of an accepted impression; `_hash` is null where its bytes are not known any more.
ACCEPTED = {"_id": pl.String(), "_at": pl.Int64(), "_hash": pl.UInt64(), "_clicked_at": pl.Int64()}
_ROWS = {name: kind for name, kind in ACCEPTED.items() if name != "_clicked_at"}
_CLICKED = {"_id": pl.String(), "_at": pl.Int64(), "_won": pl.Int64()}
_FRESH_ROWS = 8192  # looked through as they are; more are sorted
_SPANS = 16  # that the time remembered is cut into: what is older than one lies in one part


@dataclass(frozen=True, slots=True)
class _Part:
    """Rows sorted by the hash of their id."""

    hashes: npt.NDArray[np.uint64]
    rows: pl.DataFrame
    newest_ms: int

    def find(self, wanted: npt.NDArray[np.uint64]) -> pl.DataFrame:
        """The rows with these hashes; `wanted` ascends."""
        first, end = np.searchsorted(self.hashes, wanted, "left"), np.searchsorted(self.hashes, wanted, "right")
        counts = end - first
        places = np.repeat(first - np.cumsum(counts) + counts, counts) + np.arange(int(counts.sum()))
        return self.rows[places]


class Accepted:
    """Ids and times of what was accepted in the last `keep_ms`, and the clicks that it got.

    Memory: about 60 bytes an impression. Costs, a settle: two binary searches a part (about 30 of them) and id.

    >>> accepted = Accepted(keep_ms=100, click_ms=50)
    >>> accepted.add(pl.DataFrame({"_id": ["a", "b"], "_at": [1, 2], "_hash": [7, 8]}))
    >>> accepted.click(pl.DataFrame({"_id": ["b"], "_at": [2], "_won": [9]}))
    >>> accepted.find(pl.Series(["b"])).filter(_id="b").rows()
    [('b', 2, 8, 9)]
    >>> accepted.forget(101)
    >>> accepted.table().rows()
    [('b', 2, 8, None)]
    """

    def __init__(self, keep_ms: int, click_ms: int) -> None:
        """Remember impressions for `keep_ms` of event time, and their clicks for `click_ms`."""
        self._keep_ms, self._click_ms = keep_ms, click_ms
        self._span_ms = max(1, keep_ms // _SPANS)
        self._fresh = pl.DataFrame(schema=_ROWS)
        self._parts: list[_Part] = []
        self._merged: list[_Part] = []
        self._clicked = pl.DataFrame(schema=_CLICKED)
        self._due_ms = -(2**62)

    def add(self, rows: pl.DataFrame) -> None:
        """Take newly accepted ones: `_id`, `_at`, `_hash`."""
        if rows.height:
            self._fresh = pl.concat([self._fresh, rows.select(pl.col(name).cast(kind) for name, kind in _ROWS.items())])

    def click(self, won: pl.DataFrame) -> None:
        """Take the clicks that made accepted ones positive: `_id`, `_at`, and the time `_won`."""
        if won.height:
            self._clicked = pl.concat([self._clicked, won.select(*_CLICKED)])

    def find(self, ids: pl.Series) -> pl.DataFrame:
        """All that is remembered of these ids, and perhaps of others: `ACCEPTED` columns, in no order."""
        found = [self._fresh]
        if self._fresh.height > 4 * ids.len():
            found = [self._fresh.join(pl.DataFrame({"_id": ids}), on="_id", how="semi")]
        parts = [*self._merged, *self._parts]
        if parts and ids.len():
            wanted = np.unique(_hashes(ids))
            found += [part.find(wanted) for part in parts]
        whole = pl.concat(found).filter(pl.col("_at") + self._keep_ms > self._due_ms)
        return self._with_clicks(whole)

    def forget(self, due_ms: int) -> None:
        """No event at or before `due_ms` will ask any more."""
        self._due_ms = due_ms
        self._merged = [part for part in self._merged if part.newest_ms + self._keep_ms > due_ms]
        self._parts = [part for part in self._parts if part.newest_ms + self._keep_ms > due_ms]
        self._clicked = self._clicked.filter(pl.col("_at") + self._click_ms > due_ms)
        self._fresh = self._fresh.filter(pl.col("_at") + self._keep_ms > due_ms)
        if self._fresh.height > _FRESH_ROWS:
            self._parts.append(_sorted([self._fresh]))
            self._fresh = self._fresh.clear()
            if self._parts[-1].newest_ms - self._parts[0].newest_ms > self._span_ms:
                self._merged.append(_sorted([part.rows for part in self._parts]))
                self._parts = []

    @property
    def newest_ms(self) -> int | None:
        """The newest event time remembered."""
        times = [part.newest_ms for part in (*self._merged, *self._parts)]
        if self._fresh.height:
            times.append(int(self._fresh["_at"].max()))  # type: ignore[arg-type]
        return max(times, default=None)

    def table(self) -> pl.DataFrame:
        """Everything remembered: `ACCEPTED` columns."""
        rows = pl.concat([*(part.rows for part in (*self._merged, *self._parts)), self._fresh])
        return self._with_clicks(rows.filter(pl.col("_at") + self._keep_ms > self._due_ms))

    def restore(self, table: pl.DataFrame, due_ms: int) -> None:
        """Go on from a `table` that stood after `forget(due_ms)`."""
        self._parts, self._merged, self._due_ms = [], [], due_ms
        self._fresh = table.select(*_ROWS)
        self._clicked = table.filter(pl.col("_clicked_at").is_not_null()).select("_id", "_at", _won="_clicked_at")

    def _with_clicks(self, rows: pl.DataFrame) -> pl.DataFrame:
        joined = rows.join(self._clicked, on=["_id", "_at"], how="left", maintain_order="left")
        return joined.rename({"_won": "_clicked_at"})


def _sorted(frames: list[pl.DataFrame]) -> _Part:
    rows = pl.concat(frames)
    hashes = _hashes(rows["_id"])
    order = np.argsort(hashes, kind="stable")
    return _Part(hashes[order], rows[order].rechunk(), int(rows["_at"].max()))  # type: ignore[arg-type]


def _hashes(ids: pl.Series) -> npt.NDArray[np.uint64]:
    hashes: npt.NDArray[np.uint64] = pl.DataFrame({"_id": ids}).select(hash_expr(pl.col("_id")))["_id"].to_numpy()
    return hashes


def spaced(rows: pl.DataFrame, gap_ms: int) -> pl.Series:
    """`_accepted`: the first row of each `_id`, and each first row more than `gap_ms` after an accepted one.

    Rows come sorted by `_id`, `_at`.

    >>> spaced(pl.DataFrame({"_id": ["a", "a", "a", "b"], "_at": [0, 10, 11, 5]}), 10).to_list()
    [True, False, True, True]
    """
    ids = rows["_id"]
    accepted = (ids != ids.shift(1)).fill_null(value=True).alias("_accepted")
    repeated = rows.select("_id", "_at", _place=pl.int_range(pl.len())).filter(~ids.is_unique())
    if not repeated.height:
        return accepted
    # Each row points at the first row of its id beyond the gap; then every chain is followed from its head at once.
    firsts = repeated.unique(["_id", "_at"], keep="first", maintain_order=True).sort("_at")
    beyond = repeated.select("_id", "_place", _after=pl.col("_at") + gap_ms + 1).sort("_after").join_asof(
        firsts.select("_id", "_at", _next="_place"),
        left_on="_after", right_on="_at", by="_id", strategy="forward", check_sortedness=False,
    )  # fmt: skip
    follows = np.full(rows.height, -1, np.int64)
    follows[beyond["_place"].to_numpy()] = beyond["_next"].fill_null(-1).to_numpy()
    taken = accepted.to_numpy().copy()
    heads = np.flatnonzero(taken)
    while (heads := follows[heads])[heads >= 0].size:
        heads = heads[heads >= 0]
        taken[heads] = True
    return pl.Series("_accepted", taken)
