"""Where ingest's results land: segments of the example log, and Parquet parts, each written whole."""

from collections.abc import Iterator
from pathlib import Path

import apache_beam as beam
import polars as pl
import xxhash
from apache_beam.metrics.metric import Metrics
from apache_beam.pvalue import PCollection

from contracts.segments import FeatureBatch
from nodes.coders import to_bytes
from nodes.example_log import ExampleDirectory
from nodes.files import write_whole_frame


class _WriteSegment(beam.DoFn):
    def __init__(self, folder: str, app: str) -> None:
        self._folder, self._app = folder, app

    def process(self, batch: FeatureBatch) -> Iterator[int]:
        ExampleDirectory(Path(self._folder)).write(batch, self._app)
        Metrics.counter("rocket", "ctr_write_segments_total").inc()
        yield batch.frame.height


class WriteExamples(beam.PTransform[PCollection[FeatureBatch], PCollection[int]]):
    """Write each batch as a segment of the example log; gives the rows of each.

    A segment that stands there already must be the same: so a killed run is simply run again.
    """

    def __init__(self, folder: Path, app: str) -> None:
        super().__init__()
        self._folder, self._app = str(folder), app

    def expand(self, batches: PCollection[FeatureBatch]) -> PCollection[int]:
        return batches | "Write segments" >> beam.ParDo(_WriteSegment(self._folder, self._app))


def write_part(folder: Path, rows: pl.DataFrame, prefix: str = "part") -> Path | None:
    """One Parquet file named by its content, so that the same rows give the same file again; no rows give none.

    Raises:
        StoreError: the folder cannot be written.
    """
    if not rows.height:
        return None
    path = folder / f"{prefix}-{xxhash.xxh64_hexdigest(to_bytes(rows))}.parquet"
    write_whole_frame(path, rows)
    return path


class _WritePart(beam.DoFn):
    def __init__(self, folder: str) -> None:
        self._folder = folder

    def process(self, rows: pl.DataFrame) -> Iterator[int]:
        if write_part(Path(self._folder), rows) is not None:
            yield rows.height


class WriteParts(beam.PTransform[PCollection[pl.DataFrame], PCollection[int]]):
    """Write each frame as one Parquet file of a folder; gives the rows of each."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = str(folder)

    def expand(self, rows: PCollection[pl.DataFrame]) -> PCollection[int]:
        return rows | "Write parts" >> beam.ParDo(_WritePart(self._folder))
