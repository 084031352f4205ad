"""A version that came by deltas is bit for bit the full one, whatever came before it and whoever reads it."""

import uuid
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from contracts.weights import TouchedRows, Weights
from nodes.fakes import MemoryWeights
from nodes.publish import Publisher
from nodes.redis_weights import RedisWeights
from nodes.weight_buffers import WeightBuffers
from tests.nodes.tiny_nets import as_served, bits, tiny_app, tiny_arrays

ROWS = st.sets(st.integers(0, 11), max_size=6).map(sorted).map(tuple)
VALUES = st.sampled_from([0.0, -0.0, 0.25, -1.5, 0.1, 0.1 + 1e-6, 1e-9, 900.0])
KINDS: dict[str, int] = {}


class Chains(RuleBasedStateMachine):
    """A trainer, its publisher and three kinds of reader, beside full copies of what was published."""

    app = tiny_app(full_every=3, max_delta_share=0.5, keep=3)

    def make(self) -> MemoryWeights | RedisWeights:
        return MemoryWeights("adsim")

    @initialize()
    def begin(self) -> None:
        self.store = self.make()
        self.arrays = tiny_arrays(self.app)
        self.touched: set[int] = set()
        self.step = self.taken = 0
        self.expected: dict[int, dict[str, bytes]] = {}
        self.out: list[tuple[Weights, dict[str, bytes]]] = []  # what the buffers handed out last, and its bytes
        self.followed: Weights | None = None
        self.buffers = WeightBuffers(self.store)
        self.restart()

    @rule()
    def restart(self) -> None:
        """A new process: it knows nothing of what moved."""
        self.publisher = Publisher(self.app, self.store, lambda: 7, force=True)

    @rule(rows=ROWS, value=VALUES, idle=ROWS)
    def learn(self, rows: tuple[int, ...], value: float, idle: tuple[int, ...]) -> None:
        for name in ("embedding", "wide"):
            self.arrays[name][list(rows)] = value
        self.arrays["bias"] += 0.01
        self.touched |= {*rows, *idle}
        self.step += 1

    @rule(evicted=ROWS, published=st.integers(0, 3), known=st.integers(0, 4))
    def offer(self, evicted: tuple[int, ...], published: int, known: int) -> None:
        """A candidate; some are overtaken by the next, and at times nobody knows what moved."""
        touched = TouchedRows(self.taken, np.array(sorted(self.touched), np.int64)) if known else None
        self.taken, self.touched = self.step, set()
        self.publisher.offer(
            self.arrays, position=self.step, step=self.step, trained_until_ms=1, touched=touched,
            evicted=np.array(evicted, np.int64),
        )  # fmt: skip
        for name in ("embedding", "wide"):  # as a trainer's own tables do
            self.arrays[name][list(evicted)] = 0
        if not published:
            return
        made = self.publisher.finish()
        assert made is not None
        version = self.store.current_version()
        if made.version is None:
            assert "again" in made.reason
            return
        assert version == made.version
        served = as_served(self.arrays)
        assert self.expected.setdefault(version, served) == served, "a version never changes"
        kind = self.store.manifest(version).kind
        KINDS[kind] = KINDS.get(kind, 0) + 1

    @rule(data=st.data())
    def roll_back(self, data: st.DataObject) -> None:
        held = [manifest.version for manifest in self.store.versions()]
        if held:
            self.store.rollback(data.draw(st.sampled_from(held)), "law")

    @rule(release=st.integers(0, 3))
    def advance(self, release: int) -> None:
        """The buffers go where the pointer is; what they gave before stays as it was."""
        version = self.store.current_version()
        if version is None:
            return
        made = self.buffers.advance(version)
        assert bits(made.arrays) == self.expected[version]
        if self.out and made.changed is not None:
            before = self.out[-1][0].arrays
            for name, rows in made.changed.items():
                differ = (made.arrays[name] != before[name]).reshape(12, -1).any(axis=1)
                assert set(np.flatnonzero(differ)) <= set(rows.tolist())
        for weights, whole in self.out[-1:]:
            assert bits(weights.arrays) == whole, "it was handed out before and is written over"
        if not release and self.out:
            self.buffers.release(made)
            return
        self.out = [*self.out[-1:], (made, bits(made.arrays))]

    @rule()
    def follow(self) -> None:
        """A reader that keeps its own copy asks for what it lacks."""
        version = self.store.current_version()
        if version is None:
            return
        base = self.followed
        whole = None if base is None else bits(base.arrays)
        self.followed = self.store.fetch(version, base=base)
        assert bits(self.followed.arrays) == self.expected[version]
        if base is not None:
            assert bits(base.arrays) == whole, "the base is the reader's own"
            assert not any(np.shares_memory(base.arrays[n], self.followed.arrays[n]) for n in base.arrays)

    @invariant()
    def every_version_is_what_it_was_made_of(self) -> None:
        for manifest in self.store.versions() if hasattr(self, "expected") else ():
            assert bits(self.store.fetch(manifest.version).arrays) == self.expected[manifest.version]


MANY = settings(
    max_examples=20,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=False,  # or `until_seen` would draw the same again
)


def until_seen(machine: type[RuleBasedStateMachine], seen: Callable[[], bool]) -> None:
    """Run the machine, and again where chance left something out that the law is about."""
    for _ in range(20):
        run_state_machine_as_test(machine, settings=MANY)
        if seen():
            return
    raise AssertionError("twenty runs never saw all that the law is about")


def test_in_memory_chains_give_what_full_versions_would() -> None:
    KINDS.clear()
    until_seen(Chains, lambda: {"full", "delta"} <= KINDS.keys())


class Thin(Chains):
    """First-order weights of which most are 0, and travel without."""

    app = tiny_app("ftrl", full_every=3, max_delta_share=0.5, keep=3)

    @initialize()
    def begin(self) -> None:
        super().begin()
        self.arrays["wide"][3:] = 0

    @rule(rows=ROWS, value=VALUES, idle=ROWS)
    def learn(self, rows: tuple[int, ...], value: float, idle: tuple[int, ...]) -> None:
        self.arrays["embedding"][list(rows)] = value
        self.arrays["wide"][list(rows)] = 0
        if idle:
            self.arrays["wide"][list(rows[-1:])] = value
        self.arrays["bias"] += 0.01
        self.touched |= {*rows, *idle}
        self.step += 1

    @invariant()
    def they_are_left_out(self) -> None:
        for manifest in self.store.versions() if hasattr(self, "expected") else ():
            THIN[manifest.kind, "wide_rows" in {blob.name for blob in manifest.blobs}] = manifest.version


THIN: dict[tuple[str, bool], int] = {}


def test_chains_without_zeros_give_what_full_versions_would() -> None:
    THIN.clear()
    until_seen(Thin, lambda: {("full", True), ("delta", True), ("delta", False)} <= THIN.keys())


@pytest.fixture
def opened() -> Iterator[list[RedisWeights]]:
    stores: list[RedisWeights] = []
    yield stores
    for store in stores:
        store.close()


def test_in_valkey_chains_give_what_full_versions_would(valkey_url: str, opened: list[RedisWeights]) -> None:
    class InValkey(Chains):
        def make(self) -> RedisWeights:
            opened.append(RedisWeights(valkey_url, uuid.uuid4().hex, keep=3))
            return opened[-1]

    run_state_machine_as_test(InValkey, settings=settings(MANY, max_examples=5, stateful_step_count=15))
    assert opened
