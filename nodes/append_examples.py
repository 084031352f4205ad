"""Batches in log order go to the end of an example log, wherever it lies; what stands there already is compared."""

import threading
from collections.abc import Iterator
from pathlib import Path

import apache_beam as beam
from apache_beam.metrics.metric import Metrics
from apache_beam.pvalue import PCollection

from contracts.app import App
from contracts.segments import FeatureBatch
from nodes.example_logs import OpenExampleLog, open_examples

_LOCK = threading.Lock()
#: One writer a run and process: a topic's writers fence each other out, and Beam makes many DoFns.
_OPEN: dict[str, OpenExampleLog] = {}


class _Append(beam.DoFn):
    def __init__(self, app: App, where: str, run_id: str) -> None:
        self._app, self._where, self._run_id = app, where, run_id

    def process(self, batch: FeatureBatch) -> Iterator[int]:
        with _LOCK:
            if self._run_id not in _OPEN:
                _OPEN[self._run_id] = open_examples(self._where, self._app)
            new = _OPEN[self._run_id].append(batch)
        Metrics.counter("rocket", "ctr_write_rows_total").inc(new)
        Metrics.counter("rocket", "ctr_write_segments_total").inc(int(new > 0))
        yield new


class AppendExamples(beam.PTransform[PCollection[FeatureBatch], PCollection[int]]):
    """Append each batch to a folder or a topic; gives how many rows of it were new.

    Batches come in log order and may overlap with what stands there, cut in any way: so a killed run goes on.
    """

    def __init__(self, app: App, where: str | Path, run_id: str) -> None:
        super().__init__()
        self._append = _Append(app, str(where), run_id)

    def expand(self, batches: PCollection[FeatureBatch]) -> PCollection[int]:
        return batches | "Append segments" >> beam.ParDo(self._append)


def close_examples(run_id: str) -> None:
    """Close what a run's bundles opened in this process; its pipeline must be over."""
    with _LOCK:
        log = _OPEN.pop(run_id, None)
    if log is not None:
        log.close()
