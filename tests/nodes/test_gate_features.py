"""Features that freeze or go missing, against counts made row by row; and what stands still by nature."""

from collections import Counter

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.app import App
from contracts.features import Feature
from contracts.sections import Gate
from nodes.fake_traffic import examples
from nodes.gate.features import LEAST, FeatureWatch


def feature(kind: str = "id", **more: object) -> Feature:
    return Feature.model_validate({"name": "f", "kind": kind, "side": "user", "column": "f", "buckets": 100} | more)


@settings(max_examples=100)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=60))
def test_shares_are_those_of_counting(values: list[int]) -> None:
    top, missing = FeatureWatch([feature()], Gate()).figures(pl.DataFrame({"f": pl.Series(values, dtype=pl.UInt32)}))[0]
    most = Counter(values).most_common(1)[0][1] / len(values)
    assert missing == values.count(0) / len(values)
    assert top <= most
    if most > 0.5:
        assert top == most, "below one half it says nothing of a freeze"


def test_lists_and_dense_features_have_shares_too() -> None:
    lists = feature("sequence", of="ad")
    dense = feature("dense", default=-1.0)
    rows = pl.DataFrame({"f": pl.Series([[1, 2], [], [1], [1, 5]], dtype=pl.List(pl.UInt32))})
    assert FeatureWatch([lists], Gate()).figures(rows).tolist() == [[0.75, 0.25]]
    rows = pl.DataFrame({"f": pl.Series([-1.0, 2.0, -1.0, -1.0], dtype=pl.Float32)})
    assert FeatureWatch([dense], Gate()).figures(rows).tolist() == [[0.75, 0.75]]


def watched(app: App, slices: int = LEAST) -> FeatureWatch:
    watch = FeatureWatch(app.features, Gate())
    for seed in range(slices):
        watch.believe(watch.figures(examples(app, 256, seed)))
    return watch


@pytest.mark.parametrize("name", ["user", "ad_category", "age", "slot", "bid_level", "user_rate"])
def test_a_feature_that_froze_is_named(adsim: App, name: str) -> None:
    watch, rows = watched(adsim), examples(adsim, 256, 99)
    assert watch.fault(watch.figures(rows), 256) is None
    stuck = rows.with_columns(pl.lit(rows[name][0]).cast(rows[name].dtype).alias(name))
    fault = watch.fault(watch.figures(stuck), 256)
    assert fault is not None
    assert (fault.kind, f"'{name}' is frozen" in fault.reason) == ("feature", True)
    assert FeatureWatch(adsim.features, Gate()).fault(watch.figures(stuck), 256) is None, "nothing is usual yet"


@pytest.mark.parametrize("name", ["user", "clicked_ads", "bid_level"])
def test_a_feature_that_half_the_rows_lack_is_named(adsim: App, name: str) -> None:
    watch, rows = watched(adsim), examples(adsim, 256, 99)
    none = pl.lit([], rows[name].dtype) if name == "clicked_ads" else pl.lit(0).cast(rows[name].dtype)
    gone = rows.with_columns(pl.when(pl.int_range(pl.len()) % 4 < 3).then(none).otherwise(pl.col(name)).alias(name))
    fault = watch.fault(watch.figures(gone), 256)
    assert fault is not None
    assert f"'{name}' is missing in" in fault.reason


def test_the_clock_and_what_hardly_varied_may_stand_still(adsim: App) -> None:
    watch = FeatureWatch(adsim.features, Gate())
    for seed in range(8):
        mostly = pl.when(pl.int_range(pl.len()) % 5 < 4).then(3).otherwise("on_device").cast(pl.UInt32)
        rows = examples(adsim, 256, seed).with_columns(on_device=mostly)
        watch.believe(watch.figures(rows))
    still = examples(adsim, 256, 9).with_columns(on_device=pl.lit(3, pl.UInt32), hour=pl.lit(7, pl.UInt32))
    assert watch.fault(watch.figures(still), 256) is None


def test_a_freeze_that_comes_bit_by_bit_does_not_become_usual(adsim: App) -> None:
    watch, rng = watched(adsim, 8), np.random.default_rng(0)
    for share in (0.2, 0.4, 0.6, 0.8):
        rows = examples(adsim, 256, 50)
        part = rows.with_columns(
            ad=pl.when(pl.Series(rng.random(256) < share)).then(pl.lit(5, pl.UInt32)).otherwise("ad")
        )
        watch.believe(watch.figures(part))
    fault = watch.fault(watch.figures(examples(adsim, 256, 51).with_columns(ad=pl.lit(5, pl.UInt32))), 256)
    assert fault is not None
    assert "'ad' is frozen" in fault.reason
