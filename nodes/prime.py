"""What was accepted before a position, from the fates: so that whatever repeats it is still a duplicate."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import apache_beam as beam
import polars as pl
from apache_beam.metrics.metric import Metrics
from apache_beam.pvalue import PBegin, PCollection
from apache_beam.typehints.decorators import with_output_types

from contracts.app import App
from contracts.errors import CorruptError
from contracts.events import Fate
from contracts.positions import Position
from nodes.chunks import Chunk
from nodes.join import Joiner
from nodes.join_clicks import ACCEPTED
from nodes.log_tail import replay_from_ms


def accepted_before(app: App, fates: Path, position: Position) -> Iterator[pl.DataFrame]:
    """Ids and event times of the impressions that were accepted before `replay_from_ms` and may still be met.

    Args:
        app: its `labels.dedupe_s` says how long they count.
        fates: the folder that `FollowLog` wrote to.
        position: the one that is resumed from.

    Returns:
        Frames with `id` and `event_time_ms`, each pair once over all of them.

    Raises:
        CorruptError: a part cannot be read.
    """
    joiner, end_ms = Joiner(app), replay_from_ms(app, position.slot_ms_end)
    begin_ms = end_ms - joiner.dedupe_ms
    wanted = (
        (pl.col("stream") == "impressions")
        & (pl.col("fate") == Fate.ACCEPTED.value)
        & pl.col("event_time_ms").is_between(begin_ms, end_ms, closed="left")
    )
    found = []
    for path in sorted(fates.glob("part-*.parquet")):
        if _newest_ms(path) < begin_ms:
            continue
        try:
            found.append(pl.scan_parquet(path).filter(wanted).select("id", "event_time_ms").collect())
        except (pl.exceptions.PolarsError, OSError) as error:
            raise CorruptError(f"{path}: cannot be read ({error}); follow the topics into another folder") from error
    if found:
        whole = pl.concat(found).unique(maintain_order=True)
        yield from whole.iter_slices(app.config.ingest.chunk_rows)


def _newest_ms(path: Path) -> int:
    """The newest event time in a part, from its name; one that does not tell it may hold any.

    >>> _newest_ms(Path("part-000000000001234-00ff.parquet")), _newest_ms(Path("part-00ff.parquet")) > 2**61
    (1234, True)
    """
    told = path.stem.split("-")
    return int(told[1]) if len(told) == 3 and told[1].isdigit() else 2**62


class _ReadAccepted(beam.DoFn):
    def __init__(self, app: App, fates: str, position: Position) -> None:
        self._app, self._fates, self._position = app, fates, position

    def process(self, _: bytes) -> Iterator[Chunk]:
        for frame in accepted_before(self._app, Path(self._fates), self._position):
            Metrics.counter("rocket", "ctr_prime_impressions_total").inc(frame.height)
            yield Chunk(ACCEPTED, frame)


@with_output_types(Chunk)
class PrimeJoin(beam.PTransform[PBegin, PCollection[Chunk]]):
    """Tell `JoinClicks` what was accepted before the position: flatten it with the events.

    Nothing settles before it has come, because until then it holds event time back.
    """

    def __init__(self, app: App, fates: Path, position: Position) -> None:
        super().__init__()
        self._reader = _ReadAccepted(app, str(fates), replace(position, state=b""))

    def expand(self, begin: PBegin) -> PCollection[Chunk]:
        start: Any = begin | "Begin" >> beam.Impulse()
        return start | "Read what was accepted" >> beam.ParDo(self._reader).with_output_types(Chunk)
