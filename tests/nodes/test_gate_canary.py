"""Scores on the canary set: figures against plain sums, limits that fire on their fault, and requests from a file."""

import itertools

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.app import App
from contracts.errors import ContractError
from contracts.sections import Gate
from nodes.fake_traffic import examples, light_arrays, requests
from nodes.gate.canary import NewestExamples, RequestFile, Scores, judge_scores, psi, rank_correlation, shift_of
from nodes.gate.norms import norms, outgrown
from nodes.light_numpy import LightNet

RNG = np.random.default_rng(3)
LIVE = RNG.normal(-3, 1, 2000).astype(np.float32)


def reason(logit: np.ndarray, live: np.ndarray | None = LIVE, *, better: bool = False) -> str:
    shift = shift_of(Scores(logit), None if live is None else Scores(live), "sigmoid")
    fault = judge_scores(shift, Gate(), better=better)
    return "" if fault is None else fault.reason


def test_each_limit_fires_on_its_own_fault_and_none_on_a_healthy_step() -> None:
    assert reason(LIVE + RNG.normal(0, 0.2, 2000)) == ""
    assert "all the same" in reason(np.full(2000, -3.0))
    assert "collapsed" in reason(-3 + (LIVE + 3) * 0.05)
    assert "saturated" in reason(np.where(np.arange(2000) < 100, -20.0, LIVE))
    assert "2.00 logits from" in reason(LIVE + 2)
    assert "stability index" in reason(LIVE + 1.4)
    assert "ranks otherwise" in reason(RNG.permutation(LIVE))
    assert "not finite" in reason(np.where(np.arange(2000) < 1, np.nan, LIVE))


def test_a_shift_that_predicts_better_is_no_fault_but_a_constant_is() -> None:
    assert reason(LIVE + 2, better=True) == reason(-6 - LIVE, better=True) == ""
    assert "all the same" in reason(np.full(2000, -3.0), better=True)
    assert "saturated" in reason(np.full(2000, 30.0) + LIVE, better=True)


def test_the_first_version_and_few_rows_are_judged_as_far_as_they_can_be() -> None:
    assert reason(LIVE + 9, None) == ""
    assert "all the same" in reason(np.zeros(2000), None)
    assert reason(np.zeros(10), None) == ""


@given(st.integers(100, 400), st.floats(-2, 2), st.integers(0, 50))
def test_the_stability_index_is_the_sum_over_tenths(rows: int, by: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    before, now = rng.normal(size=rows), rng.normal(by, 1, rows)
    edges = [-np.inf, *np.quantile(before, np.arange(1, 10) / 10), np.inf]
    expected = 0.0
    for low, high in itertools.pairwise(edges):
        p, q = (max(sum(low <= x < high for x in each) / rows, 1e-4) for each in (now, before))
        expected += (p - q) * np.log(p / q)
    assert psi(now, before) == pytest.approx(expected)
    assert psi(before, before) == 0.0 <= psi(now, before)


def test_ranks_are_compared_within_each_request() -> None:
    request = np.array(["a"] * 3 + ["b"] * 3 + ["c"] * 2)
    now = Scores(np.array([1.0, 2, 3, 13, 12, 11, 5, 4]), request)
    before = Scores(np.array([1.0, 2, 3, 11, 12, 13, 4, 5]), request)
    assert rank_correlation(now, before) == pytest.approx(0.0), "(1 - 1) / 2: two candidates have no rank to speak of"
    assert rank_correlation(Scores(now.logit), Scores(before.logit)) > 0.7
    assert rank_correlation(Scores(np.ones(5)), Scores(np.arange(5.0))) is None


def test_the_ring_holds_the_newest_rows(adsim: App) -> None:
    ring, arrays = NewestExamples(adsim, 300), light_arrays(adsim)
    assert ring.scores(arrays, "sigmoid").logit.size == 0
    rows = [examples(adsim, 200, seed) for seed in range(3)]
    for part in rows:
        ring.add(part)
    expected = LightNet(adsim.layout, arrays).logits(pl.concat(rows).tail(300))
    np.testing.assert_array_equal(ring.scores(arrays, "sigmoid").logit, expected)


def test_requests_from_a_file_are_scored_as_a_scorer_does(adsim: App, tmp_path) -> None:
    path = tmp_path / "canary.ndjson"
    path.write_bytes(b"\n".join([*requests(adsim, 30, 5), b"{not a request}"]) + b"\n")
    canary = RequestFile(adsim, path, rows=60)
    one, other = (canary.scores(light_arrays(adsim, seed), "sigmoid") for seed in (0, 1))
    assert one.logit.size == other.logit.size >= 60
    assert one.request is not None
    assert list(one.request) == list(other.request)
    assert not np.array_equal(one.logit, other.logit)


@pytest.mark.parametrize(("content", "said"), [(None, "cannot be read"), (b"{}\n", "no request that the app")])
def test_a_file_that_holds_no_requests_is_one_sentence(adsim: App, tmp_path, content: bytes | None, said: str) -> None:
    path = tmp_path / "canary.ndjson"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ContractError, match=said):
        RequestFile(adsim, path, rows=10)


def test_norms_may_grow_only_so_much_against_the_live_version() -> None:
    live = norms({"wide": np.ones(100, np.float32), "bias": np.zeros(1, np.float32)})
    assert outgrown({"wide": np.full(100, 9.9), "bias": np.array([-4.0])}, live, Gate()) is None
    fault = outgrown({"wide": np.full(100, 11.0)}, live, Gate())
    assert fault is not None
    assert (fault.kind, "11 times" in fault.reason) == ("norms", True)
    assert outgrown({"wide": np.full(100, 11.0)}, {}, Gate()) is None, "with nothing live, only the bound holds"
