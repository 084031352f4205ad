"""The one table of features: what a row may say, and where each feature lies in the tensors."""

from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from contracts.app import App
from contracts.features import STATEFUL, Feature, layout_of


def test_the_light_table_is_a_prefix_of_the_fused_one(adsim: App, kuairand: App) -> None:
    for app in (adsim, kuairand):
        layout = app.layout
        offsets = layout.offsets
        place = 0
        for feature in layout.ids:
            assert offsets[feature.name] == place
            place += feature.rows
        assert place == layout.rows
        assert layout.light_rows == sum(feature.rows for feature in layout.light_ids)
        assert all(offsets[feature.name] < layout.light_rows for feature in layout.light_ids)
        assert all(offsets[feature.name] >= layout.light_rows for feature in layout.booster_ids)


def test_every_feature_has_one_place(kuairand: App) -> None:
    layout = kuairand.layout
    placed = [feature.name for feature in (*layout.ids, *layout.dense, *layout.sequences)]
    assert sorted(placed) == sorted(feature.name for feature in kuairand.features)


def test_the_light_net_sees_nothing_that_is_only_for_the_booster(kuairand: App) -> None:
    for feature in (*kuairand.layout.light_ids, *kuairand.layout.light_dense):
        assert feature.only is None
        assert feature.kind not in STATEFUL


def test_rows_count_a_bucket_for_the_missing() -> None:
    bucketised = Feature(name="a", kind="dense", column="x", side="user", transform="bucketise", boundaries=(1.0, 2.0))
    assert (bucketised.output, bucketised.rows) == ("id", 4)
    clock = Feature(name="h", kind="time", column="t", side="context", part="day_of_week")
    assert (clock.output, clock.rows) == ("id", 8)


def test_a_kind_of_your_own_says_what_it_gives() -> None:
    own = Feature(name="w", kind="weekend", column="t", side="context", output="dense")
    assert own.output == "dense"
    assert layout_of((own,)).light_dense == (own,)
    with pytest.raises(ValidationError, match="needs output ="):
        Feature(name="w", kind="weekend", column="t", side="context")


def test_a_half_life_makes_another_schema_and_none_makes_no_difference(adsim: App) -> None:
    rate = next(feature for feature in adsim.features if feature.kind == "rate")
    assert "half_life_s" not in rate.model_dump()
    fading = rate.model_copy(update={"half_life_s": 60.0})
    features = tuple(fading if feature is rate else feature for feature in adsim.features)
    other = replace(adsim, config=adsim.config.model_copy(update={"features": features}))
    assert other.schema_id != adsim.schema_id


RATE: dict[str, Any] = {"kind": "rate", "columns": ("x",), "column": None, "only": "booster"}
RECENT: dict[str, Any] = RATE | {"kind": "recent", "of": "ad"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"kind": "id"}, "needs buckets"),
        ({"kind": "id", "buckets": 1}, "greater than or equal to 2"),
        ({"kind": "id", "buckets": 9, "column": None}, "needs column"),
        ({"kind": "cross", "buckets": 9}, "needs columns"),
        ({"kind": "sequence"}, "needs of"),
        ({"kind": "id", "buckets": 9, "delay_s": 60}, "no evidence to delay"),
        ({"kind": "id", "buckets": 9, "half_life_s": 60}, "no counts to decay; take half_life_s away"),
        (RECENT | {"half_life_s": 60}, "'recent' has no counts to decay; take half_life_s away"),
        (RATE | {"half_life_s": 0}, "half_life_s = 0 is not within 0.001 and 1e11 seconds; give one that is"),
        (RATE | {"half_life_s": -60}, "half_life_s = -60 is not within"),
        (RATE | {"half_life_s": 2e11}, "leave it out for counts that never fade"),
        (RATE | {"half_life_s": float("inf")}, "finite"),
        ({"kind": "dense", "transform": "bucketise"}, "needs boundaries"),
        ({"kind": "dense", "transform": "bucketise", "boundaries": (2, 1)}, "must ascend"),
        ({"kind": "dense", "std": 0}, "greater than 0"),
        ({"kind": "dense", "mean": float("nan")}, "finite"),
        ({"kind": "rate", "columns": ("x",)}, "booster"),
        ({"kind": "id", "buckets": 9, "name": "Big"}, "pattern"),
        ({"kind": "id", "buckets": 9, "side": "advert"}, "user"),
        ({"kind": "id", "buckets": 9, "bukets": 9}, "not permitted"),
    ],
)
def test_a_row_that_is_not_complete_is_refused(changes: dict, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Feature(**({"name": "a", "column": "x", "side": "user"} | changes))
