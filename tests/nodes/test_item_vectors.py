"""Item vectors: a delta gives what computing all of them gives, and computes no more than it must."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.app import App, load_app
from nodes.catalogue import Catalogue
from nodes.fake_traffic import light_arrays
from nodes.item_vectors import ItemVectors
from nodes.light_numpy import LightNet
from nodes.request_side import LightSides

APP = load_app("adsim")
SIDES = LightSides.of(APP)
ASKED, MIXED = (frozenset(feature.name for feature in side) for side in (SIDES.request, SIDES.mixed))


def items(numbers: list[int], bid: float = 1.0) -> pl.DataFrame:
    made = {
        "item_id": [f"a{n}" for n in numbers],
        "campaign_id": [f"c{n % 5}" for n in numbers],
        "category": [f"k{n % 3}" for n in numbers],
        "format": ["banner" if n % 2 else "video" for n in numbers],
        "bid": [bid + n for n in numbers],
    }
    schema = Catalogue(APP, pl.DataFrame({"item_id": []}, schema={"item_id": pl.String})).items.schema
    return pl.DataFrame(made, schema=schema)


def net_of(arrays: dict[str, np.ndarray]) -> LightNet:
    return LightNet(APP.layout, arrays, ASKED, MIXED)


def check(vectors: ItemVectors, net: LightNet, catalogue: Catalogue) -> None:
    whole = ItemVectors.of(net, catalogue)
    np.testing.assert_allclose(vectors.first_NK, whole.first_NK, atol=1e-6)
    np.testing.assert_allclose(vectors.wide_N, whole.wide_N, atol=1e-6)
    np.testing.assert_array_equal(vectors.ids_NF, whole.ids_NF)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(0, APP.layout.light_rows - 1), max_size=30),
    st.lists(st.integers(0, 60), max_size=10, unique=True),
    st.lists(st.integers(0, 39), max_size=10, unique=True),
    st.booleans(),
)
def test_a_delta_of_weights_and_items_is_as_good_as_all_of_it(
    touched: list[int],
    changed_items: list[int],
    removed: list[int],
    tower_moves: bool,  # noqa: FBT001
) -> None:
    catalogue, arrays = Catalogue(APP, items(list(range(40)))), light_arrays(APP, 1)
    before = ItemVectors.of(net_of(arrays), catalogue)
    used = np.unique(before.ids_NF)
    rows = np.unique(np.array([used[row % used.size] if n % 2 else row for n, row in enumerate(touched)], np.int64))
    arrays = {name: array.copy() for name, array in arrays.items()}
    arrays["embedding"][rows] += 1
    arrays["wide"][rows] -= 1
    if tower_moves:
        arrays["mlp.0.weight"] += 0.01
    removed = [n for n in removed if n not in changed_items]
    later = catalogue.changed(items(changed_items, bid=7.0), [f"a{n}" for n in removed])
    net = net_of(arrays)
    vectors = ItemVectors.of(net, later, before, {"embedding": rows, "wide": rows})
    check(vectors, net, later)
    if tower_moves:
        assert vectors.computed == later.items.height
    else:
        hit = np.isin(before.ids_NF, rows).any(axis=1).sum()
        assert vectors.computed == hit + len(changed_items)


def test_without_word_of_what_changed_all_are_computed() -> None:
    catalogue, net = Catalogue(APP, items(list(range(40)))), net_of(light_arrays(APP, 1))
    before = ItemVectors.of(net, catalogue)
    assert ItemVectors.of(net, catalogue, before, None).computed == 40
    assert ItemVectors.of(net, catalogue, before, {}).computed == 0
    other = Catalogue(APP, items(list(range(40))))
    assert ItemVectors.of(net, other, before, {}).computed == 40, "another catalogue's places are others"


def test_dead_places_are_laid_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nodes.catalogue._CHUNK", 8)
    catalogue = Catalogue(APP, items(list(range(10))))
    first, oracle = catalogue, dict.fromkeys(range(10), 1.0)
    for turn in range(25):
        catalogue = catalogue.changed(items([turn % 10], bid=50.0 + turn), ["a99"])
        oracle[turn % 10] = 50.0 + turn
    assert catalogue.generation is not first.generation
    assert catalogue.items.height <= 2 * 10 + 8
    for number, bid in oracle.items():
        assert catalogue.items["bid"][catalogue.places[f"a{number}"]] == bid + number
    net = net_of(light_arrays(APP, 2))
    check(ItemVectors.of(net, catalogue, ItemVectors.of(net, first), {}), net, catalogue)


def test_a_catalogue_of_the_app_that_has_no_items_scores_nobody(adsim: App) -> None:
    empty = Catalogue(adsim, items([]))
    assert len(empty) == 0
    model = adsim.config.model
    columns = model.light.hidden[0] + model.embedding_dim  # of the first layer, and of pairs
    assert ItemVectors.of(net_of(light_arrays(adsim)), empty).first_NK.shape == (0, columns)
