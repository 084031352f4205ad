"""No version that was made from poisoned rows is ever served, through the real training loops."""

import itertools
import threading
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from contracts.app import App
from flows import train, train_live
from nodes.example_log import ExampleDirectory
from nodes.fakes import MemoryWeights
from tests.poison import WINDOW, Poison, flipped, frozen, missing, poison_app, ramp, rare_clicks
from tests.random_examples import START_MS, small_app, write_log

ROWS = 6400
#: Poison -> the share of bad rows among the last window learnt from which no version may be served.
TOO_MUCH = {flipped: 0.25, frozen: 0.98, missing: 0.5}


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> App:
    return poison_app(tmp_path_factory.mktemp("app") / "small")


@pytest.fixture(scope="module")
def frame(app: App) -> pl.DataFrame:
    return rare_clicks(app, ROWS)


def served_from(store: MemoryWeights) -> list[int]:
    """Rows that each version ever published had learnt."""
    assert all(action == "publish" for action, _, _ in store.releases)
    return [manifest.position for manifest in store.versions()]


def assert_none_was_made_from(store: MemoryWeights, bad: np.ndarray, too_much: float) -> None:
    """No version learnt too many bad rows lately, nor, after such, came before enough good ones had been learnt."""
    all_bad = np.flatnonzero(bad)
    end = int(all_bad[-1]) + 1
    worst = int(np.flatnonzero(np.convolve(bad, np.ones(WINDOW), "full")[: bad.size] >= too_much * WINDOW)[0])
    for position in served_from(store):
        assert bad[max(position - WINDOW, 0) : position].mean() < too_much, position
        assert not worst < position < min(end + 2 * WINDOW, bad.size), position


def learn(app: App, log: Path, checkpoints: Path, store: MemoryWeights, **how: Any) -> dict[str, Any]:
    return train.run(app, log, checkpoints, store=store, **how)


def learn_live(app: App, log: Path, checkpoints: Path, store: MemoryWeights, rows: int) -> dict[str, Any]:
    """Follow a log that is all there, under a clock that ticks when it is looked at, until it is learnt."""
    stop, ticks = threading.Event(), itertools.count()

    def beat(figures: dict[str, Any]) -> None:
        if figures["position"] > rows - 64:
            stop.set()

    return train_live.run(
        app, ExampleDirectory(log), checkpoints, called=str(log), stop=stop, store=store, on_beat=beat,
        clock_s=lambda: next(ticks) * 0.1,
    )  # fmt: skip


def test_healthy_rows_are_published(app: App, frame: pl.DataFrame, tmp_path: Path) -> None:
    """What the others rest on: without poison, versions go out before, while and after they would be poisoned."""
    store = MemoryWeights(app.name)
    done = learn(app, write_log(tmp_path / "log", app, frame), tmp_path / "checkpoints", store)
    assert {d["kind"] for d in done["decisions"]} <= {None, "logloss", "calibration", "superseded"}
    assert sum(2000 < position <= 4000 for position in served_from(store)) >= 2
    assert len(served_from(store)) >= 5


@settings(max_examples=5, deadline=None, phases=[Phase.explicit, Phase.generate])  # a run takes seconds
@example(poison=frozen, begin=1500, gradual=1000, length=768)
@given(
    poison=st.sampled_from([flipped, frozen, missing]),
    begin=st.integers(1500, 3500),
    gradual=st.sampled_from([1, 200, 1000]),
    length=st.integers(3 * WINDOW, 2000),
)
def test_wherever_the_poison_begins_no_version_made_from_it_is_served(
    app: App,
    frame: pl.DataFrame,
    tmp_path_factory: pytest.TempPathFactory,
    poison: Poison,
    begin: int,
    gradual: int,
    length: int,
) -> None:
    bad, tmp_path = ramp(ROWS, begin, gradual, begin + gradual + length), tmp_path_factory.mktemp("poisoned")
    store = MemoryWeights(app.name)
    done = learn(app, write_log(tmp_path / "log", app, poison(app, frame, bad)), tmp_path / "checkpoints", store)
    assert_none_was_made_from(store, bad, TOO_MUCH[poison])
    kind = "labels" if poison is flipped else "feature"
    assert kind in {d["kind"] for d in done["decisions"]}
    assert {record["kind"] for record in store.held_records} >= {kind}, "it is on the record"


@pytest.mark.parametrize("poison", [flipped, frozen, missing])
def test_poison_in_the_first_window_after_a_start_is_seen(
    app: App, frame: pl.DataFrame, tmp_path: Path, poison: Poison
) -> None:
    """The trainer goes on from a checkpoint, and knows from the log what was usual before."""
    begin = 3008
    bad = ramp(ROWS, begin, 1, begin + 1500)
    log, store = write_log(tmp_path / "log", app, poison(app, frame, bad)), MemoryWeights(app.name)
    learn(app, log, tmp_path / "checkpoints", store, until_ms=START_MS + begin * 1000)
    before = served_from(store)
    assert before
    done = learn(app, log, tmp_path / "checkpoints", store)
    assert done["resumed_from"] is not None
    assert_none_was_made_from(store, bad, TOO_MUCH[poison])
    assert not any(begin < position < begin + 1500 for position in served_from(store))


def test_labels_flipped_from_the_very_first_row_are_held_against_the_prior(
    app: App, frame: pl.DataFrame, tmp_path: Path
) -> None:
    bad = ramp(ROWS, 0, 1, 3000)
    store = MemoryWeights(app.name)
    done = learn(app, write_log(tmp_path / "log", app, flipped(app, frame, bad)), tmp_path / "checkpoints", store)
    assert_none_was_made_from(store, bad, 0.01)
    assert "serving.prior_ctr" in done["decisions"][0]["reason"]


@pytest.mark.parametrize("poison", [flipped, frozen])
def test_live_training_serves_no_version_made_from_poison_and_recovers(
    app: App, frame: pl.DataFrame, tmp_path: Path, poison: Poison
) -> None:
    often = small_app(
        app.folder,
        {
            **{name: getattr(app.config, name).model_dump() for name in ("serving", "train")},
            "publish": {"every_rows": 10**6, "every_s": 0.5, "gate": {"window_rows": WINDOW}},
            "live": {"poll_s": 0.001},
        },
    )
    bad = ramp(ROWS, 3000, 1, 4000)
    log, store = write_log(tmp_path / "log", app, poison(app, frame, bad)), MemoryWeights(app.name)
    done = learn_live(often, log, tmp_path / "checkpoints", store, ROWS)
    assert_none_was_made_from(store, bad, 0.25)
    assert done["held"]["labels" if poison is flipped else "feature"] >= 2
    assert any(position < 3000 for position in served_from(store))
    if poison is frozen:
        assert any(position > 4900 for position in served_from(store)), "it recovers"


def test_exploding_weights_are_held_whatever_they_predict(app: App, frame: pl.DataFrame, tmp_path: Path) -> None:
    log, store = write_log(tmp_path / "log", app, frame), MemoryWeights(app.name)
    learn(app, log, tmp_path / "checkpoints", store, until_ms=START_MS + 3008 * 1000)
    before = served_from(store)
    lax = {"window_rows": WINDOW, "max_logloss_increase": 1e9, "calibration": [0.0, 1e9], "max_live_ne": 1e9}
    rate = dict.fromkeys(("embedding_lr", "wide_lr", "dense_lr"), 20.0)
    wild = poison_app(
        app.folder,
        {"train": {"average_rows": 0, "linear": False} | rate, "publish": {"every_rows": 512, "gate": lax}},
    )
    done = learn(wild, log, tmp_path / "checkpoints", store)
    assert {d["kind"] for d in done["decisions"]} <= {"norms", "scores", "superseded", "not_finite"}
    assert any(d["kind"] == "norms" for d in done["decisions"])
    assert served_from(store) == before
