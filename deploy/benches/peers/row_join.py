"""The join as one writes it by hand in Beam: row by row, a state and a timer for each impression id.

It reads through the same source as Rocket's join (whose decoding by chunks it gets for nothing), keeps the same rules
of event time, and stops at the label: no sampling, no features, no order, no log.
"""

import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import apache_beam as beam
import msgspec
import polars as pl
from apache_beam.coders import BytesCoder
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import BagStateSpec, TimerSpec, on_timer
from apache_beam.typehints import KV
from apache_beam.utils.timestamp import Timestamp

from contracts.app import App
from flows.runners import live_pipeline, start
from nodes.chunks import Chunk
from nodes.read_topics import ReadTopics, close_readers

_LABELS: dict[str, list[tuple[str, int, int]]] = {}  # of each run in this process
_decode, _encode = msgspec.json.Decoder(dict[str, Any]).decode, msgspec.json.Encoder().encode


class Rules(NamedTuple):
    """Event time, milliseconds."""

    wait_ms: int
    disorder_ms: int
    dedupe_ms: int

    @property
    def settle_ms(self) -> int:
        """From an impression until all that may decide its label has come."""
        return self.wait_ms + self.disorder_ms


def rules_of(app: App) -> Rules:
    """Those of an app whose dedupe span is its wait: the peer remembers nothing beyond it."""
    labels = app.config.labels
    wait_ms, dedupe_ms = round(labels.wait_s * 1000), round(labels.dedupe_s * 1000)
    if dedupe_ms > wait_ms:
        raise ValueError("the row-wise join knows dedupe_s up to wait_s")
    return Rules(wait_ms, round(app.config.ingest.disorder_s * 1000), wait_ms)


class Decided(NamedTuple):
    """What is known of one impression id at a moment of event time."""

    labels: list[tuple[int, int]]  #: event time and label of each impression that is settled
    kept: list[dict[str, Any]]  #: events that later ones still need


def decide(events: Iterable[dict[str, Any]], until_ms: int, rules: Rules) -> Decided:
    """Settle the impressions of one id whose time has come.

    Args:
        events: `at` (event time), `click`, `hash` (for ties), and whatever else they have.
        until_ms: all events before it that are not late have come.
        rules: of event time.

    >>> shown, click = {"at": 0, "click": False, "hash": 1}, {"at": 90, "click": True, "hash": 2}
    >>> decide([click, shown, shown | {"at": 50}], 120, Rules(100, 20, 100)).labels
    [(0, 1)]
    """
    ordered = sorted(events, key=lambda event: (event["at"], event["hash"]))
    accepted: list[int] = []
    for event in ordered:
        if not event["click"] and (not accepted or event["at"] > accepted[-1] + rules.dedupe_ms):
            accepted.append(event["at"])
    clicked = set()
    for event in ordered:
        if event["click"]:
            shown = [at for at in accepted if at <= event["at"] + rules.disorder_ms]
            if shown and event["at"] <= shown[-1] + rules.wait_ms:
                clicked.add(shown[-1])
    due = [at for at in accepted if at + rules.settle_ms <= until_ms]
    left = [at for at in accepted if at + rules.settle_ms > until_ms]
    from_ms = min([until_ms, *left]) - rules.disorder_ms
    over_ms = due[-1] + rules.dedupe_ms if due else -(2**62)
    kept = [event for event in ordered if event["at"] > (from_ms if event["click"] else over_ms)]
    return Decided([(at, int(at in clicked)) for at in due], kept)


class _JoinRows(beam.DoFn):
    EVENTS = BagStateSpec("events", BytesCoder())
    DUE = TimerSpec("due", TimeDomain.WATERMARK)

    def __init__(self, rules: Rules) -> None:
        self._rules = rules

    def process(
        self,
        keyed: tuple[str, bytes],
        events: Any = beam.DoFn.StateParam(EVENTS),
        due: Any = beam.DoFn.TimerParam(DUE),
    ) -> Iterator[tuple[str, int, int]]:
        events.add(keyed[1])
        due.set(Timestamp(micros=(_decode(keyed[1])["at"] + self._rules.settle_ms) * 1000))
        yield from ()

    @on_timer(DUE)
    def settle(
        self,
        key: Any = beam.DoFn.KeyParam,
        at: Any = beam.DoFn.TimestampParam,
        events: Any = beam.DoFn.StateParam(EVENTS),
        due: Any = beam.DoFn.TimerParam(DUE),
    ) -> Iterator[tuple[str, int, int]]:
        decided = decide(map(_decode, events.read()), at.micros // 1000, self._rules)
        events.clear()
        if decided.kept:
            for event in decided.kept:
                events.add(_encode(event))
            due.set(Timestamp(micros=(decided.kept[0]["at"] + self._rules.settle_ms) * 1000))
        for shown_ms, label in decided.labels:
            yield key, shown_ms, label


def _rows(chunk: Chunk, columns: Mapping[str, tuple[str, str]]) -> Iterator[tuple[str, bytes]]:
    """Each event that is not late, as JSON with all its columns, under its impression id."""
    name, at = columns[chunk.stream]
    on_time = chunk.frame.filter(~pl.col("_late")).drop("_late", "_origin", "_line")
    rows = on_time.rename({at: "at", "_hash": "hash"}).with_columns(click=pl.lit(chunk.stream == "clicks"))
    for row in rows.iter_rows(named=True):
        yield row[name], _encode(row)


def _keep(row: tuple[str, int, int], run_id: str) -> None:
    _LABELS[run_id].append(row)


def label_rows(app: App, urls: Mapping[str, str]) -> dict[tuple[str, int], int]:
    """The labels of all that lies in two topics, on Prism: (impression id, event time) -> 0 or 1.

    Args:
        app: whose events they are; its dedupe span is its wait.
        urls: "impressions" and "clicks" -> kafka:// URL.

    Raises:
        ContractError: an impression was labelled twice.
    """
    columns = {
        stream: (contract.role("impression_id"), contract.role("event_time"))
        for stream, contract in (("impressions", app.impressions), ("clicks", app.clicks))
    }
    read = ReadTopics(app, urls, start={}, until="now", run_id=uuid.uuid4().hex)
    _LABELS[read.run_id] = []
    pipeline = live_pipeline("prism", app, job_name=f"row-join-{read.run_id}")
    rows = (pipeline | "Read topics" >> read).events | "Rows" >> beam.FlatMap(_rows, columns).with_output_types(
        KV[str, bytes]
    )
    _ = rows | "Join rows" >> beam.ParDo(_JoinRows(rules_of(app))) | "Keep labels" >> beam.Map(_keep, read.run_id)
    try:
        with start(pipeline) as running:
            running.wait()
    finally:
        close_readers(read.run_id)
    found = _LABELS.pop(read.run_id)
    labels = {(name, at): label for name, at, label in found}
    if len(labels) != len(found):
        raise ValueError(f"the row-wise join labelled {len(found) - len(labels)} impressions twice")
    return labels
