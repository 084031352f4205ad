"""What stands in a real store beside the versions: held candidates, and who serves what."""

import uuid
from collections.abc import Iterator

import pytest
import redis

from contracts import names
from contracts.app import App
from contracts.errors import StoreError
from nodes import redis_serving
from nodes.fake_traffic import light_arrays
from nodes.gate import Decision
from nodes.held import record_of
from nodes.pack import Snapshot, pack
from nodes.redis_serving import Serving
from nodes.redis_weights import RedisWeights


@pytest.fixture
def store(valkey_url: str) -> Iterator[RedisWeights]:
    made = RedisWeights(valkey_url, f"s[{uuid.uuid4().hex[:8]}]*", who="me@here:1")
    yield made
    made.close()


def held(position: int) -> dict[str, str]:
    figures: dict[str, float | str | None] = {"ne": 1.5, "live_version": None}
    return record_of(Decision("held", "labels are wrong", position, 2, None, figures, kind="labels", at_ms=99))


def publish(store: RedisWeights, app: App, number: int) -> int:
    made = pack(app, light_arrays(app, number), position=number, step=1, trained_until_ms=1)
    assert isinstance(made, Snapshot)
    return store.publish(made.manifest(app, store.model, store.epoch(), 0, {}), made.chunks).version


def test_held_candidates_are_on_the_record_oldest_first_and_move_nothing(store: RedisWeights) -> None:
    store.take_epoch()
    for position in (7, 8, 9):
        store.record_held(held(position))
    assert [entry["position"] for entry in store.held(2)] == ["8", "9"]
    assert store.held(1) == [
        {
            "at_ms": "99", "position": "9", "step": "2", "kind": "labels", "reason": "labels are wrong",
            "figures": '{"ne":1.5}', "who": "me@here:1",
        }
    ]  # fmt: skip
    assert (store.current_version(), store.epoch(), store.releases(), store.newest_release()) == (None, 1, [], None)


def test_the_record_of_held_candidates_is_bounded(store: RedisWeights, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_serving, "HELD_KEPT", 50)
    for position in range(400):
        store.record_held(held(position))
    kept = store.held(1000)
    assert 50 <= len(kept) < 250, "a stream is trimmed by whole nodes of a hundred entries"
    assert kept[-1]["position"] == "399"


def test_held_candidates_push_no_version_out_of_sight(store: RedisWeights, adsim: App) -> None:
    first = publish(store, adsim, 1)
    for position in range(100):
        store.record_held(held(position))
    assert publish(store, adsim, 1) == first, "publishing it again is still a no-op"
    assert [manifest.version for manifest in store.versions()] == [first]


def test_the_newest_release_says_whether_it_was_a_rollback(store: RedisWeights, adsim: App) -> None:
    for number in (1, 2):
        publish(store, adsim, number)
    newest = store.newest_release()
    assert newest is not None
    assert (newest["action"], newest["version"]) == ("publish", "2")
    store.rollback(1, "drill")
    newest = store.newest_release()
    assert newest is not None
    assert (newest["action"], newest["version"], newest["why"], newest["who"]) == (
        "rollback",
        "1",
        "drill",
        "me@here:1",
    )
    assert int(newest["at_ms"]) > 0


def test_scorers_say_what_they_serve_until_they_stop_saying_so(store: RedisWeights, valkey_url: str) -> None:
    other = RedisWeights(valkey_url, store.model, who="b@there:2")
    stranger = RedisWeights(valkey_url, store.model.replace("[", "").replace("]*", "x"), who="c")
    store.tell_serving(3, 1000, 60)
    other.tell_serving(None, 2000, 60)
    stranger.tell_serving(9, 1, 60)
    assert store.serving() == [Serving("b@there:2", None, 2000), Serving("me@here:1", 3, 1000)]
    store.tell_serving(4, 3000, 60)
    assert store.serving()[1] == Serving("me@here:1", 4, 3000)
    with redis.Redis.from_url(valkey_url) as raw:
        key = names.serving_key(store.model, "me@here:1")
        assert 0 < raw.ttl(key) <= 60
        raw.pexpire(key, 1)
        raw.set(names.serving_key(store.model, "broken"), b'{"version": {}}', ex=60)
        while raw.exists(key):
            pass
    assert store.serving() == [Serving("b@there:2", None, 2000)]
    for each in (other, stranger):
        each.close()


def test_a_store_that_is_away_is_one_sentence() -> None:
    away = RedisWeights("redis://127.0.0.1:1/0", "m")
    for call in (lambda: away.record_held({}), away.held, away.newest_release, away.serving):
        with pytest.raises(StoreError, match=r"127\.0\.0\.1:1"):
            call()
    with pytest.raises(StoreError):
        away.tell_serving(1, 1, 1)
