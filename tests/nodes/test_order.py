"""The log's order does not depend on arrival."""

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from nodes.order import LogOrder


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 40), st.text("ab", min_size=1)), max_size=40, unique=True),
    cuts=st.lists(st.integers(1, 9), min_size=1, max_size=8),
    max_rows=st.integers(1, 7),
)
def test_rows_are_numbered_in_event_time_and_id_order_however_they_come(rows, cuts, max_rows):
    """Each part comes with rows at or after the time released so far, as a watermark promises."""
    order, out = LogOrder(["at_ms", "id"]), []
    arriving = sorted(sorted(rows, reverse=True), key=lambda row: row[0] // 8)  # backwards within 8 ms
    released = -1
    while arriving:
        cut = cuts[len(arriving) % len(cuts)]
        part, arriving = arriving[:cut], arriving[cut:]
        order.add(pl.DataFrame(part, schema={"at_ms": pl.Int64, "id": pl.String}, orient="row"))
        released = min((at // 8 * 8 for at, _ in arriving), default=99) - 1
        out += list(order.release(released, max_rows))
    out += list(order.release(None, max_rows))
    assert [row for _, part in out for row in part.rows()] == sorted(rows)
    assert [first for first, _ in out] == [sum(p.height for _, p in out[:n]) for n in range(len(out))]
    assert all(part.height <= max_rows for _, part in out)


def test_nothing_is_released_before_its_time():
    order = LogOrder(["at_ms", "id"])
    order.add(pl.DataFrame({"at_ms": [5, 6], "id": ["a", "b"]}))
    assert [part["id"].to_list() for _, part in order.release(5, 10)] == [["a"]]
    held = order.held()
    assert held is not None
    assert held["id"].to_list() == ["b"]
