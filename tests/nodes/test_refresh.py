"""The swap: what is in use is never written over, and only what changed is computed again."""

import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import polars as pl
import pytest

from contracts.app import App, load_app
from contracts.errors import CorruptError, StoreError
from contracts.weights import Weights
from nodes.catalogue import Catalogue, item_contract
from nodes.chains import Steps
from nodes.fake_traffic import light_arrays, requests
from nodes.fakes import MemoryWeights
from nodes.publish import Publisher
from nodes.refresh import Refresher
from nodes.score import LightScorer


@pytest.fixture(scope="module")
def app() -> App:
    return load_app("adsim", {"model": {"embedding_dim": 2, "light": {"hidden": [4]}}, "publish": {"dtype": "fp32"}})


class Store(MemoryWeights):
    """Says when it is read."""

    on_fetch: Callable[[], None] | None = None

    def steps(self, *asked: Any, **known: Any) -> Steps:
        if self.on_fetch is not None:
            self.on_fetch()
        return super().steps(*asked, **known)


def publish(app: App, store: MemoryWeights, number: int, arrays: dict[str, np.ndarray] | None = None) -> None:
    publisher = Publisher(app, store, force=True)
    publisher.offer(arrays or light_arrays(app, number), position=number, step=number, trained_until_ms=number)
    publisher.finish()


def items(app: App, count: int) -> pl.DataFrame:
    rows = [
        {"item_id": f"a{n}", "campaign_id": f"c{n}", "category": "k", "format": "video", "bid": 1.0}
        for n in range(count)
    ]
    return pl.DataFrame(rows, schema=item_contract(app).schema_)


class Growing:
    """A source whose catalogue the test replaces."""

    refused: Mapping[str, int] = {}

    def __init__(self, catalogue: Catalogue) -> None:
        self.now = catalogue
        self.away = False

    def latest(self) -> Catalogue:
        if self.away:
            raise StoreError("kafka://h:1/items: away")
        return self.now


def test_nothing_is_fetched_while_an_earlier_scorer_is_still_in_use(app: App) -> None:
    store = Store(app.name)
    fetched = threading.Event()
    store.on_fetch = fetched.set
    refresher = Refresher(app, store)
    publish(app, store, 1)
    assert refresher.look()
    with refresher.hold() as held:
        assert held.version == 1
        publish(app, store, 2)
        assert refresher.look(), "one version further there is a buffer to spare"
        publish(app, store, 3)
        fetched.clear()
        looking = threading.Thread(target=refresher.look)
        looking.start()
        assert not fetched.wait(0.3)
        assert held.answer(requests(app, 1, 2), now_ms=0)[0].model_version == 1
        with refresher.hold() as newest:
            assert newest.version == 2, "who comes now does not wait"
    assert fetched.wait(5)
    looking.join(5)
    assert refresher.scorer.version == 3


def test_a_number_that_a_wiped_store_hands_out_again_is_seen_to_be_another_version(app: App) -> None:
    store = MemoryWeights(app.name)
    refresher = Refresher(app, store)
    publish(app, store, 1)
    assert refresher.look()
    before = refresher.scorer
    assert not any(refresher.look() for _ in range(30)), "the same version is swapped in once"
    store.wipe()
    publish(app, store, 2)
    assert store.current_version() == before.version == 1
    assert sum(refresher.look() for _ in range(30)) == 1
    assert (refresher.scorer.version, refresher.refused.total()) == (1, 0)
    asked = requests(app, 1, 3)
    right = LightScorer(app, store.fetch(1)).answer(asked, now_ms=0)[0].scores
    assert refresher.scorer.answer(asked, now_ms=0)[0].scores == right != before.answer(asked, now_ms=0)[0].scores


def test_a_lease_ends_with_an_error_too(app: App) -> None:
    store = Store(app.name)
    refresher = Refresher(app, store)
    with pytest.raises(ZeroDivisionError), refresher.hold():
        _ = 1 / 0
    for number in (1, 2):
        publish(app, store, number)
        assert refresher.look()


def test_a_changed_catalogue_is_swapped_in_under_the_same_weights(app: App) -> None:
    store, source = Store(app.name), Growing(Catalogue(app, items(app, 5)))
    publish(app, store, 1)
    refresher = Refresher(app, store, catalogue=source)
    assert refresher.look()
    first = refresher.scorer.items
    assert first is not None
    assert first.computed == 5
    source.now = source.now.changed(items(app, 7)[5:])
    assert not refresher.look(), "no other version"
    assert (refresher.catalogue_swaps, refresher.swaps, refresher.scorer.version) == (1, 1, 1)
    assert refresher.scorer.items is not None
    assert refresher.scorer.items.computed == 2
    source.away = True
    refresher.look()
    assert refresher.refused == {"StoreError": 1}
    assert len(refresher.scorer.catalogue or ()) == 7


def one_row_further(app: App) -> tuple[Store, Growing, Refresher, dict[str, np.ndarray]]:
    """Version 1 serves 50 items; in version 2, not looked at yet, one row of one item's is another."""
    store, source = Store(app.name), Growing(Catalogue(app, items(app, 50)))
    arrays = light_arrays(app, 1)
    publish(app, store, 1, arrays)
    refresher = Refresher(app, store, catalogue=source)
    assert refresher.look()
    assert refresher.scorer.items is not None
    row = int(refresher.scorer.items.ids_NF[7, 0])
    arrays["embedding"][row] += 1
    publish(app, store, 2, arrays)
    return store, source, refresher, arrays


def test_only_items_that_read_a_changed_row_are_computed_again(app: App) -> None:
    store, source, refresher, _ = one_row_further(app)
    assert refresher.look()
    vectors = refresher.scorer.items
    assert vectors is not None
    assert 1 <= vectors.computed < 50
    np.testing.assert_allclose(vectors.first_NK, whole(app, store.fetch(2), source.now).first_NK, atol=1e-6)


@pytest.mark.parametrize("when", ["as it is read", "as a scorer is made of it"])
def test_after_a_version_that_was_refused_the_next_is_told_against_what_is_used(app: App, when: str) -> None:
    store, source, refresher, arrays = one_row_further(app)
    if when == "as it is read":
        store.held[2].chunks[0] = b"x"
        assert not refresher.look()
    else:
        refresher.sample = b"{}"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(LightScorer, "answer", refused)
            assert not refresher.look()
    publish(app, store, 3, {name: array.copy() for name, array in arrays.items()})
    with refresher.hold() as before:
        told = before.score(requests(app, 3, 5), now_ms=0).logit.tolist()
        assert refresher.look(), "it is written where the refused one was"
        assert before.score(requests(app, 3, 5), now_ms=0).logit.tolist() == told
    vectors = refresher.scorer.items
    assert vectors is not None
    assert 1 <= vectors.computed < 50
    np.testing.assert_allclose(vectors.first_NK, whole(app, store.fetch(3), source.now).first_NK, atol=1e-6)


def refused(*_: Any, **__: Any) -> None:
    raise CorruptError("warming up fails")


def whole(app: App, weights: Weights, catalogue: Catalogue) -> Any:
    return LightScorer(app, weights, catalogue).items
