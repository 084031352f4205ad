"""A candidate may come by its id alone where the scorer knows the item."""

import json

import polars as pl
import pytest

from contracts.errors import ContractError
from nodes.catalogue import Catalogue, load_catalogue
from nodes.fake_traffic import light_arrays, requests
from nodes.fakes import MemoryWeights
from nodes.publish import Publisher
from nodes.score import LightScorer

_ITEMS = pl.DataFrame(
    {
        "item_id": ["a1", "a2"],
        "campaign_id": ["c1", "c2"],
        "category": ["k1", "k2"],
        "format": ["banner", "video"],
        "bid": [7.0, None],
    }
)


def _weights(app):
    store = MemoryWeights(app.name)
    publisher = Publisher(app, store, lambda: 1000, force=True)
    publisher.offer(light_arrays(app, scale=0.3), position=1, step=1, trained_until_ms=1)
    publisher.finish()
    return store.fetch()


def _asked(app, candidates):
    request = json.loads(requests(app, 1, 1)[0])
    return json.dumps(request | {"candidates": candidates}).encode()


def test_an_id_alone_scores_as_the_whole_candidate_does(adsim):
    weights = _weights(adsim)
    scorer = LightScorer(adsim, weights, Catalogue(adsim, _ITEMS))
    by_id, whole = (
        scorer.answer([_asked(adsim, candidates)], now_ms=0)[0]
        for candidates in ([{"item_id": "a1"}, {"item_id": "a2"}], _ITEMS.to_dicts())
    )
    assert by_id.error is None
    assert [score.pctr for score in by_id.scores] == pytest.approx([score.pctr for score in whole.scores], abs=1e-6)


def test_a_candidates_own_value_wins_and_an_unknown_item_is_refused_alone(adsim):
    weights = _weights(adsim)
    scorer = LightScorer(adsim, weights, Catalogue(adsim, _ITEMS))
    own = _ITEMS.to_dicts()[0] | {"campaign_id": "c9"}
    mixed = scorer.answer([_asked(adsim, [{"item_id": "zz"}, {"item_id": "a1", "campaign_id": "c9"}, own])], now_ms=0)[
        0
    ]
    assert mixed.scores[0].refused is not None
    assert mixed.scores[0].refused.startswith("missing")
    assert mixed.scores[1].pctr == mixed.scores[2].pctr
    plain = LightScorer(adsim, weights).answer([_asked(adsim, [{"item_id": "a1"}])], now_ms=0)[0]
    assert plain.scores[0].refused is not None


@pytest.mark.parametrize(
    ("items", "said"),
    [
        (_ITEMS.with_columns(price=1), "price"),
        (_ITEMS.drop("item_id"), "item_id"),
        (pl.concat([_ITEMS, _ITEMS]), "twice"),
        (_ITEMS.with_columns(format=pl.lit("poster")), "breaks the contract"),
        (_ITEMS.with_columns(bid=pl.lit("dear")), "another type"),
    ],
)
def test_a_catalogue_that_no_candidate_could_keep_is_refused(adsim, items, said):
    with pytest.raises(ContractError, match=said):
        Catalogue(adsim, items)


def test_a_catalogue_is_read_from_parquet_and_from_lines_of_json(adsim, tmp_path):
    _ITEMS.write_parquet(tmp_path / "items.parquet")
    _ITEMS.write_ndjson(tmp_path / "items.ndjson")
    assert (
        len(load_catalogue(adsim, tmp_path / "items.parquet"))
        == len(load_catalogue(adsim, tmp_path / "items.ndjson"))
        == 2
    )
    with pytest.raises(ContractError, match=r"\.parquet or \.ndjson"):
        load_catalogue(adsim, tmp_path / "items.csv")
    with pytest.raises(ContractError, match="cannot be read"):
        load_catalogue(adsim, tmp_path / "none.parquet")
