"""The grid of event time: whoever knows its three numbers cuts time alike, and a backlog needs few cuts."""

from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.app import load_app
from nodes.slots import Slots, slots_of

APP, BY_SLOTS = load_app("adsim"), load_app("adsim", {"live": {"backlog_rows": 0}})
grids = st.builds(
    lambda fine, doublings, until, since: Slots(fine, doublings, fine * until, fine * since),
    st.integers(1, 700),
    st.integers(0, 20),
    st.integers(-1000, 10_000),
    st.integers(-1000, 10_000),
)
moments = st.integers(-(10**6), 10**7)


@given(slots=grids, at_ms=moments)
def test_slots_follow_each_other_without_gap_or_overlap(slots: Slots, at_ms: int) -> None:
    begin, end = slots.last_end(at_ms), slots.end(at_ms)
    assert begin <= at_ms < end
    assert slots.end(begin) == slots.end(end - 1) == end
    assert slots.last_end(end - 1) == begin
    assert slots.last_end(end) == end
    assert slots.end(begin - 1) == begin
    for border in (slots.until_ms, slots.since_ms):
        assert slots.last_end(border) == border


@given(slots=grids, at_ms=moments)
def test_a_slot_is_as_long_as_it_may_be(slots: Slots, at_ms: int) -> None:
    begin, length = slots.last_end(at_ms), slots.length(at_ms)
    assert begin % length == 0
    assert length % slots.fine_ms == 0
    times = length // slots.fine_ms
    assert times & (times - 1) == 0
    if at_ms >= slots.until_ms:
        assert length == slots.fine_ms
        return
    assert begin + length <= slots.until_ms
    first = at_ms // (2 * length) * 2 * length  # of the next longer span
    across = first < slots.since_ms < first + 2 * length
    assert times == 2**slots.doublings or across or first + 2 * length > slots.until_ms


@settings(deadline=None)
@given(st.integers(1, 10**6), st.integers(0, 10**12), st.integers(0, 10**10))
def test_a_backlog_is_caught_up_with_in_few_slots_and_then_they_are_fine(
    rows: int, first_ms: int, span_ms: int
) -> None:
    slots, last_ms = slots_of(APP, (rows, first_ms, first_ms + span_ms)), first_ms + span_ms
    at_ms, count = first_ms, 0
    while at_ms <= last_ms:
        at_ms, count = slots.end(at_ms), count + 1
        assert count <= 3 + 2 * rows // APP.config.live.backlog_rows + 2 * 64
    assert at_ms == slots.until_ms
    assert slots.length(at_ms) == slots_of(APP).fine_ms == 500
    same = slots_of(BY_SLOTS, (rows, first_ms, last_ms))
    assert same.length(first_ms) == 500
