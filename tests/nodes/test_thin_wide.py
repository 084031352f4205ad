"""First-order weights that are 0 cost nothing in a version, and what says so falsely is refused."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from contracts.app import App
from contracts.errors import CorruptError
from contracts.weights import TouchedRows, WeightManifest, pack_array
from model.export import light_views, take_touched
from model.trainer import Trainer
from nodes.fakes import MemoryWeights
from nodes.publish import Publisher
from nodes.verify_weights import manifest_bytes
from tests.nodes.tiny_nets import as_served, bits, tiny_app, tiny_arrays
from tests.random_examples import random_examples, small_app


@pytest.fixture(scope="module")
def app() -> App:
    return tiny_app("ftrl", max_delta_share=0.9)


def published(app: App) -> tuple[MemoryWeights, list[dict[str, bytes]]]:
    """Version 1 full, version 2 a delta of rows 2, 4, 7 and 9, of which row 7 alone has a first-order weight."""
    store, arrays, served = MemoryWeights(app.name), tiny_arrays(app), []
    arrays["wide"][:] = 0
    arrays["wide"][[1, 7]] = 0.5, -0.25
    publisher = Publisher(app, store, lambda: 5, force=True)
    for step in (1, 2):
        touched = TouchedRows(step - 1, np.array([2, 4, 7, 9]))
        publisher.offer(arrays, position=step, step=step, trained_until_ms=step, touched=touched)
        publisher.finish()
        served.append(as_served(arrays))
        arrays["embedding"][[2, 4, 7, 9]] += 1
    return store, served


def sizes(manifest: WeightManifest) -> dict[str, int]:
    return {blob.name: sum(blob.chunks) for blob in manifest.blobs}


def test_a_zero_costs_nothing_and_comes_back_as_zero(app: App) -> None:
    store, served = published(app)
    full, delta = store.manifest(1), store.manifest(2)
    assert (full.kind, delta.kind) == ("full", "delta")
    assert {name: sizes(full)[name] for name in ("wide", "wide_rows")} == {"wide": 2 * 2, "wide_rows": 2 * 4}
    assert {name: sizes(delta)[name] for name in ("rows", "wide", "wide_rows")} == {
        "rows": 4 * 4, "wide": 2, "wide_rows": 4,
    }  # fmt: skip
    for version, whole in enumerate(served, 1):
        assert bits(store.fetch(version).arrays) == whole


def test_other_rules_publish_whole_weights_as_ever() -> None:
    store, served = published(tiny_app(max_delta_share=0.9))
    assert all("wide_rows" not in sizes(store.manifest(version)) for version in (1, 2))
    assert bits(store.fetch(2).arrays) == served[1]


def put(store: MemoryWeights, version: int, name: str, array: np.ndarray, dtype: str) -> None:
    """Another array, with lengths and digests that hold."""
    manifest = store.manifest(version)
    place = [blob.name for blob in manifest.blobs].index(name)
    blob, chunks = pack_array(name, array, dtype, 1 << 20)
    store.held[version].chunks[place : place + 1] = chunks  # each array is one chunk
    blobs = (*manifest.blobs[:place], blob, *manifest.blobs[place + 1 :])
    made = msgspec.structs.replace(msgspec.json.decode(store.held[version].manifest, type=WeightManifest), blobs=blobs)
    store.held[version].manifest = manifest_bytes(made)


@pytest.mark.parametrize(
    ("version", "numbers"),
    [(1, [7, 1]), (1, [1, 1]), (1, [1, 12]), (1, [1]), (1, [[1], [7]]), (2, [3]), (2, [12]), (2, [7, 9])],
    ids=str,
)
def test_row_numbers_that_lie_are_refused(app: App, version: int, numbers: list) -> None:
    store, _ = published(app)
    put(store, version, "wide_rows", np.array(numbers), "uint32")
    with pytest.raises(CorruptError, match=rf"version {version} of model .*'wide_rows'"):
        store.fetch(version)


def test_what_ftrl_leaves_at_zero_is_not_published(tmp_path: Path) -> None:
    """From a trainer to a reader: with a strong L1 most rows that were learnt have no first-order weight."""
    settings = {"train": {"wide_optimizer": "ftrl", "ftrl": {"l1": 3.0}}, "publish": {"max_delta_share": 1.0}}
    app = small_app(tmp_path / "app", settings)
    trainer, frame, store = Trainer(app), random_examples(app, 512), MemoryWeights(app.name)
    publisher = Publisher(app, store, lambda: 5, force=True)
    for start in range(0, 512, 64):
        trainer.learn(frame[start : start + 64])
        if start in (320, 448):
            publisher.offer(
                light_views(trainer), touched=take_touched(trainer), position=start, step=trainer.step,
                trained_until_ms=start,
            )  # fmt: skip
            publisher.finish()
    wide = light_views(trainer)["wide"]
    learnt = int((trainer.nets.light_table.accumulators()["wide.n"][: wide.size] > 0).sum())
    assert 0 < np.count_nonzero(wide) < learnt / 3
    full, delta = store.versions()
    assert (full.kind, delta.kind) == ("full", "delta")
    assert sizes(full)["wide"] // 2 < wide.size / 3
    assert sizes(delta)["wide"] <= sizes(delta)["rows"] // 2
    assert bits(store.fetch().arrays)["wide"] == wide.astype(np.float16).astype(np.float32).tobytes()
