"""`rocket versions` and `rocket rollback` on a real store, with a scorer beside."""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import redis

from contracts import names
from contracts.app import App, load_app
from contracts.errors import ContractError, CorruptError, StoreError
from flows.versions import listed, roll_back
from nodes.fake_traffic import light_arrays
from nodes.gate import Decision
from nodes.held import record_of
from nodes.pack import Snapshot, pack
from nodes.redis_weights import RedisWeights
from nodes.refresh import Refresher
from nodes.weight_stores import open_weights
from tests.commands import rocket


@pytest.fixture
def store(valkey_url: str, adsim: App) -> Iterator[RedisWeights]:
    made = RedisWeights(valkey_url, f"v-{uuid.uuid4().hex[:8]}", schema_id=adsim.schema_id, who="me@here:1")
    for number in (1, 2, 3):
        packed = pack(adsim, light_arrays(adsim, number), position=100 * number, step=number, trained_until_ms=5)
        assert isinstance(packed, Snapshot)
        figures: dict[str, float | str | None] = {"reason": f"the {number}th", "ne": 0.8}
        made.publish(packed.manifest(adsim, made.model, 0, 1000 * number, figures), packed.chunks)
    yield made
    made.close()


def hold(store: RedisWeights) -> None:
    figures: dict[str, float | str | None] = {"ne": 1.3}
    store.record_held(record_of(Decision("held", "labels are wrong", 7, 2, None, figures, kind="labels", at_ms=99)))


def test_versions_say_when_why_how_large_and_who_serves_them(store: RedisWeights, adsim: App) -> None:
    store.tell_serving(2, 50, 60)
    hold(store)
    found = listed(store)
    assert [row["version"] for row in found["versions"]] == [1, 2, 3]
    assert [row["live"] for row in found["versions"]] == [False, False, True]
    last = found["versions"][-1]
    assert {name: last[name] for name in ("kind", "base_version", "published_ms", "who", "why", "position")} == {
        "kind": "full", "base_version": None, "published_ms": 3000, "who": "me@here:1", "why": "the 3th",
        "position": 300,
    }  # fmt: skip
    assert last["gate"] == {"ne": 0.8}
    arrays = light_arrays(adsim, 3)
    assert last["bytes"] == sum(2 * array.size for array in arrays.values())
    assert [row["served_by"] for row in found["versions"]] == [[], ["me@here:1"], []]
    assert (found["elsewhere"], found["held"][0]["figures"]) == ([], {"ne": 1.3})
    assert json.loads(json.dumps(found)) == found


def test_a_scorer_says_what_it_serves_and_a_rollback_waits_for_it(store: RedisWeights, adsim: App) -> None:
    with Refresher(adsim, store, every_s=0.05):
        done = roll_back(store, 1, "drill", wait_s=20)
    assert (done["from"], done["to"], done["held"]) == (3, 1, [1, 2, 3])
    assert [(one["member"], one["version"]) for one in done["serving"]] == [("me@here:1", 1)]
    assert listed(store)["versions"][0]["served_by"] == ["me@here:1"]


def test_a_scorer_without_a_version_says_that_the_prior_answers(valkey_url: str, adsim: App) -> None:
    empty = RedisWeights(valkey_url, f"e-{uuid.uuid4().hex[:8]}", who="me")
    with Refresher(adsim, empty, every_s=0.05):
        pass
    found = listed(empty)
    assert (found["versions"], found["current"]) == ([], None)
    assert [(one["member"], one["version"]) for one in found["elsewhere"]] == [("me", None)]
    empty.close()


def test_a_rollback_says_who_does_not_serve_it_yet(store: RedisWeights) -> None:
    store.tell_serving(3, 50, 60)
    now = iter(range(100))
    done = roll_back(store, 2, "drill", wait_s=3, clock_s=lambda: float(next(now)), sleep=lambda _: None)
    assert [one["version"] for one in done["serving"]] == [3]
    assert next(now) < 10, "it does not wait for ever"


def test_a_rollback_to_what_is_gone_broken_or_live_changes_nothing(store: RedisWeights, valkey_url: str) -> None:
    with redis.Redis.from_url(valkey_url) as raw:
        raw.set(names.blob_key(store.model, 1, 0), b"x")
    for version, error in ((9, StoreError), (1, CorruptError), (3, ContractError)):
        with pytest.raises(error):
            roll_back(store, version, "drill", wait_s=0)
    assert store.current_version() == 3
    newest = store.newest_release()
    assert newest is not None
    assert newest["action"] == "publish"


def test_the_command_lists_what_was_signed_with_the_key_of_the_settings_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, key = str(tmp_path / "weights"), "k" * 32
    signed = load_app("adsim", {"publish": {"key": key}})
    packed = [pack(signed, light_arrays(signed, n), position=n, step=1, trained_until_ms=5) for n in (1, 2)]
    for number, secret in enumerate((signed.config.publish.key, None)):
        made = packed[number]
        assert isinstance(made, Snapshot)
        with open_weights(weights, "adsim", key=secret) as store:
            store.publish(made.manifest(signed, "adsim", 0, 1000, {"reason": "because"}), made.chunks)

    def listed_with(**environment: str) -> list[int]:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        shown = rocket("versions", "--weights", weights, "--json")
        assert shown.code == 0, shown.err
        return [row["version"] for row in msgspec.json.decode(shown.out.splitlines()[-1])["versions"]]

    assert listed_with() == [1, 2]
    assert listed_with(ROCKET_PUBLISH__KEY=key) == [1]
    assert "key publsh: unknown key" in rocket("versions", "--weights", weights, "--set", "publsh.keep=1").err


def test_the_commands_show_it(tmp_path, adsim: App) -> None:
    weights = str(tmp_path / "weights")
    with open_weights(weights, "adsim", schema_id=adsim.schema_id) as store:
        for number in (1, 2):
            packed = pack(adsim, light_arrays(adsim, number), position=number, step=1, trained_until_ms=5)
            assert isinstance(packed, Snapshot)
            store.publish(packed.manifest(adsim, "adsim", 0, 1000, {"reason": "because"}), packed.chunks)
        hold(store)
    shown = rocket("versions", "--weights", weights)
    assert shown.code == 0, shown.err
    assert "live" in shown.out
    assert "last held: 01-01 00:00:00, row 7: labels are wrong" in shown.out
    assert "labels" in rocket("versions", "--weights", weights, "--held").out
    done = rocket("rollback", "--weights", weights, "--to", "1", "--why", "drill", "--wait-s", "0")
    assert "version 1 answers now, before it was 2" in done.out
    assert "publishes nothing over it for 600 s" in done.out
    assert "no scorer has said lately" in done.out
    found = msgspec.json.decode(rocket("versions", "--weights", weights, "--json").out.splitlines()[-1])
    assert [(row["version"], row["live"]) for row in found["versions"]] == [(1, True), (2, False)]
    again = rocket("rollback", "--weights", weights, "--to", "1", "--why", "drill")
    assert (again.code, "is live already" in again.err) == (1, True)
