"""Streaming features where labels come late (`labels.mode`): an impression counts once, with its final label."""

import polars as pl

from contracts.app import App
from contracts.buckets import hash_expr
from contracts.errors import CorruptError
from contracts.segments import Role
from nodes.coders import from_bytes, to_bytes
from nodes.delayed import counts_once
from nodes.streaming.stream import StreamingFeatures

_LENGTH = 8  # bytes


class CorrectedFeatures:
    """`StreamingFeatures` along a log that tells an impression more than once.

    An impression's first row gets its features and counts for later ones, as in `wait`, once its wait is over; a
    correction before then changes the label that it counts with. Corrections and ends get the features of the first
    row. A row sees another only when the wait of that one was over strictly before it: a click may come at the end.

    State: that of `StreamingFeatures`, and for one wait the features of the negatives that may be told again.
    """

    def __init__(self, app: App) -> None:
        self._once = counts_once(app.config.labels.mode)
        self._at, self._wait_ms = app.impressions.role("event_time"), round(app.config.labels.wait_s * 1000)
        self._streaming = StreamingFeatures(app, corrected=True)
        self._told: pl.DataFrame | None = None  # `_of`, `_until_ms`, then the features

    def push(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The streaming features of the next rows of the log.

        Args:
            rows: contract columns, `label`, `role`, `_impression_id` and `_log_ms` (place in the log), in its order.

        Returns:
            One column a streaming feature, rows as they came.

        Raises:
            CorruptError: a correction or an end without its first row before it.
        """
        of = hash_expr(pl.concat_str("_impression_id", pl.lit("\x1f"), pl.col(self._at).cast(pl.String))).alias("_of")
        rows = rows.with_columns(of)
        clicked = rows.filter(role=Role.CORRECTION.value)["_of"]
        self._streaming.correct(clicked)
        first = rows.filter(self._once)
        positive = (pl.col("label") == 1) | pl.col("_of").is_in(clicked.implode())
        made = self._streaming.push(first.with_columns(label=positive.cast(pl.UInt8)))
        until = pl.col(self._at) + self._wait_ms
        fresh = first.select("_of", "role", _until_ms=until).hstack(made)
        known = fresh.drop("role") if self._told is None else pl.concat([self._told, fresh.drop("role")])
        found = rows.select("_of").join(known, on="_of", how="left", maintain_order="left")
        if found["_until_ms"].null_count():
            raise CorruptError(
                f"example log: of {found['_until_ms'].null_count()} corrected impressions the first row never came; "
                "ingest the events again"
            )
        if rows.height:
            later = known.filter(pl.col("_until_ms") >= rows["_log_ms"][-1])
            self._told = later.join(fresh.filter(role=Role.SETTLED.value), on="_of", how="anti", maintain_order="left")
        return found.select(made.columns)

    def state(self) -> bytes:
        """Everything that later rows depend on; the same rows give the same bytes."""
        streaming = self._streaming.state()
        told = b"" if self._told is None else to_bytes(self._told)
        return len(streaming).to_bytes(_LENGTH, "little") + streaming + told

    def restore(self, state: bytes) -> None:
        """Go on from a `state()`.

        Raises:
            SchemaMismatchError: it was written for another feature table.
            CorruptError: it is not a whole state.
        """
        cut = _LENGTH + int.from_bytes(state[:_LENGTH], "little")
        self._streaming.restore(state[_LENGTH:cut])
        self._told = from_bytes(state[cut:]) if state[cut:] else None
