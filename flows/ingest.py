"""Impressions and clicks become the example log.

impressions ┐
            ├─ read, check ─ join clicks ─ sample ─ featurize ─ order ─ streaming features ─▶ example log
clicks      ┘       └─▶ dead letters  └─────────┴──────────────────────────────────────────▶ fates
"""

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apache_beam as beam
import polars as pl
from apache_beam.pvalue import PCollection

from contracts.app import App
from contracts.events import Fate
from contracts.segments import ORDER, FeatureBatch
from flows.ingest_folder import IngestFolder
from flows.runners import bounded_pipeline, counters, run_to_end
from nodes.chunks import Chunk
from nodes.fates import dead_fates
from nodes.featurize_chunks import AddStreamingFeatures, Featurize
from nodes.follow_log import FollowLog, gather
from nodes.join_clicks import JoinClicks
from nodes.ledger import read_fates
from nodes.order import OrderRows
from nodes.read import Checked, ReadEvents
from nodes.sample import SampleNegatives
from nodes.write import WriteExamples, WriteParts

_STREAMS = ("impressions", "clicks")
#: Who listens to a run in this process; a function cannot travel to a worker, its key can.
_LISTENERS: dict[str, Callable[[int], None]] = {}


@dataclass(frozen=True, slots=True)
class Ingested:
    """The ways out of ingest: each event read is one row of `fates`."""

    examples: PCollection[FeatureBatch]
    fates: PCollection[pl.DataFrame]  #: FATES columns
    dead_letters: PCollection[pl.DataFrame]  #: DEAD_LETTERS columns


def wire(checked: Checked, app: App, follow: FollowLog | None = None) -> Ingested:
    """Wire the nodes; where events come from and where results go is the caller's.

    Args:
        checked: from files or topics.
        app: whose events they are.
        follow: None settles bounded input at once. Else events settle slot by slot as event time passes, and this puts
            them into log order; it writes fates and dead letters itself.
    """
    join = JoinClicks(app) if follow is None else JoinClicks(app, follow.slots, follow.position)
    sampled = checked.events | "Join clicks" >> join | "Sample" >> SampleNegatives(app)
    rows = sampled | "Featurize" >> Featurize(app)
    settled = sampled | "Take fates" >> beam.Map(lambda settled: settled.fates).with_output_types(pl.DataFrame)
    if follow is not None:
        gathered = gather(rows, settled, checked.dead, checked.marks)
        return Ingested(gathered | "Follow" >> follow, settled, checked.dead)
    examples = (
        rows
        | "Order rows" >> OrderRows(list(ORDER), _part_rows(app))
        | "Add streaming features" >> AddStreamingFeatures(app)
    )
    dead = checked.dead | "Dead letters' fates" >> beam.Map(dead_fates)
    return Ingested(examples, (settled, dead) | "All fates" >> beam.Flatten(), checked.dead)


def _part_rows(app: App) -> int:
    """Rows released at a time: whole segments, about a chunk."""
    ingest = app.config.ingest
    return ingest.segment_rows * max(1, ingest.chunk_rows // ingest.segment_rows)


def run(
    app: App,
    impressions: list[Path],
    clicks: list[Path],
    out: Path,
    *,
    on_progress: Callable[[str, int], None] | None = None,
) -> dict[str, Any]:
    """Ingest whole files into the folder `out`: examples/, fates/, dead_letters/ and ingest.json.

    Run again after a kill it completes to the same bytes; run again on a finished folder it checks and changes nothing.

    Args:
        app: whose contracts the events keep.
        impressions: NDJSON files of impressions.
        clicks: NDJSON files of clicks.
        out: holds the results of this input only.
        on_progress: called with ("read", events read so far).

    Returns:
        Rows by fate over both streams, and under "streams" for each; examples, sampled_out, waiting; seconds.

    Raises:
        ContractError: a file is missing, or `out` holds the results of another input.
        CorruptError: `out` does not hold what it says.
    """
    folder = IngestFolder(out)
    if (done := folder.claim(app, impressions, clicks)) is not None:
        return done
    wall, cpu = time.perf_counter(), time.process_time()
    sources = [("impressions", str(path)) for path in impressions] + [("clicks", str(path)) for path in clicks]
    with listening(on_progress) as tell:
        pipeline = bounded_pipeline()
        checked = pipeline | "Name files" >> beam.Create(sources, reshuffle=False) | "Read events" >> ReadEvents(app)
        if tell is not None:
            _ = checked.events | "Tell progress" >> beam.Map(*tell)
        ingested = wire(checked, app)
        _ = ingested.examples | "Write examples" >> WriteExamples(folder.examples, app.name)
        _ = ingested.fates | "Write fates" >> WriteParts(folder.fates)
        _ = ingested.dead_letters | "Write dead letters" >> WriteParts(folder.dead_letters)
        figures = figures_of(counters(run_to_end(pipeline)))
    figures |= {"wall_seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
    folder.finish(figures, app.schema_id)
    return figures


def figures_of(counted: dict[str, int]) -> dict[str, Any]:
    """The run's rows, each from the counter of the step where it happened."""
    streams = {}
    for stream in _STREAMS:
        rows = {"read": counted.get(f"ctr_read_{stream}_total", 0)}
        for fate in (Fate.ACCEPTED, Fate.DUPLICATE, Fate.LATE, Fate.ORPHAN):
            rows[fate.value] = counted.get(f"ctr_join_{stream}_{fate.value}_total", 0)
        rows[Fate.DEAD_LETTERED.value] = counted.get(f"ctr_read_{stream}_dead_letters_total", 0)
        streams[stream] = rows
    return {
        "impressions_read": streams["impressions"]["read"],
        "clicks_read": streams["clicks"]["read"],
        **{fate.value: sum(rows[fate.value] for rows in streams.values()) for fate in Fate},
        "examples": counted.get("ctr_sample_examples_total", 0),
        "sampled_out": counted.get("ctr_sample_sampled_out_total", 0),
        "corrections": counted.get("ctr_sample_corrections_total", 0),
        "ended": counted.get("ctr_sample_ended_total", 0),
        "waiting": 0,  # the end of bounded input settles everything
        "segments": counted.get("ctr_write_segments_total", 0),
        "streams": streams,
    }


def figures_of_fates(folder: Path) -> dict[str, Any]:
    """The rows of a log that several runs made, from what they wrote of each event."""
    fates = read_fates(folder)
    counted = {
        f"ctr_join_{stream}_{fate}_total": rows
        for stream, fate, rows in fates.group_by("stream", "fate").len().iter_rows()
    }
    for stream, rows in fates.group_by("stream").len().iter_rows():
        counted[f"ctr_read_{stream}_total"] = rows
        dead = counted.get(f"ctr_join_{stream}_{Fate.DEAD_LETTERED.value}_total", 0)
        counted[f"ctr_read_{stream}_dead_letters_total"] = dead
    outcomes = dict(fates.filter(pl.col("outcome").is_not_null()).group_by("outcome").len().iter_rows())
    counted["ctr_sample_examples_total"] = outcomes.get("example", 0)
    counted["ctr_sample_sampled_out_total"] = outcomes.get("sampled_out", 0)
    return figures_of(counted)


@contextmanager
def listening(
    on_progress: Callable[[str, int], None] | None,
) -> Iterator[tuple[Callable[[Chunk, str], None], str] | None]:
    """What `beam.Map` needs to tell `on_progress` the events read so far; None where nobody listens."""
    if on_progress is None:
        yield None
        return
    listener = uuid.uuid4().hex
    _LISTENERS[listener] = _running_total(on_progress)
    try:
        yield _tell, listener
    finally:
        _LISTENERS.pop(listener, None)


def _running_total(on_progress: Callable[[str, int], None]) -> Callable[[int], None]:
    total = 0

    def add(rows: int) -> None:
        nonlocal total
        total += rows
        on_progress("read", total)

    return add


def _tell(chunk: Chunk, listener: str) -> None:
    """Tell whoever listens in this process; on a worker elsewhere nobody does."""
    if (tell := _LISTENERS.get(listener)) is not None:
        tell(chunk.frame.height)
