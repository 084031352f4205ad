"""Negative sampling repeats itself and keeps the books."""

import polars as pl
import pytest

from contracts.app import load_app
from nodes.sample import sample


def examples(rows: int = 20_000) -> pl.DataFrame:
    return pl.DataFrame(
        {"impression_id": [f"i{n}" for n in range(rows)], "label": [int(n % 20 == 0) for n in range(rows)]}
    )


def app_keeping(rate: float, correction: str = "weight"):
    return load_app("adsim", {"sampling": {"negative_keep_rate": rate, "correction": correction}})


def test_every_positive_stays_and_about_the_rate_of_the_negatives():
    sampled = sample(examples(), app_keeping(0.3))
    assert sampled.kept["label"].sum() == 1_000
    assert sampled.kept.height - 1_000 == pytest.approx(0.3 * 19_000, rel=0.05)
    assert sampled.kept.height + sampled.dropped.height == 20_000
    assert sampled.dropped["label"].sum() == 0


def test_the_same_ids_are_kept_whatever_the_order_and_the_cut():
    app, rows = app_keeping(0.3), examples(2_000)
    whole = set(sample(rows, app).kept["impression_id"])
    parts = [sample(part, app).kept for part in rows.sample(fraction=1, shuffle=True, seed=1).iter_slices(137)]
    assert set(pl.concat(parts)["impression_id"]) == whole


def test_a_lower_rate_keeps_a_part_of_what_a_higher_one_keeps():
    few, many = (set(sample(examples(), app_keeping(rate)).kept["impression_id"]) for rate in (0.1, 0.4))
    assert few < many


@pytest.mark.parametrize(("correction", "weight"), [("weight", 4.0), ("logit", 1.0)])
def test_exactly_one_correction_is_applied(correction, weight):
    kept = sample(examples(), app_keeping(0.25, correction)).kept
    negative, positive = kept.filter(label=0), kept.filter(label=1)
    assert set(negative["weight"]) == {weight}
    assert set(negative["kept_rate"]) == {0.25}
    assert set(positive["weight"]) == set(positive["kept_rate"]) == {1.0}
    assert kept.schema["weight"] == kept.schema["kept_rate"] == pl.Float32


def test_a_rate_of_one_drops_nothing():
    sampled = sample(examples(100), app_keeping(1.0))
    assert (sampled.kept.height, sampled.dropped.height) == (100, 0)
