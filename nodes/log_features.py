"""The last step before the example log: rows in log order get their streaming features and their numbers."""

from collections.abc import Iterator

import polars as pl

from contracts.app import App
from contracts.features import STATEFUL
from contracts.segments import FeatureBatch, example_schema
from nodes.streaming import CorrectedFeatures, StreamingFeatures

KEPT = "column "  # before the name of a contract column that streaming features still read


def streaming_columns(app: App) -> list[str]:
    """The contract columns that the app's streaming features read, beside event time and label."""
    ids = {feature.name: feature for feature in app.features}
    names: dict[str, None] = {}
    for feature in (f for f in app.features if f.kind in STATEFUL):
        names |= dict.fromkeys(feature.inputs)
        names |= dict.fromkeys(ids[feature.of].inputs if feature.of else ())
    event_time = app.impressions.role("event_time")
    own = [event_time] if corrects(app) else []  # a row's place in the log is another time than its impression's
    return [*own, *(name for name in names if name != event_time)]


def corrects(app: App) -> bool:
    """Whether the app has streaming features over labels that may be corrected."""
    return app.config.labels.mode != "wait" and any(feature.kind in STATEFUL for feature in app.features)


class LogFeatures:
    """Follows the log from one of its rows on.

    State: that of `StreamingFeatures`, and the number of the next row.
    """

    def __init__(self, app: App, next_row: int = 0, state: bytes | None = None) -> None:
        """Begin at `next_row` with the `state` before it.

        Raises:
            SchemaMismatchError: the state was written for another feature table.
            CorruptError: it is not whole.
        """
        self._app, self.next_row = app, next_row
        self._columns = list(example_schema(app.features))
        self._read = {app.impressions.role("event_time"): "event_time_ms", "label": "label"}
        self._streaming: StreamingFeatures | CorrectedFeatures = StreamingFeatures(app)
        if corrects(app):
            self._read = {
                "_log_ms": "event_time_ms",
                "_impression_id": "impression_id",
                "role": "role",
                "label": "label",
            }
            self._streaming = CorrectedFeatures(app)
        if state is not None:
            self._streaming.restore(state)

    def push(self, rows: pl.DataFrame) -> Iterator[FeatureBatch]:
        """The next rows of the log, featurised but for the streaming ones, as batches of `ingest.segment_rows`."""
        kept = {name: name.removeprefix(KEPT) for name in rows.columns if name.startswith(KEPT)}
        seen = rows.select(*kept, **{name: pl.col(column) for name, column in self._read.items()}).rename(kept)
        whole = rows.hstack(self._streaming.push(seen)).select(self._columns)
        first, self.next_row = self.next_row, self.next_row + whole.height
        step = self._app.config.ingest.segment_rows
        for start in range(0, whole.height, step):
            yield FeatureBatch(whole.slice(start, step), first + start, self._app.schema_id)

    def state(self) -> bytes:
        """What `next_row` and later rows depend on; the same rows give the same bytes."""
        return self._streaming.state()
