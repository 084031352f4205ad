"""Law 6: a published version is whole or absent; versions only grow, except by an explicit rollback."""

from collections.abc import Iterator

import numpy as np
import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from contracts.app import App, load_app
from contracts.errors import FencedError, StoreError
from contracts.stores import WeightStore
from nodes.fakes import MemoryWeights
from nodes.publish import Snapshot, pack
from nodes.redis_weights import RedisWeights


def tiny() -> App:
    return load_app("adsim", {"model": {"embedding_dim": 1, "light": {"hidden": [2]}}})


def snapshot(app: App, number: int) -> Snapshot:
    """A version whose bias is its position, so that any mix of two shows."""
    from nodes.fake_traffic import light_arrays

    arrays = light_arrays(app, 1) | {"bias": np.array([number], np.float32)}
    arrays["mlp.1.bias"] = np.array([number], np.float32)
    made = pack(app, arrays, position=number, step=number, trained_until_ms=number)
    assert isinstance(made, Snapshot)
    return made


class Story(RuleBasedStateMachine):
    """Publishers, rollbacks and crashes in any order, beside a model of what must hold."""

    store: WeightStore
    app = tiny()

    def make(self) -> WeightStore:
        return MemoryWeights("law")

    @initialize()
    def begin(self) -> None:
        self.store = self.make()
        self.published: dict[int, int] = {}  # version -> position
        self.current: int | None = None
        self.next_position = 1
        self.epoch = self.store.take_epoch()

    @rule()
    def publish(self) -> None:
        made = snapshot(self.app, self.next_position)
        manifest = self.store.publish(made.manifest(self.app, "law", self.epoch, 0, {}), made.chunks)
        assert manifest.version > max(self.published, default=0)
        self.published[manifest.version] = self.current_position = self.next_position
        self.current = manifest.version
        self.next_position += 1

    @rule(data=st.data())
    def publish_again(self, data: st.DataObject) -> None:
        if not self.published:
            return
        version = data.draw(st.sampled_from(sorted(self.published)))
        made = snapshot(self.app, self.published[version])
        known = self.store.publish(made.manifest(self.app, "law", self.epoch, 99, {}), made.chunks)
        assert known.version == version

    @rule(data=st.data())
    def roll_back(self, data: st.DataObject) -> None:
        if not self.published:
            return
        version = data.draw(st.sampled_from(sorted(self.published)))
        self.store.rollback(version, "law")
        self.current = version

    @rule()
    def a_new_publisher_takes_over(self) -> None:
        before, self.epoch = self.epoch, self.store.take_epoch()
        made = snapshot(self.app, self.next_position)
        with pytest.raises(FencedError):
            self.store.publish(made.manifest(self.app, "law", before, 0, {}), made.chunks)

    @rule()
    def roll_back_to_none(self) -> None:
        with pytest.raises(StoreError):
            self.store.rollback(10_000, "law")

    @invariant()
    def the_pointer_names_a_whole_version(self) -> None:
        if not hasattr(self, "published"):
            return
        assert self.store.current_version() == self.current
        assert [manifest.version for manifest in self.store.versions()] == sorted(self.published)
        if self.current is not None:
            weights = self.store.fetch()
            number = self.published[self.current]
            assert (weights.manifest.position, weights.arrays["bias"][0], weights.arrays["mlp.1.bias"][0]) == (
                number,
            ) * 3


FEW = settings(max_examples=12, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck))


def test_in_memory_versions_are_immutable_and_grow() -> None:
    run_state_machine_as_test(Story, settings=FEW)


@pytest.fixture
def clean_url(valkey_url: str) -> Iterator[str]:
    yield valkey_url
    with redis.Redis.from_url(valkey_url) as raw:
        for key in raw.scan_iter("ctr:law*"):
            raw.delete(key)


def test_in_redis_versions_are_immutable_and_grow(clean_url: str) -> None:
    opened: list[RedisWeights] = []

    class RedisStory(Story):
        def make(self) -> WeightStore:
            with redis.Redis.from_url(clean_url) as raw:
                for key in raw.scan_iter("ctr:law:*"):
                    raw.delete(key)
            opened.append(RedisWeights(clean_url, "law", keep=100))
            return opened[-1]

        def teardown(self) -> None:
            opened[-1].close()

    run_state_machine_as_test(RedisStory, settings=FEW)
    assert opened
