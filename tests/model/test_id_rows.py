"""Dynamic tables against dictionaries: who owns which row, whatever comes, is admitted and goes."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.dynamic import FIRST_ROW, MISSING_ROW, OOV_ROW, DynamicTable
from contracts.errors import ContractError
from model.id_map import IdMap
from model.id_rows import IdRows, first_weights
from model.sightings import BloomSightings, ExactSightings

#: Few ids that come again, in the lowest and highest bits, and the edges of 64 bits.
IDS = st.sampled_from([0, 1, 2, 3, 5, 8, 13, 2**32, 2**63, 2**64 - 1, *(n << 56 for n in range(1, 12))])
MINIBATCHES = st.lists(st.one_of(st.lists(IDS, min_size=1, max_size=12), st.just(None)), max_size=40)


class Rules:
    """The same rules with dictionaries, one id at a time."""

    def __init__(self, table: DynamicTable) -> None:
        self.table = table
        self.owned: dict[int, int] = {}  # id -> row
        self.last: dict[int, int] = {}
        self.count: dict[int, int] = {}
        self.now, self.before = Counter[int](), Counter[int]()

    def row(self, key: int) -> int:
        return MISSING_ROW if key == 0 else self.owned.get(key, OOV_ROW)

    def admit(self, keys: list[int], now: int) -> list[int]:
        ready = {}
        for key, times in Counter(keys).items():
            if key in self.owned:
                self.last[key] = now
                self.count[key] += times
            elif key:
                self.now[key] += times
                total = self.now[key] + self.before[key] if self.table.admit_after > 1 else times
                if total >= self.table.admit_after:
                    ready[key] = total
        free = [r for r in range(FIRST_ROW, self.table.rows) if r not in self.owned.values()]
        chosen = sorted(ready, key=lambda key: (-ready[key], key))[: len(free)]
        for key, row in zip(sorted(chosen), free, strict=False):
            self.owned[key], self.last[key], self.count[key] = row, now, ready[key]
        return [self.row(key) for key in keys]

    def evict(self, now: int) -> set[int]:
        table = self.table
        going = {
            key
            for key in self.owned
            if self.count[key] < table.min_count or (table.oldest is not None and now - self.last[key] > table.oldest)
        }
        stay = sorted(self.owned.keys() - going, key=lambda key: (self.count[key], self.last[key], key))
        room = table.capacity - int(table.free_share * table.capacity)
        going |= set(stay[: max(len(stay) - room, 0)])
        gone = {self.owned.pop(key) for key in going}
        for key in self.owned:
            self.count[key] //= 2
        self.now, self.before = Counter(), self.now
        return gone


TABLES = st.builds(
    DynamicTable,
    capacity=st.integers(1, 12),
    admit_after=st.integers(2, 5),
    evict_after_rows=st.none() | st.integers(1, 60),
    min_count=st.integers(0, 2),
    free_share=st.sampled_from([0.0, 0.1, 0.5, 0.9]),
) | st.builds(DynamicTable, capacity=st.integers(1, 30), evict_after_rows=st.none() | st.integers(1, 60))


@given(TABLES, MINIBATCHES, st.integers(0, 40))
@settings(max_examples=300)
def test_rows_are_those_of_the_rules_in_dictionaries(
    table: DynamicTable, stream: list[list[int] | None], restart: int
) -> None:
    made, rules, learnt = IdRows(table, np.zeros(table.rows, np.uint64)), Rules(table), 0
    for number, keys in enumerate(stream):
        if number == restart:  # law 3: what its state does not hold does not matter
            state = made.state()
            made = IdRows(table, np.zeros(table.rows, np.uint64))
            made.load(state)
        if keys is None:
            assert set(made.evict(learnt).tolist()) == rules.evict(learnt)
        else:
            got = made.admit(np.array(keys, np.uint64), learnt)
            before = {int(key) for key in got.new_U}
            assert got.rows_M.tolist() == rules.admit(keys, learnt)
            assert before <= set(rules.owned.values())
            learnt += len(keys)
        assert {int(made.keys[row]): row for row in range(table.rows) if made.keys[row]} == rules.owned
        assert made.used == len(rules.owned) <= table.capacity
        universe = [0, 1, 99, 2**64 - 1, *rules.owned]
        assert made.look_up(np.array(universe, np.uint64)).tolist() == [rules.row(key) for key in universe]


@given(st.lists(st.lists(IDS.filter(bool), unique=True, max_size=15), max_size=8))
def test_the_map_finds_what_was_put_in_and_nothing_else(parts: list[list[int]]) -> None:
    keys, expected = np.zeros(200, np.uint64), {}
    made = IdMap(keys)
    for part in parts:
        new = [key for key in part if key not in expected]
        places = np.arange(len(expected), len(expected) + len(new))
        keys[places] = new
        made.insert(places)
        expected |= dict(zip(new, places.tolist(), strict=True))
        asked = [*expected, 0, 77, 4 << 57]
        assert made.find(np.array(asked, np.uint64)).tolist() == [expected.get(key, -1) for key in asked]
    kept = np.arange(0, len(expected), 2)
    made.renew(kept)
    found = made.find(keys[: len(expected)])
    assert found[::2].tolist() == kept.tolist()
    assert (found[1::2] == -1).all()


@given(st.lists(st.one_of(st.lists(IDS.filter(bool), min_size=1, max_size=9), st.none()), max_size=30))
def test_a_bloom_filter_counts_too_much_or_right_never_too_little(stream: list[list[int] | None]) -> None:
    exact, small, large = ExactSightings(), BloomSightings(64), BloomSightings(1 << 16)
    for keys in stream:
        if keys is None:
            for counter in (exact, small, large):
                counter.turn()
            continue
        keys_U, counts_U = np.unique(np.array(keys, np.uint64), return_counts=True)
        right = exact.add(keys_U, counts_U)
        assert (small.add(keys_U, counts_U) >= right).all()
        assert large.add(keys_U, counts_U).tolist() == right.tolist()


def test_a_small_bloom_filter_errs_so_the_test_above_can_see_it() -> None:
    small = BloomSightings(64)
    many = np.arange(1, 200, dtype=np.uint64) * np.uint64(0x9E37_79B9_7F4A_7C15)
    counted = [small.add(some, np.ones(some.size, np.int64)) for some in np.array_split(many, 20)]
    assert (np.concatenate(counted) > 1).any()


def test_first_weights_are_normal_and_hang_on_id_and_seed_alone() -> None:
    keys = np.arange(1, 20_001, dtype=np.uint64) * np.uint64(0x9E37_79B9_7F4A_7C15)
    drawn = first_weights(keys, 5, 0.1, 7)
    assert drawn.dtype == np.float32
    assert np.abs(drawn.mean(axis=0)).max() < 0.004
    assert np.abs(drawn.std(axis=0) - 0.1).max() < 0.003
    assert np.abs(np.corrcoef(drawn.T) - np.eye(5)).max() < 0.03
    assert (np.abs(drawn) > 0.196).mean() == pytest.approx(0.05, abs=0.005)
    shuffled = np.random.default_rng(1).permutation(keys.size)
    assert (first_weights(keys[shuffled], 5, 0.1, 7) == drawn[shuffled]).all()
    assert (first_weights(keys, 5, 0.1, 8) != drawn).mean() > 0.99


@pytest.mark.parametrize("capacity", [1000, 16_384, 16_385])
def test_an_id_takes_the_memory_that_is_stated(capacity: int) -> None:
    rows = IdRows(DynamicTable(capacity=capacity), np.zeros(capacity + 2, np.uint64))
    rows.admit(np.arange(1, capacity + 1, dtype=np.uint64), 0)
    assert rows.used == capacity
    assert 32 <= rows.nbytes / capacity <= 40.1


def flooded(ids: int, capacity: int, admission: str) -> tuple[IdRows, set[int]]:
    """So many distinct ids, and a thousand that come again in every minibatch; memory in bytes as it went."""
    table = DynamicTable(
        capacity=capacity,
        admit_after=2,
        admission=admission,
        bloom_cells=1 << 20,
        barrier_rows=capacity,  # type: ignore[arg-type]
    )
    rows, seen = IdRows(table, np.zeros(table.rows, np.uint64)), set()
    again = np.arange(1, 1001, dtype=np.uint64) * np.uint64(0xD1B5_4A32_D192_ED03)
    learnt = 0
    for start in range(0, ids, 4096):
        fresh = np.arange(start + 1, min(start + 4096, ids) + 1, dtype=np.uint64) * np.uint64(0x9E37_79B9_7F4A_7C15)
        if learnt // capacity < (learnt + fresh.size) // capacity:
            rows.evict(learnt)
            seen.add(rows.nbytes)
        got = rows.admit(np.concatenate([np.repeat(fresh, 2), again]), learnt)
        assert got.rows_M.min() >= OOV_ROW
        learnt += fresh.size
        assert (rows.keys[rows.look_up(again)] == again).all() or start == 0
    return rows, seen


@pytest.mark.parametrize("admission", ["exact", "bloom"])
def test_ids_without_end_take_no_memory_without_end(admission: str) -> None:
    rows, seen = flooded(400_000, 50_000, admission)
    assert rows.used <= 50_000
    assert max(list(seen)) <= 1.5 * min(list(seen))


@pytest.mark.slow
@pytest.mark.parametrize("admission", ["exact", "bloom"])
def test_ten_million_ids_take_the_memory_of_the_table(admission: str) -> None:
    rows, seen = flooded(10_000_000, 1_000_000, admission)
    assert rows.used <= 1_000_000
    assert max(list(seen)) <= 1.5 * min(list(seen))


@pytest.mark.parametrize(
    ("given_", "told"),
    [
        ({"barrier_s": 5.0, "barrier_rows": 7}, "two clocks for the same barriers"),
        ({"evict_after_s": 5.0, "evict_after_rows": 7}, "two clocks for the same age"),
        ({"min_count": 3, "admit_after": 2}, "min_count at most admit_after"),
        ({"admission": "bloom", "admit_after": 256}, 'set admission = "exact"'),
        ({"admission": "bloom"}, "counts nothing with admit_after = 1"),
        ({"bloom_cells": 100}, "no power of two; take 128"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(given_: dict, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        DynamicTable(capacity=10, **given_)


def test_state_of_another_table_is_refused() -> None:
    table = DynamicTable(capacity=10, admit_after=2)
    state = IdRows(table, np.zeros(table.rows, np.uint64)).state()
    for other, told in (
        (DynamicTable(capacity=11, admit_after=2), "set capacity back"),
        (DynamicTable(capacity=10, admit_after=2, admission="bloom"), "set admission and admit_after back"),
    ):
        with pytest.raises(ContractError, match=told):
            IdRows(other, np.zeros(other.rows, np.uint64)).load(state)
