"""Figures against brute force, and the law of mergeable sums: parts add up to the whole."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss, roc_auc_score

from contracts.errors import RocketError
from model.metrics import Sums, auc, expected_logloss, gauc, summarise
from model.progressive import Progressive, histogram_auc

CHANCES = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0])
ROWS = st.lists(
    st.tuples(st.integers(0, 1), CHANCES, st.integers(0, 4), st.sampled_from([0.5, 1.0, 4.0])), min_size=1, max_size=40
)


def auc_by_pairs(label, p, weight):
    won = pairs = 0.0
    for y, q, w in zip(label, p, weight, strict=True):
        for other_y, other_q, other_w in zip(label, p, weight, strict=True):
            if y == 1 and other_y == 0:
                pairs += w * other_w
                won += w * other_w * (1.0 if q > other_q else 0.5 if q == other_q else 0.0)
    return won / pairs if pairs else None


@given(ROWS)
@settings(max_examples=150, deadline=None)
def test_auc_counts_every_pair_and_half_of_each_tie(rows) -> None:
    label, p, _, weight = map(list, zip(*rows, strict=True))
    assert auc(label, p, weight) == pytest.approx(auc_by_pairs(label, p, weight))
    assert auc(label, p) == pytest.approx(auc_by_pairs(label, p, [1.0] * len(rows)))


@given(ROWS)
@settings(max_examples=150, deadline=None)
def test_gauc_is_the_mean_of_the_users_aucs_weighted_by_their_impressions(rows) -> None:
    label, p, user, weight = map(list, zip(*rows, strict=True))
    found = []
    for one in set(user):
        mine = [n for n, u in enumerate(user) if u == one]
        value = auc_by_pairs(*([column[n] for n in mine] for column in (label, p, weight)))
        if value is not None:
            found.append((value, sum(weight[n] for n in mine)))
    expected = sum(v * w for v, w in found) / sum(w for _, w in found) if found else None
    assert gauc(label, p, pl.Series([f"u{u}" for u in user]), weight) == pytest.approx(expected)


def test_users_without_a_name_are_one_user() -> None:
    assert gauc([0, 1, 0, 1], [0.1, 0.2, 0.3, 0.4], pl.Series([None, None, "a", "a"], dtype=pl.String)) == 1.0


def test_large_figures_agree_with_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    p, weight = rng.random(5000).round(2).clip(0.01, 0.99), rng.integers(1, 5, 5000)
    label = (rng.random(5000) < p).astype(int)
    found = summarise(label, p, weight=weight)
    assert found["auc"] == pytest.approx(roc_auc_score(label, p, sample_weight=weight))
    assert found["logloss"] == pytest.approx(log_loss(label, p, sample_weight=weight))
    base = np.average(label, weights=weight)
    assert found["ne"] == pytest.approx(found["logloss"] / log_loss(label, np.full(5000, base), sample_weight=weight))
    assert found["calibration"] == pytest.approx(np.average(p, weights=weight) / base)


def test_expected_logloss_is_least_at_the_truth() -> None:
    truth = np.array([0.1, 0.5, 0.9])
    best = expected_logloss(truth, truth)
    assert best == pytest.approx(float(np.mean(-truth * np.log(truth) - (1 - truth) * np.log(1 - truth))))
    assert all(expected_logloss(truth, truth + shift) > best for shift in (-0.05, 0.05))


@pytest.mark.parametrize("label", [[], [0, 0], [1, 1]])
def test_a_figure_that_is_not_defined_is_none_and_never_an_error(label: list[int]) -> None:
    found = summarise(label, [0.3] * len(label), user=["a"] * len(label))
    assert found["auc"] is None
    assert found["gauc"] is None
    assert found["ne"] is None
    assert (found["calibration"] is None) == (sum(label) == 0)


def test_sure_mistakes_cost_much_but_not_infinity() -> None:
    assert 10 < summarise([1, 0], [0.0, 1.0])["logloss"] < 20


def test_a_prediction_that_is_no_number_is_refused_with_its_row() -> None:
    with pytest.raises(RocketError, match="the first in row 1"):
        summarise([0, 1], [0.5, np.nan])


@given(ROWS, st.integers(1, 40))
@settings(max_examples=100, deadline=None)
def test_the_sums_of_parts_are_the_sums_of_the_whole(rows, cut: int) -> None:
    label, p, _, weight = map(np.array, zip(*rows, strict=True))
    parts = Sums.of(label[:cut], p[:cut], weight[:cut]) + Sums.of(label[cut:], p[cut:], weight[cut:])
    whole = Sums.of(label, p, weight)
    assert parts.rows == whole.rows
    for name in ("weight", "clicks", "predicted", "loss", "logloss", "ne", "calibration"):
        assert getattr(parts, name) == pytest.approx(getattr(whole, name)), name


def drawn(rows: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    p = 1 / (1 + np.exp(-rng.normal(-1, 1.5, rows)))
    return (rng.random(rows) < p).astype(int), np.sort(rng.integers(0, 86_400_000, rows)), p


def test_progressive_figures_are_those_of_all_rows_at_once() -> None:
    label, times, p = drawn(20_000)
    told = Progressive(("light", "booster"))
    for start in range(0, 20_000, 128):
        part = slice(start, start + 128)
        told.update(label[part], times[part], {"light": p[part], "booster": 1 - p[part]})
    found, exact = told.figures(), summarise(label, p)
    for name in ("rows", "logloss", "ne", "calibration"):
        assert found["light"][name] == pytest.approx(exact[name]), name
    assert found["light"]["auc"] == pytest.approx(exact["auc"], abs=2e-5)
    assert found["booster"]["auc"] == pytest.approx(1 - exact["auc"], abs=2e-5)


@pytest.mark.parametrize("max_windows", [2, 5, 64, 1000])
def test_windows_merge_when_they_grow_too_many_and_lose_no_row(max_windows: int) -> None:
    label, times, p = drawn(5000)
    told = Progressive(("light",), window_ms=600_000, max_windows=max_windows)
    for start in range(0, 5000, 100):
        part = slice(start, start + 100)
        told.update(label[part], times[part], {"light": p[part]})
    curve = told.curve()
    assert len(curve) <= max_windows
    assert sum(row["light"]["rows"] for row in curve) == 5000
    for row in curve:
        inside = (times >= row["window_ms"]) & (times < row["window_ms"] + row["length_ms"])
        exact = summarise(label[inside], p[inside])
        assert row["light"]["logloss"] == pytest.approx(exact["logloss"])
        assert row["light"]["calibration"] == pytest.approx(exact["calibration"])
        assert row["light"]["auc"] == pytest.approx(exact["auc"], abs=0.02)  # few rows a window: more of them tie


def test_progressive_validation_goes_on_from_its_state_bit_for_bit() -> None:
    label, times, p = drawn(3000)
    whole, first, second = (Progressive(("light", "linear"), max_windows=7) for _ in range(3))
    for start in range(0, 3000, 100):
        part = slice(start, start + 100)
        given_p = {"light": p[part], "linear": p[part] ** 2}
        whole.update(label[part], times[part], given_p)
        (first if start < 1500 else second).update(label[part], times[part], given_p)
        if start == 1400:
            second.restore(first.arrays(), first.meta())
    assert second.figures() == whole.figures()
    assert second.curve() == whole.curve()
    for name, array in whole.arrays().items():
        assert array.tobytes() == second.arrays()[name].tobytes(), name


def test_rows_weigh_what_they_stand_for() -> None:
    label, times, p = drawn(2000)
    once, twice = Progressive(("light",)), Progressive(("light",))
    once.update(label, times, {"light": p}, np.where(label == 1, 1.0, 2.0))
    again = label == 0
    twice.update(np.r_[label, label[again]], np.r_[times, times[again]], {"light": np.r_[p, p[again]]})
    for name in ("auc", "logloss", "calibration", "ne"):
        assert once.figures()["light"][name] == pytest.approx(twice.figures()["light"][name]), name


def test_a_histogram_without_both_classes_has_no_auc() -> None:
    assert histogram_auc(np.ones(4), np.zeros(4)) is None
