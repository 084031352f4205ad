"""Training: what is learnt, held out, pending and refused; checkpoints, versions and refusals."""

import json
import shutil
import threading
from pathlib import Path

import polars as pl
import pytest

from contracts.app import App
from contracts.errors import ContractError, CorruptError, FencedError, SchemaMismatchError
from flows import train
from flows.train_start import first_row_at
from model.checkpoint import load_newest
from model.checkpoint_manifest import names
from model.fence import claim_epoch
from nodes.example_log import ExampleDirectory
from nodes.weight_stores import open_weights
from tests.random_examples import START_MS, random_examples, small_app, write_log


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> App:
    return small_app(tmp_path_factory.mktemp("app") / "small")


@pytest.fixture(scope="module")
def frame(app: App) -> pl.DataFrame:
    return random_examples(app, 1500)


@pytest.fixture(scope="module")
def log(app: App, frame: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_log(tmp_path_factory.mktemp("log") / "examples", app, frame)


def test_every_row_is_learnt_or_pending(app: App, log: Path, tmp_path: Path) -> None:
    done = train.run(app, log, tmp_path)
    assert (done["examples"], done["pending"]) == (1472, 28)
    assert (done["held_out"], done["redelivered"], done["steps"]) == (0, 0, 23)
    assert 2 <= done["checkpoints"] <= 5  # one that is due while another is written waits for it
    assert len(names(tmp_path)) == min(3, done["checkpoints"])
    saved = load_newest(tmp_path, app.schema_id)
    assert saved.manifest.position == 1472
    assert done["progressive"].keys() == {"light", "booster", "linear"}
    assert all(row["rows"] == 1472 for row in done["progressive"].values())
    assert sum(row["light"]["rows"] for row in done["curve"]) == 1472
    assert json.loads(json.dumps(done)) == done


def test_rows_from_until_on_are_held_out(app: App, log: Path, tmp_path: Path) -> None:
    done = train.run(app, log, tmp_path, until_ms=START_MS + 1000 * 1000)
    assert (done["examples"], done["pending"], done["held_out"]) == (960, 40, 500)
    assert load_newest(tmp_path, app.schema_id).manifest.event_time_ms == START_MS + 959_000


@pytest.mark.parametrize("row", [0, 1, 299, 300, 301, 777, 1499, 1500])
def test_the_held_out_part_begins_at_the_first_row_that_late(app: App, log: Path, row: int) -> None:
    opened = ExampleDirectory(log)
    assert first_row_at(opened, 1500, START_MS + row * 1000, app.schema_id) == row
    assert first_row_at(opened, 1500, START_MS + row * 1000 - 1, app.schema_id) == row


def test_a_redelivered_example_is_dropped_and_counted(app: App, frame: pl.DataFrame, log: Path, tmp_path: Path) -> None:
    twice = pl.concat([frame.head(700), frame.slice(650, 50), frame.slice(3, 10), frame.slice(700)])
    again = write_log(tmp_path / "examples", app, twice)
    once, doubled = train.run(app, log, tmp_path / "a"), train.run(app, again, tmp_path / "b")
    assert doubled["redelivered"] == 60
    assert doubled["examples"] == once["examples"]
    assert doubled["pending"] == once["pending"]
    one, two = load_newest(tmp_path / "a", app.schema_id), load_newest(tmp_path / "b", app.schema_id)
    assert all(tensor.equal(two.tensors[name]) for name, tensor in one.tensors.items())
    assert two.meta["redelivered"] == 60
    assert two.manifest.position == one.manifest.position + 60


def test_a_run_without_booster_or_linear_model(app: App, log: Path, tmp_path: Path) -> None:
    lone = small_app(app.folder, {"model": {"booster": {"kind": "none"}}, "train": {"linear": False}})
    done = train.run(lone, log, tmp_path)
    assert done["progressive"].keys() == {"light"}


def test_stopping_takes_a_checkpoint_and_going_on_ends_the_same(app: App, log: Path, tmp_path: Path) -> None:
    stop = threading.Event()
    ticks = iter(range(10**6))
    done = train.run(
        app, log, tmp_path, stop=stop, clock_s=lambda: float(next(ticks)), on_progress=lambda *_: stop.set()
    )
    assert done["stopped"]
    assert 0 < done["examples"] < 1472
    assert load_newest(tmp_path, app.schema_id).manifest.position == done["examples"]
    rest = train.run(app, log, tmp_path)
    assert rest["resumed_from"] is not None
    assert (rest["stopped"], rest["examples"], rest["pending"]) == (False, 1472, 28)


def test_a_run_that_is_done_learns_nothing_more(app: App, log: Path, tmp_path: Path) -> None:
    first = train.run(app, log, tmp_path)
    again = train.run(app, log, tmp_path)
    assert again["examples"] == first["examples"]
    assert again["progressive"] == first["progressive"]
    assert again["curve"] == first["curve"]
    assert again["checkpoints"] == 0


def test_fresh_begins_anew_and_its_checkpoints_are_the_newest(app: App, log: Path, tmp_path: Path) -> None:
    train.run(app, log, tmp_path)
    done = train.run(app, log, tmp_path, resume=False, until_ms=START_MS + 200_000)
    assert done["resumed_from"] is None
    assert done["examples"] == 192
    assert load_newest(tmp_path, app.schema_id).manifest.position == 192


def test_progress_ends_at_the_last_row(app: App, log: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    train.run(
        app, log, tmp_path, until_ms=START_MS + 1_000_000, on_progress=lambda done, total, _: told.append((done, total))
    )
    assert told[-1] == (1000, 1000)


def test_candidates_are_offered_on_schedule_and_the_last_one_is_judged_on_the_tail(
    app: App, log: Path, tmp_path: Path
) -> None:
    lax = small_app(app.folder, {"publish": {"gate": {"max_logloss_increase": 9.0, "calibration": [0.01, 99.0]}}})
    with open_weights(tmp_path / "weights", app.name, schema_id=app.schema_id) as store:
        done = train.run(lax, log, tmp_path / "checkpoints", store=store)
        positions = [decision["position"] for decision in done["decisions"]]
        assert positions == [512, 1024, 1472 - 256]
        assert [decision["figures"].get("window_rows") for decision in done["decisions"]] == [256, None, 256]
        assert done["versions"] == sum(d["outcome"] == "published" for d in done["decisions"]) > 0
        assert store.current_version() == done["versions"]
        manifest = store.fetch().manifest
        assert manifest.trained_until_ms == START_MS + (manifest.position - 1) * 1000


@pytest.mark.parametrize(("every", "positions"), [(128, [128, 384, 640]), (960, [704]), (896, [704])])
def test_no_candidate_pushes_out_the_last_one_or_one_that_is_judged(
    app: App, frame: pl.DataFrame, tmp_path: Path, every: int, positions: list[int]
) -> None:
    gate = {"window_rows": 256, "max_logloss_increase": 9.0, "calibration": [0.01, 99.0]}
    lax = small_app(app.folder, {"publish": {"every_rows": every, "gate": gate}})
    whole = write_log(tmp_path / "examples", app, frame.head(960))
    with open_weights(tmp_path / "weights", app.name, schema_id=app.schema_id) as store:
        done = train.run(lax, whole, tmp_path / "checkpoints", store=store)
    decisions = done["decisions"]
    assert [decision["position"] for decision in decisions][: len(positions)] == positions
    assert decisions[-1]["position"] == 960 - 256
    assert all(decision["figures"]["window_rows"] == 256 for decision in decisions[-1:])
    assert not any("newer candidate" in decision["reason"] for decision in decisions[:-2])


def test_training_goes_on_across_a_gap_in_traffic(app: App, frame: pl.DataFrame, tmp_path: Path) -> None:
    """Rows read ahead of a checkpoint may lie hours after it: what it has learnt is known all the same."""
    late = pl.col("event_time_ms") + pl.when(pl.int_range(pl.len()) < 300).then(0).otherwise(6 * 3_600_000)
    gap = write_log(tmp_path / "examples", app, frame.head(400).with_columns(late), 400)
    until_ms = START_MS + 6 * 3_600_000 + 310_000
    stood = train.run(app, gap, tmp_path / "a", until_ms=until_ms)
    assert (stood["position"], stood["pending"]) == (256, 54)
    assert load_newest(tmp_path / "a", app.schema_id).tables["trained_ids"].height == 256
    assert train.run(app, gap, tmp_path / "a")["examples"] == train.run(app, gap, tmp_path / "b")["examples"] == 384
    one, two = (load_newest(tmp_path / name, app.schema_id) for name in ("a", "b"))
    assert all(tensor.equal(two.tensors[name]) for name, tensor in one.tensors.items())


def test_publishing_changes_no_weight(app: App, log: Path, tmp_path: Path) -> None:
    with open_weights(tmp_path / "weights", app.name, schema_id=app.schema_id) as store:
        train.run(app, log, tmp_path / "a", store=store)
    train.run(app, log, tmp_path / "b")
    one, two = (load_newest(tmp_path / name, app.schema_id) for name in ("a", "b"))
    assert all(tensor.equal(two.tensors[name]) for name, tensor in one.tensors.items())


def test_a_short_log_still_gives_a_version(app: App, frame: pl.DataFrame, tmp_path: Path) -> None:
    short = write_log(tmp_path / "examples", app, frame.head(200))
    with open_weights(tmp_path / "weights", app.name, schema_id=app.schema_id) as store:
        done = train.run(app, short, tmp_path / "checkpoints", store=store)
    assert [decision["position"] for decision in done["decisions"]] == [64]


def test_a_log_shorter_than_a_minibatch_stays_pending(app: App, frame: pl.DataFrame, tmp_path: Path) -> None:
    short = write_log(tmp_path / "examples", app, frame.head(30))
    done = train.run(app, short, tmp_path / "checkpoints")
    assert (done["examples"], done["pending"], done["checkpoints"]) == (0, 30, 1)


def test_a_missing_log_is_named(app: App, tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="holds no examples"):
        train.run(app, tmp_path / "nowhere", tmp_path / "checkpoints")
    assert not (tmp_path / "checkpoints").exists()


def test_a_log_or_a_checkpoint_of_another_schema_is_refused(app: App, log: Path, tmp_path: Path) -> None:
    features = [feature.model_dump(by_alias=True, exclude_unset=True) for feature in app.features]
    features[0]["buckets"] = 128
    other = small_app(app.folder, {"features": features})
    assert other.schema_id != app.schema_id
    with pytest.raises(SchemaMismatchError, match=f"{app.schema_id}.*{other.schema_id}"):
        train.run(other, log, tmp_path / "a")
    train.run(app, log, tmp_path / "b", until_ms=START_MS + 100_000)
    with pytest.raises(SchemaMismatchError, match=f"{app.schema_id}.*{other.schema_id}"):
        train.run(other, log, tmp_path / "b")


def test_another_example_log_than_before_is_refused(app: App, frame: pl.DataFrame, log: Path, tmp_path: Path) -> None:
    train.run(app, log, tmp_path / "checkpoints")
    for name, other in (("short", frame.head(1000)), ("other", random_examples(app, 1500, seed=5))):
        with pytest.raises(ContractError, match="is not the example log"):
            train.run(app, write_log(tmp_path / name, app, other), tmp_path / "checkpoints")


def test_a_refused_start_does_not_fence_out_the_trainer_at_work(app: App, log: Path, tmp_path: Path) -> None:
    train.run(app, log, tmp_path / "checkpoints", until_ms=START_MS + 200_000)
    before = [entry.name for entry in (tmp_path / "checkpoints").iterdir() if entry.name.startswith(".epoch")]
    with pytest.raises(ContractError):
        train.run(app, tmp_path / "nowhere", tmp_path / "checkpoints")
    assert before == [entry.name for entry in (tmp_path / "checkpoints").iterdir() if entry.name.startswith(".epoch")]


def test_broken_checkpoints_never_start_it_blank(app: App, log: Path, tmp_path: Path) -> None:
    train.run(app, log, tmp_path)
    for name in names(tmp_path):
        (tmp_path / name / "state.json").write_bytes(b"{")
    with pytest.raises(CorruptError, match="--fresh"):
        train.run(app, log, tmp_path)
    assert train.run(app, log, tmp_path, resume=False)["examples"] == 1472


def test_a_broken_newest_falls_back_and_ends_the_same(app: App, log: Path, tmp_path: Path) -> None:
    train.run(app, log, tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    newest = tmp_path / "b" / names(tmp_path / "b")[0]
    (newest / "model.safetensors").write_bytes(b"short")
    done = train.run(app, log, tmp_path / "b")
    assert done["resumed_from"] == names(tmp_path / "a")[1]
    one, two = (load_newest(tmp_path / name, app.schema_id) for name in ("a", "b"))
    assert all(tensor.equal(two.tensors[name]) for name, tensor in one.tensors.items())


def test_a_trainer_that_is_fenced_out_stops(app: App, log: Path, tmp_path: Path) -> None:
    ticks = iter(range(10**6))
    with pytest.raises(FencedError, match="another trainer has claimed"):
        train.run(app, log, tmp_path, clock_s=lambda: float(next(ticks)), on_progress=lambda *_: claim_epoch(tmp_path))


def test_what_is_learnt_already_cannot_be_held_out(app: App, log: Path, tmp_path: Path) -> None:
    train.run(app, log, tmp_path)
    with pytest.raises(ContractError, match=r"learnt already.*--fresh"):
        train.run(app, log, tmp_path, until_ms=START_MS + 200_000)
