"""From a checkpoint to a version, and the gate against poisoned training data."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from contracts.app import App, load_app
from contracts.errors import ContractError, CorruptError
from contracts.segments import FeatureBatch
from flows import publish, train
from model.export import light_arrays as exported
from model.trainer import Trainer
from nodes.example_log import ExampleDirectory
from nodes.fake_traffic import examples, light_arrays
from nodes.fakes import ManualClock, MemoryWeights
from nodes.light_numpy import LightNet, sigmoid
from nodes.publish import Publisher

WINDOW = 512
SMALL = {
    "model": {"embedding_dim": 2, "light": {"hidden": [4]}, "booster": {"kind": "none"}},
    "train": {"batch_rows": 128, "embedding_lr": 0.1, "wide_lr": 0.2, "linear": False},
    "publish": {"gate": {"window_rows": WINDOW}},
    "serving": {"prior_ctr": 0.3},
}
LEARNABLE = ("slot", "age", "on_device", "ad_format")


@pytest.fixture(scope="module")
def app() -> App:
    return load_app("adsim", SMALL)


def learnable(app: App, rows: int, seed: int = 0) -> pl.DataFrame:
    """Examples whose labels depend on four small features."""
    frame = examples(app, rows, seed)
    truth = {name: np.zeros_like(array) for name, array in light_arrays(app).items()}
    truth["bias"][:] = -1.0
    offsets = app.layout.offsets
    rng = np.random.default_rng(99)
    for feature in app.layout.light_ids:
        if feature.name in LEARNABLE:
            start = offsets[feature.name]
            truth["wide"][start : start + feature.rows] = rng.normal(0, 1.0, feature.rows)
    p = sigmoid(LightNet(app.layout, truth).logits(frame))
    return frame.with_columns(label=pl.Series((np.random.default_rng(seed + 1).random(rows) < p).astype(np.uint8)))


def test_every_version_made_from_windows_of_flipped_labels_is_held(app: App) -> None:
    """One window alone, and a run of three: then the next window, on which the gate judges, is flipped too."""
    flipped = {12, 18, 19, 20}
    rows = learnable(app, 40 * WINDOW)
    store = MemoryWeights("adsim")
    publisher, trainer = Publisher(app, store), Trainer(app)
    outcomes: dict[int, str] = {}
    for number in range(40):
        window = rows[number * WINDOW : (number + 1) * WINDOW]
        if number in flipped:
            window = window.with_columns(label=1 - pl.col("label"))
        made = publisher.observe(window)
        if made is not None:
            outcomes[made.position] = made.outcome
        for start in range(0, WINDOW, 128):
            trainer.learn(window[start : start + 128])
        publisher.offer(exported(trainer), position=number, step=trainer.step, trained_until_ms=number)
    assert {number: outcomes[number] for number in flipped} == dict.fromkeys(flipped, "held")
    assert outcomes[11] == "held", "judged on a flipped window, which cannot be believed"
    assert [outcomes[number] for number in range(4, 11)].count("published") >= 5
    assert [outcomes[number] for number in range(30, 39)].count("published") >= 5, "it recovers"
    assert all(manifest.position not in flipped for manifest in store.versions())


@pytest.fixture(scope="module")
def trained(app: App, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an example log of 6,000 rows and the checkpoints of a trainer that stopped at 5,000."""
    root = tmp_path_factory.mktemp("trained")
    rows, log = learnable(app, 6000), ExampleDirectory(root / "examples")
    for first in range(0, 6000, 1000):
        log.write(FeatureBatch(rows[first : first + 1000], first, app.schema_id), app.name)
    log.finish(6000, app.schema_id)
    train.run(app, root / "examples", root / "checkpoints", until_ms=int(rows["event_time_ms"][5000]))
    return root


def test_a_checkpoint_is_judged_on_the_rows_after_it_and_published(app: App, trained: Path) -> None:
    store = MemoryWeights("adsim")
    store.take_epoch()
    made = publish.run(
        app, trained / "checkpoints", store, examples=trained / "examples", why="drill", clock_ms=ManualClock(42)
    )
    assert (made["outcome"], made["version"], made["reason"]) == ("published", 1, "drill; passed the gate")
    assert made["figures"]["window_rows"] == WINDOW
    assert 4800 <= made["position"] <= 5000
    assert store.fetch().manifest.created_ms == 42
    assert store.epoch() == 1, "a running trainer is not fenced out"


def test_a_bad_window_holds_the_checkpoint_and_force_publishes_it(app: App, trained: Path, tmp_path: Path) -> None:
    rows = learnable(app, 6000).with_columns(label=1 - pl.col("label"))
    ExampleDirectory(tmp_path).write(FeatureBatch(rows[:4000], 0, app.schema_id), app.name)
    ExampleDirectory(tmp_path).write(FeatureBatch(rows[4000:], 4000, app.schema_id), app.name)
    store = MemoryWeights("adsim")
    made = publish.run(app, trained / "checkpoints", store, examples=tmp_path)
    assert (made["outcome"], store.current_version()) == ("held", None)
    made = publish.run(app, trained / "checkpoints", store, examples=tmp_path, force=True)
    assert (made["outcome"], store.current_version()) == ("published", 1)
    assert "forced, although logloss" in made["reason"]


def test_publishing_the_same_checkpoint_twice_is_one_version(app: App, trained: Path) -> None:
    store = MemoryWeights("adsim")
    for _ in range(2):
        made = publish.run(app, trained / "checkpoints", store, force=True)
        assert made["version"] == 1
    assert store.releases == [("publish", 1, made["reason"])]


def test_without_a_window_the_gate_asks_for_one(app: App, trained: Path) -> None:
    with pytest.raises(ContractError, match="--examples DIR, or skip it with --force"):
        publish.run(app, trained / "checkpoints", MemoryWeights("adsim"))


def test_without_a_checkpoint_there_is_nothing_to_publish(app: App, tmp_path: Path) -> None:
    with pytest.raises(CorruptError, match="rocket train"):
        publish.run(app, tmp_path, MemoryWeights("adsim"), force=True)
