"""Tables whose ids own their rows keep the laws: resume, scorer and torch, deltas with tombstones."""

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest

from contracts.app import App, load_app
from contracts.buckets import hash64
from contracts.dynamic import FIRST_ROW, OOV_ROW
from contracts.errors import CorruptError
from contracts.features import Feature
from contracts.segments import example_schema
from contracts.weights import KEYS, Weights
from flows import train
from model.checkpoint import load_newest
from model.export import light_arrays, light_views, take_touched
from model.id_rows import first_weights
from model.lifecycle import start_light
from model.published import PublishedLight
from model.tensors import to_batch
from model.trainer import Trainer
from nodes.explain import explain
from nodes.fake_traffic import requests
from nodes.fakes import MemoryWeights
from nodes.featurize import featurize
from nodes.light_numpy import LightNet
from nodes.publish import Publisher
from nodes.score import LightScorer
from nodes.streaming import StreamingFeatures
from nodes.verify_weights import manifest_bytes, read_manifest
from nodes.weight_buffers import WeightBuffers
from tests.laws.test_resume import Killed, assert_same, killed_after
from tests.laws.test_scorer_paths import asked, catalogue_of, features_of
from tests.nodes.tiny_nets import bits
from tests.random_examples import dynamic_app, keys_of, random_examples, small_app, write_log
from tests.random_rows import random_impressions

#: Rows are handed out, refused and taken back every few minibatches of 64.
LIVELY: dict[str, Any] = {"capacity": 60, "admit_after": 2, "barrier_rows": 200, "evict_after_rows": 300}
TABLES = {
    "exact": LIVELY,
    "bloom": LIVELY | {"admission": "bloom", "bloom_cells": 256, "min_count": 1},
    "event time": {"capacity": 60, "barrier_s": 150, "evict_after_s": 200, "free_share": 0.3},
}


@pytest.mark.parametrize("sharing", ["shared", "separate"])
@pytest.mark.parametrize("table", TABLES)
def test_killed_again_and_again_it_ends_with_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str, sharing: str
) -> None:
    often = {"checkpoint": {"every_batches": 1}}
    app = dynamic_app(tmp_path / "app", {"model": {"sharing": sharing}, "train": often}, **TABLES[table])
    frame = random_examples(app, 900)
    log, other = (write_log(tmp_path / f"log{cut}", app, frame, cut) for cut in (300, 47))
    train.run(app, other, tmp_path / "unbroken")
    unbroken = load_newest(tmp_path / "unbroken", app.schema_id)
    for steps in (5, 4, 3):
        with monkeypatch.context() as patch:
            killed_after(patch, steps)
            with pytest.raises(Killed):
                train.run(app, log, tmp_path / "killed")
    resumed = train.run(app, log, tmp_path / "killed")
    assert int(resumed["resumed_from"].split("-")[-1]) >= 1, "the kills left something to go on from"
    assert_same(load_newest(tmp_path / "killed", app.schema_id), unbroken)
    keys = unbroken.tensors["trainer.model.ids.user.keys"]
    assert 0 < keys.count_nonzero() < frame["user"].n_unique(), "some ids have a row and some do not"


def test_rows_begin_anew_when_they_change_hands(tmp_path: Path) -> None:
    app = dynamic_app(tmp_path / "app", {"train": {"embedding_lr": 1e-30, "wide_lr": 1e-30}}, **LIVELY)
    trainer, frame = Trainer(app), random_examples(app, 1280)
    offset, gone = app.layout.offsets["user"], 0
    ids = app.layout.light_ids.index(next(f for f in app.features if f.name == "user"))
    assert offset == 0 or ids
    for start in range(0, frame.height, 64):
        before = trainer.ids.keys.copy()
        trainer.learn(frame[start : start + 64])
        keys = trainer.ids.keys
        gone += int(((before != 0) & (keys != before)).sum())
        for number, table in enumerate(trainer.nets.tables.values()):
            views = table.views()
            mine = keys[: table.rows]
            owned = np.flatnonzero(mine)
            expected = first_weights(mine[owned], 4, app.config.train.embedding_init, trainer.seed + number)
            assert (views["embedding"].numpy()[owned] == expected).all()
            for feature in (f for f in app.layout.ids if f.dynamic):
                low, high = app.layout.offsets[feature.name], app.layout.offsets[feature.name] + feature.rows
                free = low + FIRST_ROW + np.flatnonzero(mine[low + FIRST_ROW : high] == 0)
                assert not views["embedding"].numpy()[free].any()
                assert views["embedding"].numpy()[low : low + FIRST_ROW].any(), "missing and unknown have rows too"
            start_of = app.config.train.accumulator_init
            free = np.setdiff1d(np.flatnonzero(before[: table.rows]), owned)
            assert (table.accumulators()["embedding"].numpy()[free] == np.float32(start_of)).all()
    assert gone > 20, "rows changed hands"


def everyone(app: App, seed: int) -> pl.DataFrame:
    """Rows with ids that were seen, were not, and never could have been."""
    rows = random_examples(app, 600, seed)
    odd = keys_of(np.arange(10**6, 10**6 + 300))
    return rows.with_columns(
        user=pl.Series(np.concatenate([odd, rows["user"].to_numpy()[300:]])),
        ad=pl.Series(np.concatenate([rows["ad"].to_numpy()[:450], odd[:150]])),
    )


@pytest.mark.parametrize("table", TABLES)
def test_scorer_and_torch_agree_and_chains_of_deltas_equal_full_versions(tmp_path: Path, table: str) -> None:
    publish = {"dtype": "fp32", "full_every": 3, "max_delta_share": 0.9}
    app = dynamic_app(tmp_path / "app", {"publish": publish, "train": {"average_rows": 0}}, **TABLES[table])
    trainer, store, frame = Trainer(app), MemoryWeights(app.name), random_examples(app, 1280)
    publisher, buffers = Publisher(app, store, lambda: 7, force=True), WeightBuffers(store)
    kinds, tombstones, known, ever = set(), 0, set(), set()
    for start in range(0, frame.height, 64):
        trainer.learn(frame[start : start + 64])
        if start % 256 and start < 600:
            continue
        publisher.offer(
            light_views(trainer), touched=take_touched(trainer), position=start + 64, step=trainer.step,
            trained_until_ms=1,
        )  # fmt: skip
        publisher.finish()
        expected = light_arrays(trainer)
        fetched, advanced = store.fetch(), buffers.advance(store.current_version() or 0)
        for got in (fetched, advanced):
            assert bits(got.arrays) == bits(expected)
        kinds.add(fetched.manifest.kind)
        tombstones += sum(blob.shape[0] for blob in fetched.manifest.blobs if blob.name == "evicted")
        known = set(expected[KEYS].tolist()) - {0}
        ever |= known
        rows = everyone(app, start)
        scored = LightScorer(app, advanced).logits(rows)
        assert np.abs(scored - PublishedLight(advanced.arrays, app).logits(to_batch(rows, app))).max() <= 1e-5
        assert np.abs(scored - trainer.predict(rows).light_logit).max() <= 1e-5
        assert scored.std() > 0.01
    assert kinds == {"full", "delta"}
    assert tombstones
    assert len(ever - known) > 10, "some ids were evicted"


def test_an_unknown_id_is_scored_as_the_row_of_unknown_ids(tmp_path: Path) -> None:
    app = dynamic_app(tmp_path / "app", **LIVELY)
    trainer = Trainer(app)
    for start in (0, 64, 128):
        trainer.learn(random_examples(app, 192)[start : start + 64])
    arrays, rows = light_arrays(trainer), random_examples(app, 4)
    net = LightNet(app.layout, arrays)
    unknown = rows.with_columns(user=pl.lit(keys_of(10**6).item(), pl.UInt64))
    before = net.logits(unknown)
    arrays["embedding"][app.layout.offsets["user"] + OOV_ROW] += 1.0
    assert (np.abs(LightNet(app.layout, arrays).logits(unknown) - before) > 1e-3).all()


def test_training_and_requests_agree_on_ids_that_own_rows_on_every_path(tmp_path: Path) -> None:
    app = dynamic_app(tmp_path / "app", {"publish": {"dtype": "fp32"}}, names=("user", "ad", "campaign"), capacity=200)
    messages, known = asked(app, 5, np.random.default_rng(5))
    lines = [json.dumps(message).encode() for message in messages]
    light = features_of(app, messages, known)
    trainer = Trainer(app)
    some = random_examples(app, light.height).with_columns(light)
    trainer.learn(some[::2])
    first = version_of(app, light_arrays(trainer), None)
    scorer = LightScorer(app, first, catalogue_of(app, known))
    trainer.learn(some)  # other ids own rows now
    second = version_of(app, light_arrays(trainer), first)
    after = LightScorer(app, second, scorer.catalogue, before=scorer)
    third = version_of(app, without_ads(app, second.arrays), second)
    last = LightScorer(app, third, scorer.catalogue, before=after)
    assert last.items is not None
    assert 0 < last.items.computed < len(known), "only what changed was computed again"
    for made, weights in ((scorer, first), (after, second), (last, third)):
        scored = made.score(lines, now_ms=0)
        assert scored.asked.places is not None
        assert (scored.asked.places >= 0).any()
        in_torch = PublishedLight(weights.arrays, app).logits(to_batch(some, app))
        assert np.abs(scored.logit - in_torch).max() <= 1e-5
    assert not np.array_equal(first.arrays[KEYS], second.arrays[KEYS])


def test_candidates_that_come_again_are_scored_by_the_rows_that_their_ids_own(tmp_path: Path) -> None:
    app = dynamic_app(tmp_path / "app", {"publish": {"dtype": "fp32"}}, names=("user", "ad", "campaign"), capacity=200)
    lines = requests(app, 4, 6, 3)
    light = features_of(app, [json.loads(line) for line in lines], {})
    trainer, some = Trainer(app), random_examples(app, light.height).with_columns(light)
    trainer.learn(some)
    weights = version_of(app, light_arrays(trainer), None)
    in_torch, scorer = PublishedLight(weights.arrays, app).logits(to_batch(some, app)), LightScorer(app, weights)
    for _ in range(2):  # the second time remembered
        assert np.abs(scorer.score(lines, now_ms=0).logit - in_torch).max() <= 1e-5


def without_ads(app: App, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays when every other ad has given up its row."""
    ad = next(f for f in app.layout.light_ids if f.name == "ad")
    low = app.layout.offsets["ad"]
    gone = low + np.flatnonzero(arrays[KEYS][low : low + ad.rows])[::2]
    made = {name: array.copy() for name, array in arrays.items()}
    for name in ("embedding", "wide", KEYS):
        made[name][gone] = 0
    return made


def version_of(app: App, arrays: dict[str, np.ndarray], before: Weights | None) -> Weights:
    store = MemoryWeights(app.name)
    publisher = Publisher(app, store, lambda: 1000, force=True)
    if before is not None:
        publisher.offer(before.arrays, position=1, step=1, trained_until_ms=1)
        publisher.finish()
    publisher.offer(arrays, position=2, step=2, trained_until_ms=1)
    publisher.finish()
    held = store.fetch()
    if before is None:
        return held
    apart = np.flatnonzero((held.arrays["embedding"] != before.arrays["embedding"]).any(axis=1))
    apart = np.union1d(apart, np.flatnonzero(held.arrays[KEYS] != before.arrays[KEYS]))
    return Weights(held.manifest, held.arrays, dict.fromkeys(("embedding", "wide", KEYS), apart))


def test_only_apps_with_dynamic_tables_publish_keys_and_log_hashes(tmp_path: Path) -> None:
    plain, dynamic = small_app(tmp_path / "plain"), dynamic_app(tmp_path / "app", **LIVELY)
    assert KEYS not in light_arrays(Trainer(plain))
    shown = pl.DataFrame({"user_id": ["u1", None]})
    hashed, own = (next(f for f in app.features if f.name == "user") for app in (plain, dynamic))
    assert featurize(shown, [hashed])["user"].dtype == pl.UInt32
    assert featurize(shown, [own])["user"].to_list() == [hash64("u1"), 0]
    lasting = dynamic_app(tmp_path / "lasting", **LIVELY | {"admit_after": 3})
    larger = dynamic_app(tmp_path / "larger", **LIVELY | {"capacity": 61})
    assert lasting.schema_id == dynamic.schema_id != larger.schema_id, "what the nets see, not how ids come and go"


def test_keys_that_are_no_keys_are_refused_before_they_are_read(tmp_path: Path) -> None:
    app = dynamic_app(tmp_path / "app", **LIVELY)
    manifest = version_of(app, light_arrays(Trainer(app)), None).manifest
    assert read_manifest(manifest_bytes(manifest), app.name, manifest.version) == manifest
    blobs = tuple(
        msgspec.structs.replace(blob, dtype="float16", shape=(4 * blob.shape[0],)) if blob.name == KEYS else blob
        for blob in manifest.blobs
    )
    with pytest.raises(CorruptError, match="array 'keys' has dtype float16, not uint64"):
        read_manifest(manifest_bytes(msgspec.structs.replace(manifest, blobs=blobs)), app.name, manifest.version)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"buckets": 9}, "either buckets or dynamic"),
        ({"kind": "time", "column": "event_time_ms"}, "no ids that could own rows"),
        ({"dynamic": {"capacity": 10, "min_count": 4}}, "min_count at most admit_after"),
        ({"dynamic": {"capacity": 0}}, "greater than or equal to 1"),
    ],
)
def test_features_that_cannot_own_rows_are_refused(change: dict[str, Any], told: str) -> None:
    good = {"name": "u", "kind": "id", "column": "user_id", "side": "user", "dynamic": {"capacity": 10}}
    assert Feature.model_validate(good).rows == 12
    with pytest.raises(ValueError, match=told):
        Feature.model_validate(good | change)


def test_what_a_user_clicked_lately_reads_the_rows_that_its_ids_own(tmp_path: Path) -> None:
    """Through the log to the nets: a `recent` list has the rows of its ids as they are now, or of unknown ids."""
    folder = tmp_path / "app"
    dynamic_app(folder, **LIVELY)
    recent = ["[[features]]", 'name = "r"', 'kind = "recent"', 'columns = ["user_id"]', 'of = "ad"', 'side = "user"']
    path = folder / "app.toml"
    path.write_text(path.read_text().replace("[model]", "\n".join([*recent, 'only = "booster"', "", "[model]"])))
    app = load_app(folder)
    shown = random_impressions(app, 1280, seed=4).sort(app.impressions.role("event_time"))
    streamed = StreamingFeatures(app).push(shown.with_columns(label=pl.lit(1, pl.UInt8)))
    assert streamed.schema["r"] == example_schema(app.features)["r"]
    frame = random_examples(app, 1280).with_columns(streamed["r"], featurize(shown, app.features)["ad"])
    trainer = Trainer(app)
    for start in range(0, frame.height, 64):
        trainer.learn(frame[start : start + 64])
    batch = trainer.ids.look_up(to_batch(frame, app))
    sequence = batch.sequences[[feature.name for feature in app.layout.sequences].index("r")]
    column = [feature.name for feature in app.layout.ids].index("ad")
    row_of = dict(zip(frame["ad"].to_list(), batch.ids_BF[:, column].tolist(), strict=True))
    looked_up = sequence.rows_S.tolist()
    assert looked_up == [row_of[item] for item in frame["r"].explode().drop_nulls().to_list()]
    assert len(set(looked_up)) > 10
    assert app.layout.offsets["ad"] + OOV_ROW in looked_up


def test_a_light_net_that_was_published_starts_another_with_its_ids(tmp_path: Path) -> None:
    app = dynamic_app(tmp_path / "app", {"train": {"average_rows": 0}}, **TABLES["event time"])
    first, frame = Trainer(app), random_examples(app, 640)
    for start in range(0, 320, 64):
        first.learn(frame[start : start + 64])
    arrays, second = light_arrays(first), Trainer(app)
    start_light(second, arrays)
    rows = everyone(app, 3)
    assert np.abs(second.predict(rows).light_logit - first.predict(rows).light_logit).max() <= 1e-6
    assert bits(light_arrays(second)) == bits(arrays)
    for start in range(320, 448, 64):
        second.learn(frame[start : start + 64])
    kept = np.flatnonzero(arrays[KEYS] == second.ids.keys[: arrays[KEYS].size])
    assert kept.size > 0.9 * arrays[KEYS].size, "none was too old at once"


def test_an_explanation_reads_the_rows_that_ids_own(tmp_path: Path) -> None:
    app = dynamic_app(tmp_path / "app", **LIVELY)
    trainer, frame = Trainer(app), random_examples(app, 192)
    for start in (0, 64, 128):
        trainer.learn(frame[start : start + 64])
    arrays = light_arrays(trainer)
    names = [f.name for f in (*app.layout.light_ids, *app.layout.light_dense)]
    row, missing = ({name: frame[name].to_numpy()[at : at + 1] for name in names} for at in (5, 9))
    told = explain(app.layout, arrays, row, missing)
    assert told.logit == pytest.approx(LightNet(app.layout, arrays).logits(row).item(), abs=1e-5)
    total = sum(one.total for one in told.contributions)
    assert total == pytest.approx(told.logit - told.reference, abs=1e-4)
