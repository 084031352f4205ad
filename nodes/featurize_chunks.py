"""The features in Beam: stateless ones chunk by chunk, streaming ones along the log.

Stateless features come first: a row's features are much smaller than its columns, and what follows holds many rows.
"""

from collections.abc import Iterator

import apache_beam as beam
import polars as pl
from apache_beam.metrics.metric import Metrics
from apache_beam.pvalue import PCollection

from contracts.app import App
from contracts.buckets import hash_expr
from contracts.errors import ContractError
from contracts.segments import FeatureBatch, Role
from nodes.chunks import Ordered
from nodes.featurize import Featurizer
from nodes.join import Settled
from nodes.log_features import KEPT, LogFeatures, streaming_columns


def example_columns(app: App) -> list[pl.Expr]:
    """What every example carries beside its features, from the rows of a join after sampling.

    `example_id` is the hash of the impression id and the name of the role that the row plays.

    >>> from contracts.app import load_app
    >>> [column.meta.output_name() for column in example_columns(load_app("adsim"))][:4]
    ['example_id', 'impression_id', 'user_id', 'item_id']
    """
    role = app.impressions.role
    names = {played.value: "\x1f" + played.name.lower() for played in Role}
    played = pl.col("role").replace_strict(names, return_dtype=pl.String)
    return [
        hash_expr(pl.concat_str(role("impression_id"), played)).alias("example_id"),
        pl.col(role("impression_id")).alias("impression_id"),
        pl.col(role("user_id")).alias("user_id"),
        pl.col(role("item_id")).alias("item_id"),
        pl.col("_log_ms").alias("event_time_ms"),
        *(pl.col(name) for name in ("role", "elapsed_s", "label", "weight", "kept_rate")),
    ]


class _Featurize(beam.DoFn):
    def __init__(self, app: App) -> None:
        self._app = app

    def setup(self) -> None:
        self._featurizer = Featurizer(self._app.features)
        self._examples = example_columns(self._app)
        self._kept = [pl.col(name).alias(KEPT + name) for name in streaming_columns(self._app)]

    def process(self, settled: Settled) -> Iterator[pl.DataFrame]:
        step = self._app.config.ingest.chunk_rows
        for start in range(0, settled.examples.height, step):
            rows = settled.examples.slice(start, step)
            Metrics.counter("rocket", "ctr_featurize_rows_total").inc(rows.height)
            yield rows.select(*self._examples, *self._kept).hstack(self._featurizer(rows))


class Featurize(beam.PTransform[PCollection[Settled], PCollection[pl.DataFrame]]):
    """Turn settled rows into examples with their stateless features; streaming ones are added in log order."""

    def __init__(self, app: App) -> None:
        super().__init__()
        self._app = app

    def expand(self, settled: PCollection[Settled]) -> PCollection[pl.DataFrame]:
        return settled | "Featurize rows" >> beam.ParDo(_Featurize(self._app))


class _AddStreaming(beam.DoFn):
    """Follows the log from row 0; parts that come ahead of their turn wait for it."""

    def __init__(self, app: App) -> None:
        self._app = app

    def start_bundle(self) -> None:
        self._log = LogFeatures(self._app)
        self._ahead: dict[int, pl.DataFrame] = {}

    def process(self, rows: Ordered) -> Iterator[FeatureBatch]:
        self._ahead[rows.first_row] = rows.frame
        while (frame := self._ahead.pop(self._log.next_row, None)) is not None:
            yield from self._log.push(frame)

    def finish_bundle(self) -> None:
        if self._ahead:
            raise ContractError(
                f"streaming features: row {self._log.next_row} of the example log never came, but row "
                f"{min(self._ahead)} did; run a bounded ingest on --runner=FnApiRunner"
            )


class AddStreamingFeatures(beam.PTransform[PCollection[Ordered], PCollection[FeatureBatch]]):
    """Add the streaming features along the log, and cut it into batches of `ingest.segment_rows`.

    State: that of `StreamingFeatures`, in the worker; the bounded log is one bundle.
    """

    def __init__(self, app: App) -> None:
        super().__init__()
        self._app = app

    def expand(self, rows: PCollection[Ordered]) -> PCollection[FeatureBatch]:
        return rows | "Follow the log" >> beam.ParDo(_AddStreaming(self._app))
