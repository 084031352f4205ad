"""From snapshots of a trainer to versions: what passes, what is held, and why."""

import numpy as np
import polars as pl
import pytest

from contracts.app import App, load_app
from contracts.errors import CorruptError, FencedError, StoreError
from nodes.fake_traffic import examples, light_arrays
from nodes.fakes import ManualClock, MemoryWeights
from nodes.light_numpy import LightNet, sigmoid
from nodes.publish import Publisher, Snapshot, pack


@pytest.fixture(scope="module")
def app() -> App:
    return load_app("adsim", {"publish": {"rollback_hold_s": 0, "gate": {"window_rows": 400}}})


def labelled(app: App, arrays: dict[str, np.ndarray], rows: int, seed: int = 0) -> pl.DataFrame:
    """Examples whose labels are drawn from what these arrays predict."""
    frame = examples(app, rows, seed)
    p = sigmoid(LightNet(app.layout, arrays).logits(frame))
    label = (np.random.default_rng(seed + 1).random(rows) < p).astype(np.uint8)
    return frame.with_columns(label=pl.Series(label))


def good(app: App, seed: int = 0) -> dict[str, np.ndarray]:
    return light_arrays(app, seed, bias=-1.5, scale=0.3)


def offer(publisher: Publisher, arrays: dict[str, np.ndarray], position: int = 1) -> None:
    publisher.offer(arrays, position=position, step=position, trained_until_ms=position)


def test_a_good_first_version_is_published_when_its_window_is_full(app: App) -> None:
    store, clock = MemoryWeights("adsim"), ManualClock(5000)
    publisher = Publisher(app, store, clock)
    rows = labelled(app, good(app), 600)
    offer(publisher, good(app), 77)
    assert publisher.observe(rows[:300]) is None
    made = publisher.observe(rows[300:])
    assert made is not None
    assert (made.outcome, made.version, made.figures["window_rows"]) == ("published", 1, 400.0)
    manifest = store.fetch().manifest
    assert (manifest.position, manifest.created_ms, manifest.schema_id) == (77, 5000, app.schema_id)
    assert manifest.gate["reason"] == "passed the gate"
    assert publisher.observe(rows) is None, "nothing waits any more"


def test_what_is_judged_is_what_is_served(app: App) -> None:
    made = pack(app, good(app), position=1, step=1, trained_until_ms=1)
    assert isinstance(made, Snapshot)
    np.testing.assert_array_equal(made.arrays["wide"], good(app)["wide"].astype(np.float16).astype(np.float32))
    assert {blob.dtype for blob in made.blobs} == {"float16"}


def test_a_worse_candidate_is_held_and_the_live_version_stays(app: App) -> None:
    store = MemoryWeights("adsim")
    publisher = Publisher(app, store)
    rows = labelled(app, good(app), 400)
    offer(publisher, good(app), 1)
    publisher.observe(rows)
    offer(publisher, good(app, seed=9), 2)
    made = publisher.observe(rows)
    assert made is not None
    assert (made.outcome, made.version) == ("held", None)
    assert "logloss" in made.reason
    assert (store.current_version(), publisher.held, len(publisher.decisions)) == (1, 1, 2)


def test_the_first_version_must_beat_the_prior_that_answers_until_then(app: App) -> None:
    publisher = Publisher(app, MemoryWeights("adsim"))
    offer(publisher, light_arrays(app, bias=2.0))
    made = publisher.observe(examples(app, 400, label_rate=0.05))
    assert made is not None
    assert (made.outcome, made.figures["live_version"]) == ("held", None)


def test_the_live_version_is_the_one_the_pointer_names(app: App) -> None:
    """After a rollback the candidate is compared with the version rolled back to."""
    store = MemoryWeights("adsim")
    publisher = Publisher(app, store)
    rows = labelled(app, good(app), 400)
    for position, arrays in enumerate((good(app), {**good(app), "bias": np.array([-1.45], np.float32)}), 1):
        offer(publisher, arrays, position)
        publisher.observe(rows)
    assert store.current_version() == 2
    store.rollback(1, "test")
    offer(publisher, {**good(app), "bias": np.array([-1.52], np.float32)}, 3)
    made = publisher.observe(rows)
    assert made is not None
    assert (made.figures["live_version"], made.version) == (1, 3)


@pytest.mark.parametrize("value", [np.nan, np.inf, 7e4])
def test_weights_that_fp16_cannot_hold_are_held_at_once_even_by_force(app: App, value: float) -> None:
    publisher = Publisher(app, MemoryWeights("adsim"), force=True)
    arrays = good(app)
    arrays["mlp.0.weight"][0, 0] = value
    offer(publisher, arrays)
    assert [(d.outcome, "mlp.0.weight" in d.reason) for d in publisher.decisions] == [("held", True)]
    assert publisher.finish() is None


def test_arrays_that_do_not_fit_the_app_are_an_error(app: App, kuairand: App) -> None:
    with pytest.raises(CorruptError, match="array 'embedding' has the shape"):
        offer(Publisher(app, MemoryWeights("adsim")), light_arrays(kuairand))


def test_force_publishes_what_the_gate_would_hold_and_says_so(app: App) -> None:
    store = MemoryWeights("adsim")
    publisher = Publisher(app, store, force=True, why="drill")
    offer(publisher, light_arrays(app, bias=3.0))
    made = publisher.observe(examples(app, 400))
    assert made is not None
    assert made.outcome == "published"
    assert made.reason.startswith("drill; forced, although ")


def test_a_candidate_overtaken_before_its_window_is_full_is_counted(app: App) -> None:
    publisher = Publisher(app, MemoryWeights("adsim"))
    offer(publisher, good(app), 1)
    publisher.observe(examples(app, 10))
    offer(publisher, good(app), 2)
    assert [(d.outcome, d.position) for d in publisher.decisions] == [("held", 1)]


def test_publishing_again_what_was_rolled_back_says_that_it_is_not_live(app: App) -> None:
    store = MemoryWeights("adsim")
    publisher = Publisher(app, store, force=True)
    for seed in (0, 1):
        offer(publisher, good(app, seed), seed)
        publisher.observe(examples(app, 400))
    store.rollback(1, "test")
    offer(publisher, good(app, 1), 1)
    made = publisher.observe(examples(app, 400))
    assert made is not None
    assert (made.outcome, made.version, store.current_version()) == ("held", None, 1)
    assert "version 2 again" in made.reason
    assert publisher._live_version == 1


def test_at_the_end_of_the_log_a_short_window_decides(app: App) -> None:
    publisher = Publisher(app, MemoryWeights("adsim"))
    offer(publisher, good(app), 1)
    publisher.observe(labelled(app, good(app), 300))
    made = publisher.finish()
    assert made is not None
    assert (made.outcome, made.figures["window_rows"]) == ("published", 300.0)


def test_a_store_that_is_down_holds_the_version_until_it_is_back(app: App) -> None:
    store = MemoryWeights("adsim")
    publisher = Publisher(app, store)
    store.fail = StoreError("redis://h: cannot be reached")
    offer(publisher, good(app), 1)
    made = publisher.observe(labelled(app, good(app), 400))
    assert made is not None
    assert (made.outcome, made.reason) == ("held", "redis://h: cannot be reached")
    with pytest.raises(StoreError):
        publisher.finish()
    store.fail = None
    offer(publisher, good(app), 2)
    publisher.observe(labelled(app, good(app), 400))
    assert (store.current_version(), store.fetch().manifest.position) == (1, 2)
    assert publisher.finish() is None, "the older one is not sent over the newer"


def test_at_the_end_the_newest_version_that_the_store_refused_is_sent_again(app: App) -> None:
    store = MemoryWeights("adsim")
    publisher = Publisher(app, store)
    store.fail = StoreError("down")
    offer(publisher, good(app), 1)
    publisher.observe(labelled(app, good(app), 400))
    store.fail = None
    made = publisher.finish()
    assert made is not None
    assert (made.outcome, store.current_version()) == ("published", 1)


def test_a_publisher_is_fenced_out_by_a_later_one(app: App) -> None:
    store = MemoryWeights("adsim")
    early, late = Publisher(app, store), Publisher(app, store)
    rows = labelled(app, good(app), 400)
    offer(late, good(app), 1)
    late.observe(rows)
    offer(early, {**good(app), "bias": np.array([-1.52], np.float32)}, 2)
    with pytest.raises(FencedError):
        early.observe(rows)


def test_sampled_negatives_count_for_those_left_out() -> None:
    """Kept negatives stand for 1/rate; the gate sees the calibration of unsampled traffic."""
    overrides = {"publish": {"gate": {"window_rows": 20_000}}, "sampling": {"negative_keep_rate": 0.25}}
    for correction, weight in (("weight", 4.0), ("logit", 1.0)):
        app = load_app("adsim", {**overrides, "sampling": {**overrides["sampling"], "correction": correction}})
        rows = labelled(app, good(app), 6000)
        kept = rows.filter((pl.col("label") == 1) | (pl.col("example_id") % 4 == 0)).with_columns(
            weight=pl.when(pl.col("label") == 1).then(1.0).otherwise(weight).cast(pl.Float32),
            kept_rate=pl.when(pl.col("label") == 1).then(1.0).otherwise(0.25).cast(pl.Float32),
        )
        publisher = Publisher(app, MemoryWeights("adsim"))
        offer(publisher, good(app))
        publisher.observe(kept)
        made = publisher.finish()
        assert made is not None
        assert made.figures["calibration"] == pytest.approx(1.0, abs=0.1), correction
