"""Which examples were trained already: a redelivered one is dropped, whatever cuts the log came in."""

import polars as pl

#: The table as a checkpoint holds it.
SCHEMA = {"example_id": pl.UInt64(), "event_time_ms": pl.Int64(), "_row": pl.Int64()}


class TrainedIds:
    """Example ids of the last two horizons of event time, and the rule that drops what came before.

    A row is refused when its id was admitted at an event time within `horizon_ms` of its own (beyond it, the same
    impression id is a new impression), or when it is more than `horizon_ms` behind the newest row before it: that old,
    nobody remembers its id. Keeping twice the horizon makes the answer exact for every row that is not too old.
    Costs one hash join a segment, and 24 bytes an example of the last two horizons and of those not yet learnt.

    >>> seen = TrainedIds(horizon_ms=10)
    >>> rows = pl.DataFrame({"example_id": [7, 8, 7, 7], "event_time_ms": [0, 0, 5, 20]}, schema_overrides=SCHEMA)
    >>> seen.admit(rows.with_columns(_row=pl.int_range(4)))["_row"].to_list()
    [0, 1, 3]
    """

    def __init__(self, horizon_ms: int) -> None:
        self._horizon_ms = horizon_ms
        self._table = pl.DataFrame(schema=SCHEMA)
        self._newest_ms: int | None = None
        self._learnt_ms: int | None = None  # `_newest_ms` of the last row learnt

    def admit(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The rows that were not trained before, in order, with the column `_newest_ms`.

        Args:
            rows: `example_id`, `event_time_ms`, `_row` (its number in the log) and whatever else, in log order.

        Returns:
            The admitted rows; `_newest_ms` is the greatest event time up to each, to be given back to `restore`.
        """
        newest = pl.col("event_time_ms").cum_max()
        if self._newest_ms is not None:
            newest = pl.max_horizontal(newest, pl.lit(self._newest_ms, pl.Int64))
        marked = rows.with_columns(_newest_ms=newest)
        fresh = marked.filter(pl.col("event_time_ms") >= pl.col("_newest_ms") - self._horizon_ms)
        met = fresh.join(self._table, on="example_id", how="inner", suffix="_seen").filter(
            (pl.col("event_time_ms") - pl.col("event_time_ms_seen")).abs() <= self._horizon_ms
        )
        if met.height:
            fresh = fresh.join(met.select("_row").unique(), on="_row", how="anti", maintain_order="left")
        fresh = self._without_repeats(fresh)
        if rows.height:
            self._newest_ms = int(marked["_newest_ms"][-1])
            # Pruned by what is learnt, not by what is read: a checkpoint stands behind the rows read ahead of it.
            self._table = self._remembered(pl.concat([self._table, fresh.select(*SCHEMA)]))
        return fresh

    def _without_repeats(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Drop repeats inside the rows themselves; they are rare, so their few rows may be walked one by one."""
        if rows["example_id"].n_unique() == rows.height:
            return rows
        repeated = rows.filter(pl.col("example_id").is_duplicated()).select(*SCHEMA)
        admitted: dict[int, list[int]] = {}
        dropped: list[int] = []
        for example_id, event_time_ms, row in repeated.iter_rows():
            times = admitted.setdefault(example_id, [])
            if any(abs(event_time_ms - time) <= self._horizon_ms for time in times):
                dropped.append(row)
            else:
                times.append(event_time_ms)
        return rows.filter(~pl.col("_row").is_in(dropped))

    def table(self, before_row: int) -> pl.DataFrame:
        """What a checkpoint at that row of the log must hold: nothing of the rows read ahead of it."""
        return self._remembered(self._table.filter(pl.col("_row") < before_row))

    def learnt(self, newest_ms: int) -> None:
        """The rows up to the one with that `_newest_ms` are learnt: what lies two horizons before it may be forgotten.

        Costs nothing: it is forgotten when the next rows are admitted.
        """
        self._learnt_ms = newest_ms

    def _remembered(self, table: pl.DataFrame) -> pl.DataFrame:
        if self._learnt_ms is None:
            return table
        return table.filter(pl.col("event_time_ms") >= self._learnt_ms - 2 * self._horizon_ms)

    def restore(self, table: pl.DataFrame, newest_ms: int | None) -> None:
        """Go on from a checkpoint's table and the `_newest_ms` of its last row."""
        self._table, self._newest_ms, self._learnt_ms = table.select(*SCHEMA), newest_ms, newest_ms
