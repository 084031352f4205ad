"""What must hold after any fault. Each oracle gives its complaints, a sentence each; none is what one hopes for.

The kill suite asks them of the live loop, and `test_planted_bugs` proves that each of them complains when it must.
"""

import contextlib
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from kafka import TopicPartition

from contracts.app import App
from contracts.errors import RocketError, StoreError
from contracts.segments import FeatureBatch
from contracts.stores import ExampleLog, WeightStore
from flows import audit, train
from model.checkpoint import Loaded, load_checkpoint, load_newest
from model.checkpoint_manifest import names
from nodes.kafka_client import consumer
from nodes.kafka_url import parse_kafka_url

_BYTES = ("model.safetensors", "optimizer.safetensors", "trained_ids.arrow", "state.json", "metrics.json")


def events_once(
    app: App, sources: Sequence[str], out: Path, log: Iterable[FeatureBatch], **more: Any
) -> tuple[list[str], dict[str, Any]]:
    """Every event has the fate, and every accepted impression the one row and label, that the topics themselves say.

    Args:
        app: whose they are.
        sources: of impressions and of clicks, kafka:// URLs or files.
        out: of ingest.
        log: the whole example log.
        more: for `flows.audit.run`.

    Returns:
        The complaints, and the audit's figures.
    """
    try:
        found = audit.run(app, *sources, out, log, **more)
    except RocketError as error:
        return [f"the audit cannot read what stands: {error}"], {}
    wrong = ("unaccounted", "wrongly_refused", "lost", "doubled", "mislabelled", "unordered")
    told = [f"{found[name]} {name}" for name in wrong if found[name]] + found["wrong"]
    if "trained" in found and found["trained"] + found["pending"] != found["examples"]:
        told.append(f"{found['trained']} trained and {found['pending']} pending are not {found['examples']} examples")
    return told, found


def weights_of_the_log(app: App, log: Path | str, checkpoints: Path, scratch: Path) -> list[str]:
    """The newest checkpoint has the bytes of a bounded run over the same log that nothing disturbed.

    Args:
        app: whose nets they are.
        log: the example log, a folder or kafka:// URL.
        checkpoints: of the trainer under test, which has learnt every whole minibatch of the log.
        scratch: an empty folder for the other run.
    """
    try:
        found = load_newest(checkpoints, app.schema_id)
        train.run(app, log, scratch)
    except RocketError as error:
        return [f"there is no whole state: {error}"]
    return _same_state(found, load_newest(scratch, app.schema_id)) + _once(found)


def _same_state(found: Loaded, expected: Loaded) -> list[str]:
    told = [
        f"{name} is not that of an undisturbed run"
        for name in _BYTES
        if (found.path / name).read_bytes() != (expected.path / name).read_bytes()
    ]
    if (at := found.manifest.position) != expected.manifest.position:
        told.append(f"training stands at row {at}, an undisturbed run at {expected.manifest.position}")
    return told


def _once(found: Loaded) -> list[str]:
    learnt, refused = found.meta["examples"], found.meta["redelivered"]
    position = found.manifest.position
    told = [] if learnt + refused == position else [f"{learnt} rows were learnt before row {position}"]
    ids = found.tables["trained_ids"]["example_id"]
    return told + ([] if ids.n_unique() == ids.len() else ["an example was learnt twice"])


def checkpoints_whole(folder: Path, but: Iterable[str] = ()) -> list[str]:
    """Whatever stands under a checkpoint's name is whole, but for those that a test broke itself."""
    told = []
    for name in set(names(folder)) - set(but):
        try:
            load_checkpoint(folder / name)
        except RocketError as error:
            if (folder / name).exists():  # a trainer at work may just have removed it
                told.append(str(error))
    return told


def answered(asked: Iterable[str], answers: Iterable[tuple[str | None, str | None]]) -> list[str]:
    """Each request has an answer, under its own id, and nobody else has one.

    Args:
        asked: ids of the requests as they lie in their topic.
        answers: id and correlation id of each answer; no correlation id where none was asked for.
    """
    wanted, came = set(asked), Counter[str | None]()
    told = []
    for name, correlation in answers:
        came[name] += 1
        if correlation not in (None, name):
            told.append(f"the answer to {name} is correlated with {correlation}")
    missing, foreign = wanted - came.keys(), came.keys() - wanted
    if missing:
        told.append(f"{len(missing)} of {len(wanted)} requests have no answer, {min(missing)} among them")
    return told + [f"an answer to {name}, which nobody asked" for name in foreign]


def in_topics(app: App, requests: str, responses: str) -> tuple[list[str], list[tuple[str | None, str | None]]]:
    """What lies in the topics of requests and answers, for `answered`: read by offsets, without a group."""
    ids = [msgspec.json.decode(record.value)["id"] for record in _records(app, requests)]
    answers = [
        (msgspec.json.decode(record.value)["id"], (dict(record.headers).get("kafka_correlationId") or b"").decode())
        for record in _records(app, responses)
    ]
    return ids, [(name, correlation or None) for name, correlation in answers]


def _records(app: App, url: str) -> list[Any]:
    place, found = parse_kafka_url(url), list[Any]()
    with contextlib.closing(consumer(place.brokers, app.config.kafka)) as reader:
        parts = [TopicPartition(place.topic, number) for number in reader.partitions_for_topic(place.topic) or ()]
        reader.assign(parts)
        reader.seek_to_beginning(*parts)
        ends = reader.end_offsets(parts)
        while any(reader.position(part) < end for part, end in ends.items()):
            for polled in reader.poll(timeout_ms=200).values():
                found += polled
    return found


class WatchedVersions:
    """Looks at the store again and again: what the pointer names is whole, never changes, and never goes back."""

    def __init__(self, store: WeightStore) -> None:
        self._store = store
        self._seen: dict[int, str] = {}  # version -> digest
        self._epoch = 0  # of the newest publisher
        self.looks = 0  #: that found a version
        self.newest = 0
        self.complaints: list[str] = []

    def look(self) -> None:
        """Look once; a store that is away tells nothing."""
        try:
            version = self._store.current_version()
        except StoreError:
            return
        if version is None:
            return
        try:
            manifest = self._store.fetch(version).manifest
        except StoreError as error:
            self.complaints += [str(error)] if "no version" in str(error) else []
            return
        except RocketError as error:
            self.complaints.append(str(error))
            return
        self.looks += 1
        if version < self.newest:
            self.complaints.append(f"version {version} is served after {self.newest}")
        if self._seen.setdefault(version, manifest.digest) != manifest.digest:
            self.complaints.append(f"version {version} has other bytes than before")
        if manifest.epoch < self._epoch:
            self.complaints.append(f"version {version} comes from a trainer that was fenced out")
        self.newest, self._epoch = max(self.newest, version), max(self._epoch, manifest.epoch)


class WatchedLog:
    """Reads the example log as it grows, as a trainer would: no gap, no example twice, and what was read stays."""

    def __init__(self, log: ExampleLog, schema_id: str) -> None:
        self._log, self._schema_id = log, schema_id
        self._reading = threading.Lock()  # a thread looks now and then, and a log has one reader at a time
        self._ids: set[int] = set()
        self.rows = 0
        self.complaints: list[str] = []

    def look(self) -> None:
        """Read what has come since."""
        with self._reading:
            self._look()

    def _look(self) -> None:
        try:
            for batch in self._log.read(self.rows, self._schema_id):
                self._take(batch)
        except StoreError:
            return
        except RocketError as error:
            self.complaints.append(str(error))

    def again(self) -> None:
        """Read all once more: it must be what was read while it grew."""
        told = WatchedLog(self._log, self._schema_id)
        with self._reading:
            told.look()
        self.complaints += told.complaints
        if told.rows < self.rows:
            self.complaints.append(f"the log has {told.rows} rows, but had {self.rows}")
        if missing := len(self._ids - told._ids):
            self.complaints.append(f"{missing} examples that were read are gone")

    def _take(self, batch: FeatureBatch) -> None:
        ids = batch.frame["example_id"].to_list()
        if batch.first_row != self.rows:
            self.complaints.append(f"row {batch.first_row} comes after row {self.rows - 1}")
        if twice := len(ids) - len(set(ids) - self._ids):
            self.complaints.append(f"{twice} examples from row {batch.first_row} on stand there already")
        self._ids |= set(ids)
        self.rows = batch.next_row
