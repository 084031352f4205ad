"""A core in memory and its journal in Beam's state: whatever is lost or goes back, the core is the one of the state."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodes import journaled
from nodes.journaled import Journaled


class Bag:
    """A bag's handle; it promises no order."""

    def __init__(self, items=()):
        self.items, self.reads = list(items), 0

    def read(self):
        self.reads += 1
        random.Random(len(self.items)).shuffle(self.items)
        return list(self.items)

    def add(self, item):
        assert isinstance(item, bytes)
        self.items.append(item)

    def clear(self):
        self.items = []


class Cell:
    def __init__(self, value=None):
        self.value = value

    def read(self):
        return self.value

    def write(self, value):
        self.value = value


class State:
    """Beam's state of one key, as a runner commits it or goes back to it."""

    def __init__(self):
        self.snapshot, self.journal, self.token = Bag(), Bag(), Cell()

    @property
    def handles(self):
        return self.snapshot, self.journal, self.token

    def copy(self):
        other = State()
        other.snapshot, other.journal = Bag(self.snapshot.items), Bag(self.journal.items)
        other.token = Cell(self.token.value)
        return other


class Log:
    """A core that remembers every entry in its order."""

    def __init__(self):
        self.entries, self.restored = [], 0

    def apply(self, entry):
        if entry == b"bad":
            self.entries.append(b"half of it")
            raise ValueError("bad entry")
        self.entries.append(entry)
        return len(self.entries)

    def snapshot(self):
        return {"entries": b"\n".join(self.entries), "empty": b""}

    def restore(self, parts):
        assert parts["empty"] == b""
        self.entries = parts["entries"].split(b"\n") if parts["entries"] else []


def put(node, state, *entries, key=0):
    with node.open(key, *state.handles) as held:
        for entry in entries:
            held.apply(entry)
        return list(held.core.entries)


def test_in_the_good_case_nothing_is_read_back():
    node, state = Journaled(Log), State()
    for number in range(5):
        assert len(put(node, state, b"%d" % number)) == number + 1
    assert (state.journal.reads, state.snapshot.reads) == (1, 1)  # at the very first, when there is nothing
    assert len(state.journal.items) == 5


def test_a_runner_that_goes_back_to_a_checkpoint_gets_the_core_of_that_checkpoint():
    node, state = Journaled(Log), State()
    put(node, state, b"a", b"b")
    checkpoint = state.copy()
    put(node, state, b"c")
    assert put(node, checkpoint, b"d") == [b"a", b"b", b"d"]  # the memory knew c
    assert put(node, state, b"e") == [b"a", b"b", b"c", b"e"]  # and a moment later d


def test_a_bundle_whose_state_was_never_committed_leaves_nothing_behind():
    node, state = Journaled(Log), State()
    put(node, state, b"a")
    put(node, state.copy(), b"lost")
    assert put(node, state, b"b") == [b"a", b"b"]


def test_a_call_that_fails_half_way_is_forgotten():
    node, state = Journaled(Log), State()
    put(node, state, b"a")
    with pytest.raises(ValueError, match="bad entry"):
        put(node, state.copy(), b"b", b"bad")
    assert put(node, state, b"c") == [b"a", b"c"]


def test_another_process_goes_on_where_the_state_stands(monkeypatch):
    node, state = Journaled(Log), State()
    put(node, state, b"a", b"b")
    monkeypatch.setattr(journaled, "_MEMORY", {})
    assert put(node, state, b"c") == [b"a", b"b", b"c"]


def test_keys_and_nodes_do_not_share_their_cores():
    node, other, states = Journaled(Log), Journaled(Log), [State() for _ in range(3)]
    put(node, states[0], b"a", key=0)
    put(node, states[1], b"b", key=1)
    put(other, states[2], b"c", key=0)
    assert [put(node, states[0], key=0), put(node, states[1], key=1)] == [[b"a"], [b"b"]]


def test_a_key_whose_state_was_cleared_begins_anew():
    node = Journaled(Log)
    put(node, State(), b"a")
    assert put(node, State(), b"b") == [b"b"]


def test_the_journal_becomes_a_snapshot_when_it_has_outgrown_the_last(monkeypatch):
    monkeypatch.setattr(journaled, "_PIECE_BYTES", 7)
    node, state = Journaled(Log, journal_bytes=20), State()
    longest, told = 0, []
    for number in range(60):
        told.append(b"entry %d" % number)
        assert put(node, state, told[-1]) == told
        longest = max(longest, len(state.journal.items))
    assert len(state.snapshot.items) > 5
    assert longest < 50
    monkeypatch.setattr(journaled, "_MEMORY", {})
    assert put(node, state) == told


def test_what_cannot_be_made_again_is_in_the_first_snapshot(monkeypatch):
    made = []

    def make():
        made.append(Log())
        made[-1].entries = [b"from the position"] if len(made) == 1 else []
        return made[-1]

    node, state = Journaled(make, snapshot_first=True), State()
    put(node, state, b"a")
    monkeypatch.setattr(journaled, "_MEMORY", {})
    assert put(node, state, b"b") == [b"from the position", b"a", b"b"]


@settings(max_examples=40, deadline=None)
@given(
    moves=st.lists(st.tuples(st.sampled_from(["put", "fail", "lose", "back", "save"]), st.integers(1, 3)), max_size=25),
    journal_bytes=st.sampled_from([1, 8, 1000]),
)
def test_any_failures_and_restores_give_the_entries_that_were_committed(moves, journal_bytes):
    node = Journaled(Log, journal_bytes=journal_bytes)
    state, told = State(), []
    saved = state.copy(), []
    for number, (move, entries) in enumerate(moves):
        new = [b"%d.%d" % (number, n) for n in range(entries)]
        if move == "save":
            saved = state.copy(), list(told)
        elif move == "back":
            state, told = saved[0].copy(), list(saved[1])
        elif move == "lose":
            put(node, state.copy(), *new)
        elif move == "fail":
            with pytest.raises(ValueError, match="bad"):
                put(node, state.copy(), *new, b"bad")
        else:
            told += new
            assert put(node, state, *new) == told
    assert put(node, state) == told
