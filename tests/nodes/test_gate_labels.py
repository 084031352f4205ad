"""Label rates: intervals against the binomial distribution itself, and sums that merge."""

from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.gate.labels import LabelSums, prior_of, shift, wilson

PARTS = st.lists(st.tuples(st.integers(0, 1), st.floats(0.1, 10)), min_size=2, max_size=40)


def of(rows: list[tuple[int, float]]) -> LabelSums:
    label, weight = (np.array(part, float) for part in zip(*rows, strict=True))
    return LabelSums.of(label, weight)


@given(PARTS, st.data())
def test_sums_of_parts_are_the_sum_of_the_whole(rows: list[tuple[int, float]], data: st.DataObject) -> None:
    cut = data.draw(st.integers(1, len(rows) - 1))
    whole, parts = of(rows), of(rows[:cut]) + of(rows[cut:])
    assert parts.rate == pytest.approx(whole.rate)
    assert parts.size == pytest.approx(whole.size)
    assert whole.rate == pytest.approx(sum(label * weight for label, weight in rows) / sum(w for _, w in rows))


@given(PARTS, st.floats(0.01, 1))
def test_decay_changes_the_size_and_not_the_rate(rows: list[tuple[int, float]], by: float) -> None:
    sums = of(rows)
    assert sums.decayed(by).rate == pytest.approx(sums.rate)
    assert sums.decayed(by).size == pytest.approx(by * sums.size)


def binomial(rows: int, rate: float) -> np.ndarray:
    """P(k clicks) for k = 0 .. rows."""
    return np.array([comb(rows, k) * rate**k * (1 - rate) ** (rows - k) for k in range(rows + 1)])


@pytest.mark.parametrize("rate", [0.02, 0.06, 0.3, 0.5, 0.94])
@pytest.mark.parametrize("rows", [20, 100, 256])
def test_the_interval_misses_the_true_rate_as_seldom_as_it_says(rows: int, rate: float) -> None:
    """Against every possible number of clicks, weighed by its exact probability: 3 sigmas miss in well below 2 %."""
    missed = [not low <= rate <= high for low, high in (wilson(k / rows, rows, 3.0) for k in range(rows + 1))]
    assert binomial(rows, rate)[missed].sum() < 0.02
    alarms = [abs(shift(LabelSums(k, rows, rows), prior_of(rate))) > 0 for k in range(rows + 1)]
    assert binomial(rows, rate)[alarms].sum() < 1e-3, "the gate's five sigmas, one slice, and no tolerance at all"
    beyond = [abs(shift(LabelSums(k, rows, rows), prior_of(rate))) > 1.0 for k in range(rows + 1)]
    assert binomial(rows, rate)[beyond].sum() < 1e-6, "a whole logit beyond that: never by chance"


def test_flipped_labels_show_in_a_slice_and_missing_clicks_in_a_window() -> None:
    usual = LabelSums(600, 10_000, 10_000)
    assert shift(LabelSums(60, 64, 64), usual) > 1.0
    assert shift(LabelSums(0, 64, 64), usual) > -1.0, "no click says little so far"
    assert shift(LabelSums(0, 4096, 4096), usual) < -1.0
    assert shift(LabelSums(3, 4, 4), usual) < 1.0, "nor do three clicks"


def test_rows_that_count_for_many_are_fewer_than_they_say() -> None:
    kept = LabelSums.of(np.ones(4), np.array([1.0, 1.0, 1.0, 17.0]))
    assert kept.size == pytest.approx(20**2 / 292)
    assert LabelSums().size == LabelSums().rate == 0.0
    assert shift(LabelSums(), kept) == 0.0
