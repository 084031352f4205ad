"""What expires does not hang on what a publisher remembers, and remembering saves most of the asking."""

import uuid
from contextlib import closing
from typing import Any

import numpy as np
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts import names
from contracts.app import App
from contracts.weights import TouchedRows, WeightManifest
from nodes.publish import Publisher
from nodes.redis_weights import RedisWeights
from tests.nodes.tiny_nets import tiny_app, tiny_arrays


class Forgetful(RedisWeights):
    """Knows nothing of its former publishes."""

    def publish(self, manifest: WeightManifest, chunks: Any) -> WeightManifest:
        self._released, self._retired, self._bases, self._verified = None, set(), {}, {}
        return super().publish(manifest, chunks)


class Trainer:
    """Moves one row, publishes, and is not held up by rollbacks."""

    def __init__(self, app: App, store: RedisWeights) -> None:
        self.store, self.publisher = store, Publisher(app, store, lambda: 5, force=True)
        self.arrays, self.step = tiny_arrays(app), 0

    def publish(self) -> None:
        self.step += 1
        self.arrays["embedding"][self.step % 12] += 1
        touched = TouchedRows(self.step - 1, np.array([self.step % 12]))
        self.publisher.offer(
            self.arrays, position=self.step, step=self.step, trained_until_ms=1, touched=touched
        )  # fmt: skip
        self.publisher.finish()

    def expiring(self, client: redis.Redis) -> dict[int, bool]:
        """Version -> whether its manifest and its bytes expire."""
        found = {}
        for version in range(1, self.step + 1):
            keys = names.manifest_key(self.store.model, version), names.blob_key(self.store.model, version, 0)
            first, second = (client.ttl(key) > 0 for key in keys)
            assert first == second
            found[version] = first
        return found


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.none() | st.integers(0, 30), min_size=3, max_size=14), st.integers(1, 4))
def test_the_same_versions_expire_whether_a_publisher_remembers_or_not(
    valkey_url: str, said: list[int | None], full_every: int
) -> None:
    """`said`: publish where None, else roll back, by another client, to that version of those there are."""
    app, name = tiny_app(full_every=full_every, max_delta_share=0.9), uuid.uuid4().hex
    stores = RedisWeights(valkey_url, name + "-a", keep=2), Forgetful(valkey_url, name + "-b", keep=2)
    trainers = [Trainer(app, store) for store in stores]
    with redis.Redis.from_url(valkey_url) as client:
        for each in [None, None, *said, None]:
            for trainer in trainers:
                if each is None:
                    trainer.publish()
                else:
                    with closing(RedisWeights(valkey_url, trainer.store.model)) as another:
                        another.rollback(1 + each % trainer.step, "a test")
            one, other = (trainer.expiring(client) for trainer in trainers)
            assert one == other
    for store in stores:
        store.close()


def test_a_publish_asks_less_than_half_of_what_it_would_without_memory(
    valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0
    really = redis.connection.Connection.send_packed_command

    def counted(self: Any, command: Any, *more: Any, **known: Any) -> Any:
        nonlocal asked
        asked += sum(bytes(part).count(b"$") for part in command)  # each word of a command begins with one
        return really(self, command, *more, **known)

    monkeypatch.setattr(redis.connection.Connection, "send_packed_command", counted)
    said = []
    for kind in (RedisWeights, Forgetful):
        store = kind(valkey_url, uuid.uuid4().hex, keep=2)
        trainer = Trainer(tiny_app(full_every=16, max_delta_share=0.9), store)
        for _ in range(17 * 3):
            trainer.publish()
        before = asked
        for _ in range(17):
            trainer.publish()
        said.append(asked - before)
        store.close()
    assert said[0] < said[1] / 2
