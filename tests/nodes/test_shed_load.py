"""What is given up under load: as little as can be, by what scoring has cost lately."""

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodes.shed_load import LoadShedder


def trained(own_ms: float, each_ms: float, *, odd: int = 0) -> LoadShedder:
    shedder = LoadShedder()
    for number in range(20):
        size = 100 * (1 + number % 5)
        shedder.measured(size, 1000.0 if number % 7 == 6 and odd else own_ms + each_ms * size)
    return shedder


@settings(deadline=None)
@given(st.lists(st.integers(-50, 300), max_size=7), st.floats(0, 20), st.floats(0, 0.5))
def test_no_fewer_can_be_given_up_where_requests_are_of_one_size(left: list[int], own: float, each: float) -> None:
    shedder = trained(own, each)
    given_up = shedder.hopeless([100] * len(left), left)
    kept = [at for at in range(len(left)) if at not in given_up]
    most = max(
        size
        for size in range(len(left) + 1)
        for some in combinations(left, size)
        if all(each_left >= shedder.cost_ms(100 * size) for each_left in some) or not some
    )
    probe = most == 0 and max(left, default=-1) >= 0
    assert len(kept) == most + probe
    assert all(left[at] >= 0 for at in kept)
    if not probe:
        assert all(left[at] >= shedder.cost_ms(100 * len(kept)) for at in kept), "all that is kept is in time"


def test_an_odd_micro_batch_sheds_nothing_and_a_new_cost_is_learnt() -> None:
    assert trained(2, 0.01, odd=1).cost_ms(1000) == pytest.approx(12)
    shedder = trained(2, 0.01)
    for number in range(30):
        shedder.measured(100 * (1 + number % 5), 50)
    assert shedder.cost_ms(1000) == pytest.approx(50)


def test_an_estimate_that_is_too_high_comes_down_again() -> None:
    shedder = LoadShedder()
    for _ in range(5):
        assert shedder.hopeless([1000] * 10, [50.0] * 10) == []
        shedder.measured(1000, 10_000)
    for _ in range(40):
        kept = 10 - len(shedder.hopeless([1000] * 10, [50.0] * 10))
        assert kept >= 1
        shedder.measured(1000 * kept, 0.5 * kept)
    assert shedder.hopeless([1000] * 10, [50.0] * 10) == []
    assert shedder.hopeless([1000], [-1.0]) == [0], "what is past its deadline is no probe"
