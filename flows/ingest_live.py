"""Topics become the example log, while they are written or once: the same nodes as for files.

topics ─ read, check ─ join clicks ─ sample ─ featurize ─ follow (order, number, streaming features) ─▶ example log
           └─▶ dead letters  └────────┴──▶ fates             └─▶ positions
"""

import dataclasses
import json
import shutil
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import apache_beam as beam
from xxhash import xxh3_64_hexdigest

from contracts.app import App
from contracts.errors import ContractError
from contracts.positions import Basis, Position
from contracts.stores import Record
from flows.ingest import figures_of, figures_of_fates, listening, wire
from flows.live_folder import Begun, LiveFolder
from flows.runner_errors import through_crashes
from flows.runners import Running, live_pipeline, start
from nodes import log_progress
from nodes.append_examples import AppendExamples, close_examples
from nodes.dead_records import dead_records
from nodes.example_log import ExampleDirectory
from nodes.example_logs import OpenExampleLog, open_examples
from nodes.files import write_whole
from nodes.follow_log import FollowLog
from nodes.kafka_client import partitions_of
from nodes.kafka_sink import WriteRecords, close_producers
from nodes.kafka_url import is_kafka_url, parse_kafka_url
from nodes.positions import basis_of, newest
from nodes.prime import PrimeJoin
from nodes.read_topics import ReadTopics, close_readers
from nodes.slots import slots_of
from nodes.source import BEFORE_ALL
from nodes.topic_plan import Begin
from nodes.write import WriteParts

_POLL_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Where the pipeline runs."""

    runner: str = "prism"  #: prism, flink, or embedded for topics that end
    job_endpoint: str | None = None  #: host:port of a running job server
    flink_rest: str | None = None  #: host:port of Flink's REST interface, or host:from-to
    worker_pool: str | None = None  #: host:port of Python workers; None: this process
    options: tuple[str, ...] = ()  #: more of the runner's own


def run(
    app: App,
    impressions: str,
    clicks: str,
    out: Path,
    *,
    examples: str | None = None,
    dead_letters: str | None = None,
    cluster: Cluster = Cluster(),
    begin: Begin = "earliest",
    until: Literal["never", "now"] = "never",
    stop: threading.Event | None = None,
    on_progress: Callable[[str, int], None] | None = None,
    on_tick: Callable[[], None] | None = None,
) -> dict[str, Any]:
    """Follow topics into the example log until `stop`, or up to where they end now.

    Whatever ends it, the next run with the same folder goes on behind what stands there: nothing is lost or doubled.

    Args:
        app: whose contracts the events keep.
        impressions: kafka:// URL.
        clicks: kafka:// URL, on the same brokers.
        out: positions, fates and dead letters of these topics only.
        examples: the example log, a folder or kafka:// URL; None: `out`/examples.
        dead_letters: kafka:// URL of a topic that they are written to as well (`nodes.dead_records`), at least once.
        cluster: the runner.
        begin: where a new folder begins: "earliest", "latest" or epoch milliseconds of record timestamps.
        until: "now" ends where the topics end when the folder was first told so, settles everything, and marks the log
            complete where it is a folder.
        stop: set it to end; the events read since the last position are read again by the next run.
        on_progress: called with ("read", events read so far).
        on_tick: called ten times a second.

    Returns:
        examples_in_log (rows), resumed_from (row, or None), ended (all up to the end is settled), wall_seconds,
        cpu_seconds; where it ended also all that `flows.ingest.run` gives.

    Raises:
        ContractError: another ingest is at work on the folder, it holds something else, topics changed under it, or
            offsets are gone.
        StoreError: no broker answers.
    """
    if until == "never" and cluster.runner == "embedded":
        raise ContractError("the embedded runner needs topics that end: give --until now, or --runner prism")
    sources = {"impressions": impressions, "clicks": clicks}
    topics = _partitions(app, sources)
    folder, where = LiveFolder(out), examples or str(out / "examples")
    with folder.locked():
        log = open_examples(where, app)
        try:
            basis = basis_of(app, topics)

            def attempt() -> dict[str, Any]:
                job = _Job(app, folder, where, basis, cluster, uuid.uuid4().hex, dead_letters)
                return job.run(sources, log, begin, until, stop, on_progress, on_tick)

            return through_crashes(attempt, log.rows)
        finally:
            log.close()


def build(app: App, impressions: str, clicks: str, out: Path, *, examples: str, cluster: Cluster) -> beam.Pipeline:
    """The pipeline of `run`, from the beginning of the topics and without end, for a runner that takes it as a job.

    Raises:
        ContractError: a topic is missing, or what the runner needs.
        StoreError: no broker answers.
    """
    sources = {"impressions": impressions, "clicks": clicks}
    job = _Job(app, LiveFolder(out), examples, basis_of(app, _partitions(app, sources)), cluster, uuid.uuid4().hex)
    return job.pipeline(sources)


def _partitions(app: App, sources: dict[str, str]) -> dict[str, int]:
    urls = [parse_kafka_url(source) for source in sources.values()]
    return {url.topic: len(partitions_of(url.brokers, url.topic, app.config.kafka)) for url in urls}


@dataclass(frozen=True, slots=True)
class _Job:
    app: App
    folder: LiveFolder
    where: str
    basis: Basis
    cluster: Cluster
    run_id: str
    dead_letters: str | None = None

    def run(
        self,
        sources: dict[str, str],
        log: OpenExampleLog,
        begin: Begin,
        until: Literal["never", "now"],
        stop: threading.Event | None,
        on_progress: Callable[[str, int], None] | None,
        on_tick: Callable[[], None] | None,
    ) -> dict[str, Any]:
        root, begun = self.folder.root, self.folder.begun(self.basis, self.where)
        if (done := self._done(log, until)) is not None:
            return done
        self._refuse_longer(begun, until)
        bounded = self.cluster.runner == "embedded"
        position = None if bounded else newest(root / "positions", log.rows(), self.basis, slots_of(self.app).fine_ms)
        read = self._read(sources, begin, until, begun, position)
        self.folder.begin(self.basis, self.where, begun.start if begun else read.start, read.ends or None)
        if bounded:
            for parts in ("fates", "dead_letters"):  # of a run that was killed
                shutil.rmtree(root / parts, ignore_errors=True)
        for parts in ("fates", "dead_letters", "positions"):
            (root / parts).mkdir(parents=True, exist_ok=True)
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        log_progress.set(self.run_id, BEFORE_ALL)
        try:
            with listening(on_progress) as listener:
                pipeline = self._wire(read, position, listener)
                with start(pipeline, log=root / "prism.log") as running:
                    ended = _wait(running, stop, on_tick)
                    counted = running.counters() if ended else {}
        finally:
            close_readers(self.run_id)
            close_examples(self.run_id)
            close_producers()
        figures = {
            "examples_in_log": log.rows(),
            "resumed_from": None if position is None else position.row,
            "ended": ended,
            "wall_seconds": time.perf_counter() - wall_s,
            "cpu_seconds": time.process_time() - cpu_s,
        }
        if ended:
            figures |= figures_of(counted) if position is None and counted else figures_of_fates(root / "fates")
            figures["ended"] = True  # of the run; that of the rows is a count
            self._finish(log, figures)
        return figures

    def pipeline(self, sources: dict[str, str]) -> beam.Pipeline:
        return self._wire(self._read(sources, "earliest", "never", None, None), None, None)

    def _done(self, log: OpenExampleLog, until: str) -> dict[str, Any] | None:
        """The figures of the run that finished the folder already, if one did."""
        path = self.folder.root / "ingest.json"
        if not path.exists():
            return None
        if until == "never":
            raise ContractError(
                f"{self.folder.root}: its log ends where the topics were told to; follow them into another folder"
            )
        figures: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if log.rows() != figures["examples_in_log"]:
            raise ContractError(
                f"{self.where}: holds {log.rows()} rows, {figures['examples_in_log']} when it was finished; ingest the "
                "topics into another folder"
            )
        return figures

    def _refuse_longer(self, begun: Begun | None, until: str) -> None:
        if begun is not None and begun.ends is not None and until == "never":
            raise ContractError(
                f"{self.folder.root}: was begun to end where its topics ended then; finish it with --until now, or "
                "give another folder"
            )

    def _read(
        self,
        sources: dict[str, str],
        begin: Begin,
        until: Literal["never", "now"],
        begun: Begun | None,
        position: Position | None,
    ) -> ReadTopics:
        first = position.resume if position is not None else begun.start if begun is not None else {}
        return ReadTopics(
            self.app,
            sources,
            start=first,
            begin=begin,
            until=begun.ends if until == "now" and begun is not None and begun.ends is not None else until,
            splits="partition" if self.cluster.runner == "flink" else "one",
            streaming=self.cluster.runner != "embedded",
            run_id=self.run_id,
        )

    def _wire(self, read: ReadTopics, position: Position | None, listener: Any) -> beam.Pipeline:
        app, root, cluster = self.app, self.folder.root, self.cluster
        pipeline = live_pipeline(
            cluster.runner,
            app,
            job_endpoint=cluster.job_endpoint,
            job_name=f"rocket-ingest-{xxh3_64_hexdigest(bytes(root.resolve()))[:12]}",  # one at a time a folder
            flink_rest=cluster.flink_rest,
            worker_pool=cluster.worker_pool,
            options=cluster.options,
        )
        checked = pipeline | "Read topics" >> read
        if listener is not None:
            _ = checked.events | "Tell progress" >> beam.Map(*listener)
        follow = None
        if cluster.runner != "embedded":
            follow = FollowLog(
                app, root, position, basis=self.basis, run_id=self.run_id, slots=read.slots, positions=not read.ends
            )
        if position is not None:
            primed = pipeline | "Tell what was accepted" >> PrimeJoin(app, root / "fates", position)
            checked = dataclasses.replace(checked, events=(checked.events, primed) | "Events" >> beam.Flatten())
        ingested = wire(checked, app, follow)
        _ = ingested.examples | "Append examples" >> AppendExamples(app, self.where, self.run_id)
        if self.dead_letters is not None:
            told = checked.dead | "As records" >> beam.FlatMap(dead_records, app.schema_id).with_output_types(Record)
            _ = told | "Tell dead letters" >> WriteRecords(self.dead_letters, app.config.kafka)
        if follow is None:
            _ = ingested.fates | "Write fates" >> WriteParts(root / "fates")
            _ = ingested.dead_letters | "Write dead letters" >> WriteParts(root / "dead_letters")
        return pipeline

    def _finish(self, log: OpenExampleLog, figures: dict[str, Any]) -> None:
        write_whole(self.folder.root / "ingest.json", (json.dumps(figures, indent=2) + "\n").encode())
        if not is_kafka_url(self.where):
            ExampleDirectory(Path(self.where)).finish(log.rows(), self.app.schema_id)


def _wait(running: Running, stop: threading.Event | None, on_tick: Callable[[], None] | None) -> bool:
    """Until it ends by itself: True; or until `stop`: False."""
    while not running.ended:
        if stop is not None and stop.wait(_POLL_S):
            running.cancel()
            return False
        if stop is None:
            time.sleep(_POLL_S)
        if on_tick is not None:
            on_tick()
    return running.wait()
