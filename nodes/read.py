"""Files of events become checked chunks and dead letters, one file a DoFn call, front to back."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apache_beam as beam
import polars as pl
from apache_beam.metrics.metric import Metrics
from apache_beam.pvalue import PCollection, TaggedOutput
from apache_beam.typehints.decorators import no_annotations, with_input_types

from contracts.app import App
from contracts.events import Mark
from nodes.chunks import Chunk
from nodes.source import read_events

_DEAD = "dead"


@dataclass(frozen=True, slots=True)
class Checked:
    """The ways out of a source: each event read is a row of one of the first two."""

    events: PCollection[Chunk]
    dead: PCollection[pl.DataFrame]  #: DEAD_LETTERS columns
    marks: PCollection[Mark] | None = None  #: of topics: where each partition may be resumed; None for files


class _ReadFile(beam.DoFn):
    def __init__(self, app: App) -> None:
        self._app = app

    def process(self, source: tuple[str, str]) -> Iterator[Any]:
        stream, path = source
        contract = self._app.impressions if stream == "impressions" else self._app.clicks
        events = Metrics.counter("rocket", f"ctr_read_{stream}_total")
        letters = Metrics.counter("rocket", f"ctr_read_{stream}_dead_letters_total")
        for read in read_events(Path(path), contract, self._app, stream):
            events.inc(read.frame.height + read.dead.height)
            if read.dead.height:
                letters.inc(read.dead.height)
                yield TaggedOutput(_DEAD, read.dead)
            if read.frame.height:
                yield Chunk(stream, read.frame)


@with_input_types(tuple[str, str])
class ReadEvents(beam.PTransform[PCollection[tuple[str, str]], Checked]):
    """Read (stream, path) pairs; what breaks the contract goes to the dead letters with its bytes and the reason.

    A file is read by one worker, because lateness is judged along it.
    """

    def __init__(self, app: App) -> None:
        super().__init__()
        self._app = app

    @no_annotations  # type: ignore[untyped-decorator]  # Beam checks single outputs only, and says so at each use
    def expand(self, sources: PCollection[tuple[str, str]]) -> Checked:
        read = sources | "Read files" >> beam.ParDo(_ReadFile(self._app)).with_outputs(_DEAD, main="events")
        read.events.element_type, read[_DEAD].element_type = Chunk, pl.DataFrame
        return Checked(read.events, read[_DEAD])
