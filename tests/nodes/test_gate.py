"""The gate's judgement of a candidate, from sums over a window."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.sections import Gate
from nodes.gate import Window, judge, unfit


def window(label: list[float], p: list[float], weight: list[float] | None = None) -> Window:
    made = Window()
    made.add(np.array(label), np.array(p), np.ones(len(label)) if weight is None else np.array(weight))
    return made


def test_a_candidate_as_good_as_the_live_version_passes() -> None:
    assert judge(window([1, 0], [0.6, 0.4]), window([1, 0], [0.6, 0.4]), Gate()) is None


def test_a_candidate_beyond_the_allowed_increase_is_held_with_both_figures() -> None:
    worse, live = window([1, 0], [0.5, 0.5]), window([1, 0], [0.6, 0.4])
    assert judge(worse, live, Gate(max_logloss_increase=0.5)) is None
    assert judge(worse, live, Gate(max_logloss_increase=0.3)) == (
        "logloss",
        "logloss 0.6931 is more than 30 % above the 0.5108 of what is live",
    )


@pytest.mark.parametrize(("p", "held"), [(0.15, False), (0.11, False), (0.05, True), (0.25, True)])
def test_calibration_must_lie_between_its_bounds(p: float, held: object) -> None:
    label = [1.0] + [0.0] * 6  # one click in seven
    candidate = window(label, [p] * 7)
    said = judge(candidate, candidate, Gate(calibration=(0.7, 1.4)))
    assert (said is not None) is held
    assert not held or "calibration" in str(said)


def test_a_window_that_the_live_version_finds_absurd_is_not_believed() -> None:
    """Flipped labels make a candidate that learnt them look good; the live version gives them away."""
    flipped, live = window([1] * 9 + [0], [0.9] * 9 + [0.1]), window([1] * 9 + [0], [0.1] * 9 + [0.9])
    assert "labels look wrong" in str(judge(flipped, live, Gate()))
    assert judge(flipped, live, Gate(), live_is_version=False) is None


def test_a_window_without_clicks_holds_only_who_predicts_many() -> None:
    few, many = window([0] * 100, [0.01] * 100), window([0] * 100, [0.2] * 100)
    assert judge(few, few, Gate()) is None
    assert "20.0 clicks in a window that has none" in str(judge(many, many, Gate()))


def test_no_rows_no_judgement() -> None:
    assert "no row" in str(judge(Window(), Window(), Gate()))


def test_predictions_that_are_no_numbers_are_held() -> None:
    assert "not finite" in str(judge(window([1, 0], [np.nan, 0.5]), window([1, 0], [0.5, 0.5]), Gate()))


@settings(max_examples=50)
@given(
    st.lists(st.tuples(st.integers(0, 1), st.floats(0.001, 0.999), st.floats(0.1, 10)), min_size=2, max_size=40),
    st.data(),
)
def test_sums_of_parts_are_the_sum_of_the_whole(rows: list[tuple[int, float, float]], data: st.DataObject) -> None:
    cut = data.draw(st.integers(1, len(rows) - 1))
    label, p, weight = (np.array(part, float) for part in zip(*rows, strict=True))
    whole, parts = Window(), Window()
    whole.add(label, p, weight)
    parts.add(label[:cut], p[:cut], weight[:cut])
    parts.add(label[cut:], p[cut:], weight[cut:])
    assert parts.rows == whole.rows
    assert parts.logloss == pytest.approx(whole.logloss)
    assert parts.predicted == pytest.approx(whole.predicted)
    assert parts.max_abs_logit == whole.max_abs_logit


@pytest.mark.parametrize(("value", "said"), [(np.inf, "infinity"), (np.nan, "NaN"), (-2e4, "run away"), (9e3, None)])
def test_weights_that_are_no_numbers_or_have_run_away_are_named(value: float, said: str | None) -> None:
    found = unfit({"fine": np.zeros(3, np.float32), "wide": np.array([0, value], np.float32)})
    assert (found is None) == (said is None)
    assert said is None or (said in str(found) and "'wide'" in str(found))
