"""Live training: whatever arrives when, and whatever stops it, it ends as one bounded run over the same rows does."""

import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest

from contracts.app import App
from contracts.errors import ContractError, FencedError, SchemaMismatchError, StoreError
from contracts.segments import FeatureBatch
from flows import train, train_live
from model.checkpoint import Loaded, load_newest
from model.fence import claim_epoch
from nodes.example_log import ExampleDirectory
from nodes.fakes import MemoryWeights
from nodes.freshness import read_versions, settle_ms, summed
from tests.random_examples import START_MS, random_examples, small_app, write_log

ROWS, LEARNT = 1400, 1344  # minibatches of 64
#: Windows of 64 rows are too short to tell a broken label from chance.
LAX = {"window_rows": 64, "max_logloss_increase": 9.0, "calibration": [0.01, 99.0], "max_live_ne": 99.0}
FAST = {"live": {"poll_s": 0.002}}


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> App:
    return small_app(tmp_path_factory.mktemp("app") / "small", FAST)


@pytest.fixture(scope="module")
def frame(app: App) -> pl.DataFrame:
    return random_examples(app, ROWS)


@pytest.fixture(scope="module")
def bounded(app: App, frame: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    folder = tmp_path_factory.mktemp("bounded")
    train.run(app, write_log(folder / "examples", app, frame), folder / "checkpoints")
    return load_newest(folder / "checkpoints", app.schema_id)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many beats a second."""
    monkeypatch.setattr(train_live, "_BEAT_S", 0.02)
    monkeypatch.setattr(train_live, "_AGAIN_S", 0.02)


class Live:
    """A trainer in a thread of its own."""

    def __init__(self, app: App, log: Path, checkpoints: Path, **how: Any) -> None:
        self.beats: list[dict[str, Any]] = []
        self.done: dict[str, Any] = {}
        self.error: Exception | None = None
        self._stop = threading.Event()

        def work() -> None:
            try:
                directory = ExampleDirectory(log)
                self.done = train_live.run(
                    app, directory, checkpoints, called=str(log), stop=self._stop, on_beat=self.beats.append, **how
                )
            except Exception as error:  # shown to the test
                self.error = error

        self._thread = threading.Thread(target=work)
        self._thread.start()

    def until(self, seen: Callable[[], bool], timeout_s: float = 30) -> None:
        deadline = time.monotonic() + timeout_s
        while not seen():
            if self.error is not None:
                raise self.error
            assert time.monotonic() < deadline, self.beats[-1:]
            time.sleep(0.002)

    def stop(self) -> dict[str, Any]:
        self._stop.set()
        self.join()
        return self.done

    def join(self) -> None:
        self._thread.join(30)
        assert not self._thread.is_alive()
        if self.error is not None:
            raise self.error


def grow(app: App, log: Path, frame: pl.DataFrame, start: int, end: int) -> None:
    ExampleDirectory(log).append(FeatureBatch(frame.slice(start, end - start), start, app.schema_id), app.name)


def position(app: App, folder: Path) -> int:
    return load_newest(folder, app.schema_id).manifest.position if any(folder.glob("checkpoint-*")) else 0


@pytest.mark.parametrize("seed", range(3))
def test_arrival_stops_and_schedules_change_no_weight(
    app: App, frame: pl.DataFrame, bounded: Loaded, tmp_path: Path, seed: int
) -> None:
    rng, log, folder = random.Random(seed), tmp_path / "examples", tmp_path / "checkpoints"
    store, written = MemoryWeights(app.name), 0
    while written < ROWS:
        how = {
            "publish": {"every_rows": rng.choice([64, 300]), "every_s": rng.choice([None, 0.01, 0.05]), "gate": LAX},
            "train": {"checkpoint": {"every_batches": rng.choice([None, 1, 4]), "every_s": rng.choice([0.02, 5])}},
        }
        live = Live(small_app(app.folder, FAST | how), log, folder, store=store)
        for _ in range(rng.randrange(1, 8)):
            end = min(written + rng.choice([1, 30, 64, 200]), ROWS)
            grow(app, log, frame, written, end)
            written = end
            time.sleep(rng.choice([0, 0.005, 0.03]))
        done = live.stop()
        assert done["examples"] == done["position"] <= written
    live = Live(app, log, folder, store=store)
    live.until(lambda: bool(live.beats) and live.beats[-1]["lag_rows"] == live.beats[-1]["pending"] == ROWS - LEARNT)
    done = live.stop()
    assert (done["examples"], done["pending"], done["redelivered"], done["lag_rows"]) == (LEARNT, 56, 0, 56)
    found = load_newest(folder, app.schema_id)
    for name, tensor in bounded.tensors.items():
        assert found.tensors[name].numpy().tobytes() == tensor.numpy().tobytes(), name
    assert (found.meta, found.metrics) == (bounded.meta, bounded.metrics)
    assert found.tables["trained_ids"].equals(bounded.tables["trained_ids"])


def test_an_empty_log_is_waited_for_and_a_short_tail_stays_pending(
    app: App, frame: pl.DataFrame, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = tmp_path / "examples"
    live = Live(app, log, tmp_path / "checkpoints")
    live.until(lambda: bool(live.beats))
    assert live.beats[-1]["position"] == 0
    assert [record.message for record in caplog.records] == [f"{log}: no examples yet; waiting for them"]
    grow(app, log, frame, 0, 63)
    live.until(lambda: live.beats[-1]["pending"] == 63)
    grow(app, log, frame, 63, 65)
    live.until(lambda: live.beats[-1]["pending"] == 1)
    assert live.stop()["examples"] == 64
    assert position(app, tmp_path / "checkpoints") == 64


def test_the_clock_takes_a_checkpoint_while_nothing_comes(app: App, frame: pl.DataFrame, tmp_path: Path) -> None:
    by_clock = small_app(app.folder, FAST | {"train": {"checkpoint": {"every_batches": None, "every_s": 0.2}}})
    grow(app, tmp_path / "examples", frame, 0, 640)
    live = Live(by_clock, tmp_path / "examples", tmp_path / "checkpoints")
    live.until(lambda: position(app, tmp_path / "checkpoints") == 640)
    live.stop()


def test_a_second_trainer_fences_out_the_first_which_writes_and_publishes_no_more(
    app: App, frame: pl.DataFrame, tmp_path: Path
) -> None:
    log, folder, store = tmp_path / "examples", tmp_path / "checkpoints", MemoryWeights(app.name)
    grow(app, log, frame, 0, 640)
    first = Live(app, log, folder, store=store)
    first.until(lambda: position(app, folder) > 0)
    second = Live(app, log, folder, store=store)
    with pytest.raises(FencedError, match="another trainer has claimed these checkpoints"):
        first.join()
    second.until(lambda: store.epoch() == 2)
    grow(app, log, frame, 640, 1400)
    second.until(lambda: position(app, folder) > 640)
    assert 640 < second.stop()["examples"] <= LEARNT
    assert store.epoch() == 2


def test_who_is_fenced_between_two_beats_still_publishes_nothing(app: App, frame: pl.DataFrame, tmp_path: Path) -> None:
    """As after SIGSTOP and SIGCONT: the store is asked nothing, because the checkpoints are no longer ours."""
    often = small_app(app.folder, FAST | {"publish": {"every_rows": 64, "gate": LAX}})
    log, folder, store = tmp_path / "examples", tmp_path / "checkpoints", MemoryWeights(app.name)
    grow(app, log, frame, 0, 64)
    live = Live(often, log, folder, store=store, clock_s=lambda: 0.0)  # no beat, no schedule by the clock
    live.until(lambda: not live.error and any(folder.glob(".epoch-*")) and store.epoch() == 1)
    claim_epoch(folder)
    grow(app, log, frame, 64, 192)
    with pytest.raises(FencedError, match="another trainer has claimed"):
        live.join()
    assert store.releases == []


def test_candidates_come_by_the_clock_and_each_version_says_how_fresh_it_is(
    app: App, frame: pl.DataFrame, tmp_path: Path
) -> None:
    by_clock = small_app(app.folder, FAST | {"publish": {"every_rows": 10**9, "every_s": 0.1, "gate": LAX}})
    log, folder, store = tmp_path / "examples", tmp_path / "checkpoints", MemoryWeights(app.name)
    last_ms = int(frame["event_time_ms"][-1])
    live = Live(by_clock, log, folder, store=store, clock_ms=lambda: last_ms + settle_ms(app) + 2000)
    for start in range(0, ROWS, 64):
        grow(app, log, frame, start, min(start + 64, ROWS))
        time.sleep(0.03)
    live.until(lambda: store.current_version() is not None and position(app, folder) > 1200)
    done = live.stop()
    versions = read_versions(folder / "versions.ndjson")
    assert [one.version for one in versions] == list(range(1, done["versions"] + 1))
    assert len(versions) >= 3
    held = {manifest.version: manifest for manifest in store.versions()}
    before = 0
    for one in versions:
        manifest = held[one.version]
        assert (one.position, one.step, one.created_ms) == (manifest.position, manifest.step, manifest.created_ms)
        assert one.trained_until_ms == START_MS + (one.position - 1) * 1000
        assert one.freshness_s == manifest.gate["freshness_s"] == (one.created_ms - one.trained_until_ms) / 1000
        assert one.after_wait_s == pytest.approx(one.freshness_s - settle_ms(app) / 1000)
        assert one.rows == one.position - before == sum(one.waits.values())
        # the rows lie a second apart, so half of them waited half their number of seconds longer than the newest
        assert one.wait_s_p50 == pytest.approx(one.after_wait_s + one.rows / 2, abs=1.1)
        before = one.position
    assert summed(versions)["examples"] == versions[-1].position
    assert done["newest"]["version"] == versions[-1].version


def test_no_version_is_older_than_the_one_before_it_after_a_kill(app: App, frame: pl.DataFrame, tmp_path: Path) -> None:
    """What went out after the newest checkpoint stays until the trainer has learnt more than that again."""
    rare = {"checkpoint": {"every_batches": 5, "every_s": None, "keep": 20}}
    often = small_app(app.folder, FAST | {"publish": {"every_rows": 64, "gate": LAX}, "train": rare})
    log, folder, store = tmp_path / "examples", tmp_path / "checkpoints", MemoryWeights(app.name)
    grow(app, log, frame, 0, 1000)
    live = Live(often, log, folder, store=store)
    live.until(lambda: any(one.position >= 700 for one in store.versions()))
    live.stop()
    before = store.versions()[-1]
    for name in sorted(path.name for path in folder.glob("checkpoint-*"))[1:]:  # as if killed soon after the first
        for path in (folder / name).iterdir():
            path.unlink()
        (folder / name).rmdir()
    assert position(app, folder) < before.position
    grow(app, log, frame, 1000, ROWS)
    again = Live(often, log, folder, store=store)
    again.until(lambda: store.versions()[-1].position >= 1200)
    again.stop()
    positions = [manifest.position for manifest in store.versions()]
    assert positions == sorted(set(positions))
    versions = read_versions(folder / "versions.ndjson")
    assert [one.version for one in versions] == [manifest.version for manifest in store.versions()]
    assert sum(one.rows for one in versions) == versions[-1].position, "each example counts for one version"


def test_a_version_that_went_out_just_before_the_kill_is_told_by_the_next_trainer(
    app: App, frame: pl.DataFrame, tmp_path: Path
) -> None:
    often = small_app(app.folder, FAST | {"publish": {"every_rows": 64, "gate": LAX}})
    log, folder, store = tmp_path / "examples", tmp_path / "checkpoints", MemoryWeights(app.name)
    grow(app, log, frame, 0, 1000)
    live = Live(often, log, folder, store=store)
    live.until(lambda: any(one.position >= 700 for one in store.versions()))
    live.stop()
    path = folder / "versions.ndjson"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]) + lines[-1][:40])
    Live(often, log, folder, store=store).stop()
    found = read_versions(path)
    lost = msgspec.json.decode(lines[-1])
    assert msgspec.to_builtins(found[-1]) == lost


def test_a_store_that_goes_away_stops_nothing_and_gets_a_version_when_it_is_back(
    app: App, frame: pl.DataFrame, tmp_path: Path
) -> None:
    often = small_app(app.folder, FAST | {"publish": {"every_rows": 64, "gate": LAX}})
    log, folder, store = tmp_path / "examples", tmp_path / "checkpoints", MemoryWeights(app.name)
    grow(app, log, frame, 0, 320)
    live = Live(often, log, folder, store=store)
    live.until(lambda: store.current_version() is not None)
    store.fail = StoreError("the store is away; start it")
    grow(app, log, frame, 320, 704)
    live.until(lambda: position(app, folder) >= 640)
    store.fail = None
    grow(app, log, frame, 704, 1088)
    live.until(lambda: store.versions()[-1].position > 704)
    newest = store.versions()[-1].version
    store.wipe()
    grow(app, log, frame, 1088, ROWS)
    live.until(lambda: store.current_version() is not None)
    assert (store.current_version() or 0) > newest, "versions only grow, though the store forgot them"
    done = live.stop()
    assert done["held"]["store"] >= 1


def test_a_trainer_that_goes_on_waits_for_a_store_and_a_first_start_refuses(
    app: App, frame: pl.DataFrame, tmp_path: Path
) -> None:
    often = small_app(app.folder, FAST | {"publish": {"every_rows": 64, "gate": LAX}})
    log, folder, store = tmp_path / "examples", tmp_path / "checkpoints", MemoryWeights(app.name)
    grow(app, log, frame, 0, 640)
    store.fail = StoreError("the store is away; start it")
    with pytest.raises(StoreError, match="the store is away"):
        Live(often, log, folder, store=store).join()
    assert not folder.exists()
    train.run(app, log, folder)
    live = Live(often, log, folder, store=store)
    live.until(lambda: any(folder.glob(".epoch-000002")))
    store.fail = None
    grow(app, log, frame, 640, ROWS)
    live.until(lambda: store.current_version() is not None)
    live.stop()


def test_a_log_that_cannot_be_read_for_a_while_is_waited_for(app: App, frame: pl.DataFrame, tmp_path: Path) -> None:
    class Away(ExampleDirectory):
        away = False

        def read(self, first_row, schema_id=None):
            if self.away:
                raise StoreError("the broker is away; start it")
            return super().read(first_row, schema_id)

    class Topic:
        """Not a folder, as a topic is."""

        def __init__(self, log: ExampleDirectory) -> None:
            self.read, self.rows = log.read, log.rows

    log = Away(tmp_path / "examples")
    grow(app, log.path, frame, 0, 640)
    stop, beats = threading.Event(), []
    log.away = True

    def beat(figures: dict[str, Any]) -> None:
        beats.append(figures["position"])
        log.away = False
        if figures["position"] == 640:
            stop.set()

    done = train_live.run(app, Topic(log), tmp_path / "checkpoints", called="topic", stop=stop, on_beat=beat)
    assert beats[0] == 0
    assert done["examples"] == 640


def test_another_log_a_shorter_log_and_another_schema_are_refused(
    app: App, frame: pl.DataFrame, tmp_path: Path
) -> None:
    train.run(app, write_log(tmp_path / "examples", app, frame), tmp_path / "checkpoints")
    for name, other in (("none", frame.head(0)), ("short", frame.head(1000)), ("other", random_examples(app, 1500, 5))):
        if other.height:
            write_log(tmp_path / name, app, other)
        with pytest.raises(ContractError, match=r"is not the example log.*or train anew with --fresh"):
            Live(app, tmp_path / name, tmp_path / "checkpoints").join()
    features = [feature.model_dump(by_alias=True, exclude_unset=True) for feature in app.features]
    features[0]["buckets"] = 128
    other_app = small_app(app.folder, {"features": features})
    with pytest.raises(SchemaMismatchError, match=f"{app.schema_id}.*{other_app.schema_id}"):
        Live(other_app, tmp_path / "examples", tmp_path / "elsewhere").join()
