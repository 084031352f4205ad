"""Topics on the test runner: the wired flow, killed when told, gone on with from its newest position."""

import itertools
import random
from pathlib import Path

import apache_beam as beam
import polars as pl
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing.test_stream import TestStream
from apache_beam.transforms.window import TimestampedValue
from apache_beam.utils.timestamp import Timestamp

from contracts.app import App
from contracts.events import Mark
from flows.ingest import wire
from nodes.append_examples import AppendExamples, close_examples
from nodes.chunks import Chunk, ChunkCoder
from nodes.example_log import ExampleDirectory
from nodes.follow_log import FollowLog
from nodes.positions import basis_of, newest
from nodes.prime import PrimeJoin
from nodes.read import Checked
from nodes.slots import slots_of
from tests.live_world import END, NEVER, Source, Topics

_KILL = "kill"
_TICKS = itertools.count()


def ticks() -> float:
    """A clock that goes on by a second each time it is looked at."""
    return float(next(_TICKS))


class KilledError(Exception):
    """What a test makes a run end with."""


def _pass(chunk: Chunk) -> Chunk:
    if chunk.stream == _KILL:
        raise KilledError("killed")
    return chunk


def _mark(chunk: Chunk) -> list[Mark]:
    return [Mark(*row) for row in chunk.frame.iter_rows()]


def _stream(app: App, source: Source, slot_ms: int, reads: int | None) -> TestStream:
    start = pl.DataFrame(list(source.standing.values()), schema=list(Mark._fields), orient="row")
    stream, passed_ms = TestStream(coder=ChunkCoder()), NEVER
    stream = stream.add_elements([TimestampedValue(Chunk("marks", start), Timestamp(micros=-(10**10)))])
    while (reads is None or reads > 0) and (read := source.read()) is not None:
        at_ms, mark, chunk = read
        at = Timestamp(micros=max(at_ms, -(10**7)) * 1000)
        marked = Chunk("marks", pl.DataFrame([mark], schema=list(Mark._fields), orient="row"))
        stream = stream.add_elements([TimestampedValue(part, at) for part in (marked, chunk)])
        if passed_ms < source.watermark_ms < END:
            stream, passed_ms = _advance(stream, passed_ms, source.watermark_ms, slot_ms), source.watermark_ms
        reads = None if reads is None else reads - 1
    if reads is not None:
        return stream.add_elements([TimestampedValue(Chunk(_KILL, pl.DataFrame()), at)])
    return _advance(stream, passed_ms, max(passed_ms, 0) + 80_000, slot_ms).advance_watermark_to_infinity()


def _advance(stream: TestStream, from_ms: int, to_ms: int, slot_ms: int) -> TestStream:
    """Move the watermark by no more than a slot at once: on this runner pending timers do not hold it behind them."""
    least_ms = max(from_ms, -20_000)
    ends = [end for end in range(least_ms // slot_ms * slot_ms, to_ms, slot_ms) if least_ms < end]
    for at_ms in sorted({*ends, *(end + 2 for end in ends), to_ms}):
        if at_ms <= to_ms:
            stream = stream.advance_watermark_to(Timestamp(micros=at_ms * 1000))
    return stream


def live_once(app: App, topics: Topics, out: Path, draw: random.Random, reads: int | None) -> None:
    """One run: killed after that many reads, or to the end."""
    log, basis = ExampleDirectory(out / "examples"), basis_of(app, {"t": len(topics)})
    position = newest(out / "positions", log.rows(), basis, slots_of(app).fine_ms)
    run_id = f"{out} {reads} {log.rows()}"
    stream = _stream(app, Source(app, topics, draw, position, most=4), slots_of(app).fine_ms, reads)
    follow = FollowLog(app, out, position, basis=basis, run_id=run_id, clock=ticks)
    options = PipelineOptions(["--runner", "BundleBasedDirectRunner", "--streaming"])
    try:
        with beam.Pipeline(options=options) as pipeline:
            read = pipeline | stream.with_output_types(Chunk) | "Pass" >> beam.Map(_pass).with_output_types(Chunk)
            events = read | "Events" >> beam.Filter(lambda chunk: chunk.stream != "marks")
            marks = read | "Marks" >> beam.Filter(lambda chunk: chunk.stream == "marks")
            if position is not None:
                primed = pipeline | "Prime" >> PrimeJoin(app, out / "fates", position)
                events = (events, primed) | "All" >> beam.Flatten()
            dead = read | "Dead" >> beam.FlatMap(lambda _: ()).with_output_types(pl.DataFrame)
            checked = Checked(events, dead, marks | "Unpack" >> beam.FlatMap(_mark).with_output_types(Mark))
            ingested = wire(checked, app, follow)
            _ = ingested.examples | "Append" >> AppendExamples(app, out / "examples", run_id)
    finally:
        close_examples(run_id)
