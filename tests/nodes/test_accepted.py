"""The memory of accepted impressions, in parts, gives what one list of all of them gives; so do rows kept by time."""

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodes import accepted
from nodes.accepted import ACCEPTED, Accepted
from nodes.time_rows import TimeRows

KEEP_MS, CLICK_MS = 160, 40


@pytest.fixture(autouse=True, scope="module")
def small_parts():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(accepted, "_FRESH_ROWS", 3)
        yield


@settings(max_examples=40, deadline=None)
@given(
    slots=st.lists(
        st.tuples(st.integers(1, 30), st.lists(st.tuples(st.sampled_from("abcdefghijk"), st.booleans()), max_size=6)),
        max_size=40,
    ),
    asked=st.lists(st.sampled_from("abcdefghijkxy"), unique=True),
    through=st.integers(0, 40),
)
def test_what_is_found_is_what_was_accepted_and_not_yet_forgotten(slots, asked, through):
    memory, model, due = Accepted(KEEP_MS, CLICK_MS), {}, 0
    for number, (step, shown) in enumerate(slots):
        due += step
        rows = {(name, due): clicked for name, clicked in shown}
        memory.add(pl.DataFrame([(*key, 7) for key in rows], schema=["_id", "_at", "_hash"], orient="row"))
        won = [(*key, due + 1) for key, clicked in rows.items() if clicked]
        memory.click(pl.DataFrame(won, schema={"_id": pl.String, "_at": pl.Int64, "_won": pl.Int64}, orient="row"))
        model |= rows
        memory.forget(due)
        if number == through:
            table, memory = memory.table(), Accepted(KEEP_MS, CLICK_MS)
            memory.restore(table, due)
        model = {key: clicked for key, clicked in model.items() if key[1] + KEEP_MS > due}
        known = {(*key, 7, key[1] + 1 if clicked and key[1] + CLICK_MS > due else None)
                 for key, clicked in model.items()}  # fmt: skip
        assert set(memory.table().rows()) == known
        found = memory.find(pl.Series(asked, dtype=pl.String))
        assert found.schema == ACCEPTED
        assert len(set(found.rows())) == found.height
        assert {row for row in found.rows() if row[0] in asked} == {row for row in known if row[0] in asked}
        assert memory.newest_ms is None or memory.newest_ms >= max((at for _, at in model), default=0)


def test_parts_are_merged_and_forgotten_so_that_there_are_few():
    memory = Accepted(KEEP_MS, CLICK_MS)
    most = 0
    for at in range(2_000):
        memory.add(pl.DataFrame({"_id": [f"i{at}"], "_at": [at], "_hash": [at]}))
        memory.forget(at)
        most = max(most, len(memory._parts) + len(memory._merged))
    assert 4 < most < 24
    memory.forget(2_000 + KEEP_MS)
    assert (memory.newest_ms, memory.table().height) == (None, 0)


@settings(max_examples=40, deadline=None)
@given(
    slots=st.lists(st.tuples(st.integers(0, 30), st.lists(st.integers(0, 90), max_size=5)), max_size=25),
    step_ms=st.sampled_from([0, 7, 1000]),
)
def test_rows_come_out_once_when_their_time_has_come(slots, step_ms):
    rows, model, due = TimeRows(pl.DataFrame(schema={"at": pl.Int64, "n": pl.Int64}), "at", step_ms), [], 0
    for number, (step, ahead) in enumerate(slots):
        new = [(due + more, number) for more in ahead]
        rows.add(pl.DataFrame(new, schema={"at": pl.Int64, "n": pl.Int64}, orient="row"))
        model += new
        due += step
        if number % 5 == 4:
            kept, rows = rows.all(), TimeRows(rows.all().clear(), "at", step_ms)
            rows.restore(kept)
        assert sorted(rows.take(due).rows()) == sorted(row for row in model if row[0] <= due)
        model = [row for row in model if row[0] > due]
        assert (rows.height, rows.least_ms) == (len(model), min((at for at, _ in model), default=None))
