"""A checker that never failed is not trusted: classic bugs are planted one at a time, and the oracles report each.

Every scenario runs twice, with a crash at the dangerous moment: with the product's own code the oracles are silent, and
with the planted bug in its place they complain.
"""

import contextlib
import json
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import msgspec
import polars as pl
import pytest

from contracts import names
from contracts.app import App
from contracts.errors import RocketError
from contracts.segments import FeatureBatch
from contracts.stores import Record
from contracts.weights import WeightManifest
from flows import ingest, train
from flows.serve import serve
from model import checkpoint, checkpoint_writer
from nodes import example_log, redis_scripts
from nodes.cotrain import CoTrainer
from nodes.example_log import ExampleDirectory
from nodes.fake_traffic import light_arrays, requests
from nodes.fakes import MemoryLog, MemoryWeights
from nodes.publish import Snapshot, pack
from nodes.redis_weights import RedisWeights
from nodes.simulate import Faults, simulate
from nodes.verify_weights import manifest_bytes
from tests.faults.oracles import (
    WatchedLog,
    WatchedVersions,
    answered,
    checkpoints_whole,
    events_once,
    weights_of_the_log,
)
from tests.random_examples import random_examples, small_app, write_log

ROWS = 1000  # minibatches of 64, a checkpoint every 5


class Killed(Exception):  # noqa: N818  # an Exception, so that a thread of the product's hands it over
    """Stands for a kill at a failpoint."""


@dataclass
class Place:
    """Where a scenario plays, and when it dies."""

    app: App
    folder: Path
    valkey: str
    patch: pytest.MonkeyPatch
    ingested: Path  #: of the scenarios that need an example log of real events
    bug: bool = False
    left: list[int] = field(default_factory=list)  #: failpoints to pass before the one that kills

    def dies_after(self, failpoints: int) -> None:
        self.left[:] = [failpoints]

    def failpoint(self, *_: object) -> None:
        if self.left:
            self.left[0] -= 1
            if self.left[0] < 0:
                self.left.clear()
                raise Killed


# --- requests ---------------------------------------------------------------------------------------------------------


class _Requests(MemoryLog):
    """Asks to stop when all has been polled and done."""

    def __init__(self, values: Sequence[bytes]) -> None:
        super().__init__(values)
        self.stop = threading.Event()

    def commit(self, *, wait: bool = True) -> None:
        super().commit(wait=wait)
        if self.committed == len(self.records):
            self.stop.set()


class _CommitsFirst(_Requests):
    def poll(self, max_wait_ms: int, max_records: int) -> Sequence[Record]:
        found = super().poll(max_wait_ms, max_records)
        if not found:
            self.stop.set()
        MemoryLog.commit(self)
        return found


def offsets_before_answers(at: Place) -> list[str]:
    """A scorer commits what it has polled, and dies before the answers are written."""
    lines = requests(at.app, 40, 2)
    asked, responses = (_CommitsFirst if at.bug else _Requests)(lines), MemoryLog()
    responses.fail_append = Killed()
    with pytest.raises(Killed):
        serve(at.app, asked, responses, MemoryWeights(at.app.name), stop=asked.stop, max_requests=8)
    asked.restart()
    serve(at.app, asked, responses, MemoryWeights(at.app.name), stop=asked.stop, max_requests=8)
    answers = [msgspec.json.decode(record.value)["id"] for record in responses.records]
    return answered([json.loads(line)["id"] for line in lines], [(name, None) for name in answers])


# --- the position of the trainer --------------------------------------------------------------------------------------


def position_before_state(at: Place) -> list[str]:
    """A trainer keeps its position apart, writes it before the checkpoint, and dies between the two."""
    return _position_apart(at, before=True)


def position_after_state(at: Place) -> list[str]:
    """A trainer keeps its position apart, writes it after the checkpoint, and dies between the two."""
    return _position_apart(at, before=False)


def _position_apart(at: Place, *, before: bool) -> list[str]:
    log = write_log(at.folder / "examples", at.app, random_examples(at.app, ROWS))
    mark, save, restore = at.folder / "position", checkpoint.save_checkpoint, CoTrainer.restore

    def saving(folder, tensors, meta, tables, *, keep):
        if before:
            mark.write_text(str(meta["position"]))
        at.failpoint()
        path = save(folder, tensors, meta, tables, keep=keep)
        at.failpoint()
        if not before:
            mark.write_text(str(meta["position"]))
        return path

    def restoring(trainer, saved, **more) -> None:
        restore(trainer, saved, **more)
        trainer.position = int(mark.read_text())
        known = saved.tables["trained_ids"].filter(pl.col("_row") < trainer.position)
        trainer.ids.restore(known, saved.manifest.event_time_ms)

    checkpoints = at.folder / "checkpoints"
    with at.patch.context() as patch:
        patch.setattr(checkpoint_writer, "save_checkpoint", saving)
        if at.bug:
            patch.setattr(CoTrainer, "restore", restoring)
        at.dies_after(2 if before else 3)  # two a checkpoint
        with pytest.raises(Killed):
            train.run(at.app, log, checkpoints)
        train.run(at.app, log, checkpoints)
    return weights_of_the_log(at.app, log, checkpoints, at.folder / "undisturbed")


# --- files ------------------------------------------------------------------------------------------------------------


def segment_in_place(at: Place) -> list[str]:
    """Ingest writes a segment under its own name, and dies in the midst of it."""

    def in_place(path: Path, data: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as sink:
            sink.write(data[: len(data) // 2])
            sink.flush()
            at.failpoint()
            sink.write(data[len(data) // 2 :])

    with at.patch.context() as patch:
        if at.bug:
            patch.setattr(example_log, "write_whole", in_place)
        else:
            patch.setattr(os, "fsync", at.failpoint)
        at.dies_after(3)
        return _append_through_a_crash(at, ExampleDirectory(at.folder / "examples"))


def retry_without_looking(at: Place) -> list[str]:
    """Whether an append was written is not known, so it is written again, behind what stands."""

    class Unknown(ExampleDirectory):
        def append(self, batch: FeatureBatch, app: str) -> int:
            if at.bug:
                batch = FeatureBatch(batch.frame, self.rows(), batch.schema_id)
            done = super().append(batch, app)
            at.failpoint()
            return done

    at.dies_after(2)
    return _append_through_a_crash(at, Unknown(at.folder / "examples"))


def _append_through_a_crash(at: Place, log: ExampleDirectory) -> list[str]:
    """Append the batches of real events, one of them a second time after the crash."""
    app = _events_app()
    watched = WatchedLog(ExampleDirectory(log.path), app.schema_id)
    told = []
    for batch in ExampleDirectory(at.ingested / "out" / "examples").read(0):
        try:
            log.append(batch, app.name)
        except Killed:
            watched.look()
            with contextlib.suppress(Killed):
                try:
                    log.append(batch, app.name)
                except RocketError as error:
                    told.append(f"ingest cannot go on: {error}")
                    break
        watched.look()
    assert not at.left, "it never died"
    sources = [str(at.ingested / f"{stream}.ndjson") for stream in ("impressions", "clicks")]
    found, _ = events_once(app, sources, at.ingested / "out", ExampleDirectory(log.path).read(0))
    watched.again()
    return told + found + watched.complaints


def checkpoint_in_place(at: Place) -> list[str]:
    """A trainer writes a checkpoint under its own name, and dies in the midst of it."""
    log = write_log(at.folder / "examples", at.app, random_examples(at.app, ROWS))

    def in_place(folder, tensors, meta, tables, *, keep):
        fields = {key: meta[key] for key in checkpoint.REQUIRED if key != "metrics"}
        path = folder / checkpoint.Manifest(format=1, files={}, **fields).name
        path.mkdir()
        for name, fill in checkpoint._parts(tensors, meta, tables).items():
            with (path / name).open("wb") as file:
                fill(file)
            at.failpoint()
        return path

    with at.patch.context() as patch:
        if at.bug:
            patch.setattr(checkpoint_writer, "save_checkpoint", in_place)
        else:
            patch.setattr(os, "fsync", at.failpoint)
        at.dies_after(9)
        with pytest.raises(Killed):
            train.run(at.app, log, at.folder / "checkpoints")
    return checkpoints_whole(at.folder / "checkpoints")


# --- versions ---------------------------------------------------------------------------------------------------------


class _DiesBeforeThePointer(RedisWeights):
    failpoint: Callable[[], None]

    def _run(self, script: str, keys: list[str], args: list) -> str:
        if script == redis_scripts.RELEASE:
            self.failpoint()
        return super()._run(script, keys, args)


class _PointerFirst(_DiesBeforeThePointer):
    def publish(self, manifest: WeightManifest, chunks: Sequence[bytes]) -> WeightManifest:
        version = (self.current_version() or 0) + 1
        made = msgspec.structs.replace(manifest, model=self.model, version=version)
        pointer = {"version": version, "epoch": self.epoch(), "last": version, "released": version}
        self._redis.set(names.current_key(self.model), json.dumps(pointer))
        self.failpoint()
        self._redis.set(self._keys(made)[0], manifest_bytes(made))
        for key, chunk in zip(self._keys(made)[1:], chunks, strict=True):
            self._redis.set(key, chunk)
        return made


class _InPlace(_DiesBeforeThePointer):
    def publish(self, manifest: WeightManifest, chunks: Sequence[bytes]) -> WeightManifest:
        if (version := self.current_version()) is None:
            return super().publish(manifest, chunks)
        made = msgspec.structs.replace(manifest, model=self.model, version=version)
        for key, chunk in zip(self._keys(made)[1:], chunks, strict=True):
            self._redis.set(key, chunk)
            self.failpoint()
        self._redis.set(self._keys(made)[0], manifest_bytes(made))
        return made


def pointer_before_blobs(at: Place) -> list[str]:
    """A publisher moves the pointer, and dies before the blobs are there."""
    return _published(at, _PointerFirst, dies_after=0)


def shards_torn_in_place(at: Place) -> list[str]:
    """A publisher writes the blobs of the version that is served, and dies among them."""
    return _published(at, _InPlace, dies_after=1 if at.bug else 0)


def shards_changed_in_place(at: Place) -> list[str]:
    """A publisher gives the version that is served other bytes."""
    return _published(at, _InPlace, dies_after=None)


def _published(at: Place, bug: type[_DiesBeforeThePointer], *, dies_after: int | None) -> list[str]:
    model = f"m-{uuid4().hex[:8]}"
    with (
        contextlib.closing((bug if at.bug else _DiesBeforeThePointer)(at.valkey, model)) as store,
        contextlib.closing(RedisWeights(at.valkey, model)) as reader,
    ):
        store.failpoint = at.failpoint
        watched = WatchedVersions(reader)
        for number in (1, 2):
            if number == 2 and dies_after is not None:
                at.dies_after(dies_after)
            made = pack(at.app, light_arrays(at.app, number), position=number, step=number, trained_until_ms=0)
            assert isinstance(made, Snapshot)
            with contextlib.suppress(Killed):
                store.publish(made.manifest(at.app, model, 0, 0, {}), made.chunks)
            watched.look()
        assert not at.left, "it never died"
    return watched.complaints


# --- the table --------------------------------------------------------------------------------------------------------

#: Scenario, and a word of what the oracles must say of it.
BUGS: list[tuple[Callable[[Place], list[str]], str]] = [
    (offsets_before_answers, "requests have no answer"),
    (position_before_state, "is not that of an undisturbed run"),
    (position_after_state, "is not that of an undisturbed run"),
    (segment_in_place, "segment-"),
    (checkpoint_in_place, "manifest.json"),
    (pointer_before_blobs, "no version 2"),
    (shards_torn_in_place, "version 1"),
    (shards_changed_in_place, "has other bytes than before"),
    (retry_without_looking, "doubled"),
]


def _events_app() -> App:
    from contracts.app import load_app

    settings = {"labels": {"wait_s": 60, "dedupe_s": 300}, "ingest": {"disorder_s": 20, "segment_rows": 128}}
    return load_app("adsim", settings)


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> App:
    return small_app(tmp_path_factory.mktemp("app") / "small")


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("events")
    simulate(folder, impressions=800, seed=3, days=0.01, rates=Faults(disorder_s=20, wait_s=60, dedupe_s=300))
    ingest.run(_events_app(), [folder / "impressions.ndjson"], [folder / "clicks.ndjson"], folder / "out")
    return folder


@pytest.fixture
def place(app: App, ingested: Path, valkey_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    return Place(app, tmp_path, valkey_url, monkeypatch, ingested)


@pytest.mark.parametrize(("scenario", "word"), BUGS, ids=lambda value: getattr(value, "__name__", ""))
def test_the_oracles_report_the_planted_bug_and_nothing_without_it(
    scenario: Callable[[Place], list[str]], word: str, place: Place, tmp_path: Path
) -> None:
    place.folder = tmp_path / "right"
    assert scenario(place) == []
    place.folder, place.bug = tmp_path / "wrong", True
    complaints = scenario(place)
    assert any(word in complaint for complaint in complaints), complaints
