"""Versions in a real Valkey: whole or absent, verified, numbered upwards, fenced."""

import socket
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
import redis

from contracts import names
from contracts.app import App, load_app
from contracts.errors import CorruptError, FencedError, RocketError, SchemaMismatchError, StoreError
from contracts.weights import Blob, WeightManifest
from nodes.fake_traffic import light_arrays
from nodes.publish import Snapshot, pack
from nodes.redis_errors import masked
from nodes.redis_weights import RedisWeights
from nodes.verify_weights import manifest_bytes
from nodes.weight_stores import open_weights


@pytest.fixture
def store(valkey_url: str) -> Iterator[RedisWeights]:
    made = RedisWeights(valkey_url, uuid.uuid4().hex, keep=2, ttl_s=1000, who="test")
    yield made
    made.close()


@pytest.fixture
def raw(valkey_url: str) -> Iterator[redis.Redis]:
    client = redis.Redis.from_url(valkey_url)
    yield client
    client.close()


def snapshot(app: App, seed: int = 0) -> Snapshot:
    made = pack(app, light_arrays(app, seed), position=100 + seed, step=seed, trained_until_ms=5)
    assert isinstance(made, Snapshot)
    return made


def publish(store: RedisWeights, app: App, seed: int = 0, epoch: int = 1) -> WeightManifest:
    made = snapshot(app, seed)
    return store.publish(made.manifest(app, store.model, epoch, 7, {"reason": "a test"}), made.chunks)


def test_a_published_version_comes_back_bit_for_bit(store: RedisWeights, adsim: App) -> None:
    published = publish(store, adsim)
    got = store.fetch()
    assert (published.version, got.manifest) == (1, published)
    for name, array in snapshot(adsim).arrays.items():
        np.testing.assert_array_equal(got.arrays[name], array)


def test_the_same_arrays_at_the_same_position_are_published_once(store: RedisWeights, adsim: App) -> None:
    first = publish(store, adsim)
    assert publish(store, adsim) == first
    assert [entry["version"] for entry in store.releases()] == ["1"]


def test_whole_numbers_among_the_gates_figures_do_not_break_the_digest(store: RedisWeights, adsim: App) -> None:
    made = snapshot(adsim)
    published = store.publish(made.manifest(adsim, store.model, 1, 7, {"live_version": 1}), made.chunks)
    assert store.fetch().manifest == published


def test_chunks_are_bounded_and_joined_again(store: RedisWeights, adsim: App) -> None:
    made = publish(store, load_app("adsim", {"publish": {"chunk_bytes": 10_000}}))
    assert max(length for blob in made.blobs for length in blob.chunks) == 10_000
    assert store.fetch().arrays["embedding"].shape == (adsim.layout.light_rows, 8)


def test_old_versions_expire_but_never_the_current_one(store: RedisWeights, raw: redis.Redis, adsim: App) -> None:
    for seed in range(4):
        publish(store, adsim, seed)
    ttls = [raw.ttl(names.manifest_key(store.model, version)) for version in (1, 2, 3, 4)]
    assert [ttl > 0 for ttl in ttls] == [True, True, False, False]
    assert raw.ttl(names.blob_key(store.model, 1, 0)) > 0
    assert raw.ttl(names.blob_key(store.model, 4, 0)) == -1
    store.rollback(1, "test")
    assert raw.ttl(names.manifest_key(store.model, 1)) == raw.ttl(names.blob_key(store.model, 1, 0)) == -1


def test_a_version_rolled_back_to_expires_once_it_is_not_live(
    store: RedisWeights, raw: redis.Redis, adsim: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nodes.redis_weights._ALSO_COMPARED", 1)
    for seed in range(5):
        publish(store, adsim, seed)
    store.rollback(1, "test")
    publish(store, adsim, 9)
    assert raw.ttl(names.manifest_key(store.model, 1)) > 0
    assert raw.ttl(names.blob_key(store.model, 1, 0)) > 0


def test_a_rollback_is_on_the_record_and_later_versions_still_grow(store: RedisWeights, adsim: App) -> None:
    for seed in range(2):
        publish(store, adsim, seed)
    store.rollback(1, "looks bad")
    assert store.current_version() == 1
    assert publish(store, adsim, 9).version == 3
    assert store.current_version() == 3
    said = [(entry["action"], entry["version"], entry["from"], entry["why"]) for entry in store.releases()]
    assert said == [
        ("publish", "1", "0", "a test"),
        ("publish", "2", "1", "a test"),
        ("rollback", "1", "2", "looks bad"),
        ("publish", "3", "1", "a test"),
    ]
    assert all(entry["who"] == "test" and int(entry["at_ms"]) > 0 for entry in store.releases())


def test_a_rollback_to_a_version_that_is_not_held_names_those_that_are(store: RedisWeights, adsim: App) -> None:
    publish(store, adsim)
    with pytest.raises(StoreError, match=r"no version 7 of model .*; held: 1"):
        store.rollback(7, "typo")


def test_an_older_epoch_is_refused(store: RedisWeights, adsim: App) -> None:
    old, new = store.take_epoch(), store.take_epoch()
    publish(store, adsim, 1, new)
    with pytest.raises(FencedError, match="epoch 2 has taken over"):
        publish(store, adsim, 2, old)
    assert store.current_version() == 1
    assert store.epoch() == new


def test_an_older_epoch_is_refused_even_where_nothing_would_change(store: RedisWeights, adsim: App) -> None:
    old = store.take_epoch()
    publish(store, adsim, 1, old)
    assert publish(store, adsim, 1, old).version == 1
    store.take_epoch()
    with pytest.raises(FencedError):
        publish(store, adsim, 1, old)


def test_a_publisher_that_is_fenced_between_its_bytes_and_the_pointer_moves_nothing(
    store: RedisWeights, adsim: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(store, adsim, 1, store.take_epoch())
    keys = store._keys

    def takes_over(manifest: WeightManifest) -> list[str]:
        store.take_epoch()
        return keys(manifest)

    monkeypatch.setattr(store, "_keys", takes_over)
    with pytest.raises(FencedError):
        publish(store, adsim, 2, 1)
    assert store.current_version() == 1


def test_a_slower_publisher_never_moves_the_pointer_back(
    store: RedisWeights, adsim: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = store._keys

    def is_overtaken(manifest: WeightManifest) -> list[str]:
        monkeypatch.setattr(store, "_keys", keys)
        assert publish(store, adsim, 2).version == 2
        return keys(manifest)

    monkeypatch.setattr(store, "_keys", is_overtaken)
    with pytest.raises(StoreError, match=r"version 2 .* was published meanwhile"):
        publish(store, adsim, 1)
    assert store.current_version() == 2


def test_a_chunk_evicted_before_the_release_leaves_the_pointer_alone(
    store: RedisWeights, raw: redis.Redis, adsim: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(store, adsim, 1)
    run = store._run

    def evicts(script: str, keys: list[str], args: list) -> str:
        if len(keys) > 3:
            raw.delete(keys[4])
        return run(script, keys, args)

    monkeypatch.setattr(store, "_run", evicts)
    with pytest.raises(StoreError, match="not there whole"):
        publish(store, adsim, 2)
    assert store.current_version() == 1


def _flip_a_bit(raw: redis.Redis, model: str) -> None:
    key = names.blob_key(model, 1, 1)
    data = bytearray(raw.get(key))
    data[len(data) // 2] ^= 4
    raw.set(key, bytes(data))


def _break_manifest(**changes: object) -> Callable[[redis.Redis, str], None]:
    """A manifest with a valid digest that says something else."""

    def break_it(raw: redis.Redis, model: str) -> None:
        key = names.manifest_key(model, 1)
        manifest = msgspec.json.decode(raw.get(key), type=WeightManifest)
        raw.set(key, manifest_bytes(msgspec.structs.replace(manifest, **changes)))

    return break_it


def _break_blob(**changes: object) -> Callable[[redis.Redis, str], None]:
    def break_it(raw: redis.Redis, model: str) -> None:
        manifest = msgspec.json.decode(raw.get(names.manifest_key(model, 1)), type=WeightManifest)
        blobs = [msgspec.structs.replace(manifest.blobs[0], **changes), *manifest.blobs[1:]]
        _break_manifest(blobs=tuple(blobs))(raw, model)

    return break_it


def _put_nan(raw: redis.Redis, model: str) -> None:
    manifest = msgspec.json.decode(raw.get(names.manifest_key(model, 1)), type=WeightManifest)
    place = [blob.name for blob in manifest.blobs].index("bias")
    import hashlib

    data = np.array([np.nan], "<f2").tobytes()
    blob = Blob("bias", "float16", (1,), hashlib.sha256(data).hexdigest(), (2,))
    raw.set(names.blob_key(model, 1, place), data)
    _break_manifest(blobs=(*manifest.blobs[:place], blob, *manifest.blobs[place + 1 :]))(raw, model)


BREAKS: dict[str, tuple[Callable[[redis.Redis, str], object], str]] = {
    "a flipped bit": (_flip_a_bit, "length and digest"),
    "a missing chunk": (lambda raw, model: raw.delete(names.blob_key(model, 1, 2)), "chunk 2 is missing"),
    "a cut chunk": (lambda raw, model: raw.set(names.blob_key(model, 1, 1), b"x"), "chunk 1 has 1 bytes instead of"),
    "an extra chunk": (lambda raw, model: raw.set(names.blob_key(model, 1, 12), b"x"), "more chunks than the 12"),
    "a wrong shape": (_break_blob(shape=(7, 7)), "needs 98 bytes"),
    "a shape that overflows": (_break_blob(shape=(2**40, 2**40)), "needs"),
    "a negative shape": (_break_blob(shape=(-1,)), "impossible shape"),
    "an unknown dtype": (_break_blob(dtype="object"), "dtype object"),
    "a NaN": (_put_nan, "NaN"),
    "another model": (_break_manifest(model="other"), "that of version 1 of model 'other'"),
    "an unknown format": (_break_manifest(format=2), "upgrade"),
    "a manifest that is none": (lambda raw, model: raw.set(names.manifest_key(model, 1), b"{"), "manifest is not one"),
    "a huge manifest": (
        lambda raw, model: raw.setrange(names.manifest_key(model, 1), 5_000_000, b"x"), "5000001 bytes",
    ),
    "a changed manifest": (
        lambda raw, model: raw.set(
            names.manifest_key(model, 1),
            raw.get(names.manifest_key(model, 1)).replace(b'"position":100', b'"position":900'),
        ),
        "digest it names",
    ),
}  # fmt: skip


@pytest.mark.parametrize("broken", BREAKS)
def test_a_broken_version_is_refused_by_name(store: RedisWeights, raw: redis.Redis, adsim: App, broken: str) -> None:
    publish(store, adsim)
    break_it, said = BREAKS[broken]
    break_it(raw, store.model)
    with pytest.raises(CorruptError, match=said) as caught:
        store.fetch()
    assert str(caught.value).startswith("version 1 of model ")


def test_a_foreign_schema_is_refused_by_name(store: RedisWeights, valkey_url: str, adsim: App) -> None:
    publish(store, adsim)
    with (
        open_weights(valkey_url, store.model, schema_id="f" * 16) as other,
        pytest.raises(SchemaMismatchError, match=rf"version 1 .* {adsim.schema_id}, but the app has {'f' * 16}"),
    ):
        other.fetch()


def test_a_broken_pointer_is_one_sentence(store: RedisWeights, raw: redis.Redis, adsim: App) -> None:
    raw.set(names.current_key(store.model), b"7")
    for ask in (store.current_version, store.take_epoch, lambda: publish(store, adsim)):
        with pytest.raises(CorruptError, match="delete that key"):
            ask()


def test_before_the_first_version_there_is_none(store: RedisWeights) -> None:
    assert (store.current_version(), store.versions(), store.epoch()) == (None, [], 0)
    with pytest.raises(StoreError, match="rocket publish"):
        store.fetch()


def test_redis_down_is_one_sentence_without_the_password(adsim: App) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with open_weights(f"redis://me:s3cret@127.0.0.1:{port}/0", "m") as store, pytest.raises(StoreError) as caught:
        publish(store, adsim)
    said = str(caught.value)
    assert "s3cret" not in said
    assert f"redis://me:***@127.0.0.1:{port}/0: cannot be reached" in said
    assert "\n" not in said


def test_a_wrong_password_is_one_sentence(valkey_url: str) -> None:
    wrong = valkey_url.replace("redis://:", "redis://:no")
    with open_weights(wrong, "m") as store, pytest.raises(StoreError, match="another user or password"):
        store.current_version()


def test_a_server_that_is_full_or_read_only_is_one_sentence(tmp_path: Path, adsim: App) -> None:
    from nodes.embedded_valkey import EmbeddedValkey

    with (
        EmbeddedValkey(tmp_path) as valkey,
        redis.Redis.from_url(valkey.url) as raw,
        open_weights(valkey.url, "m") as store,
    ):
        publish(store, adsim, 1)
        raw.config_set("maxmemory", 1)
        with pytest.raises(StoreError, match=r"out of memory .* publish.keep"):
            publish(store, adsim, 2)
        assert store.fetch().manifest.version == 1
        raw.config_set("maxmemory", 0)
        raw.replicaof("127.0.0.1", 1)
        with pytest.raises(StoreError, match=r"read-only replica .* primary"):
            publish(store, adsim, 3)
        assert store.fetch().manifest.version == 1


@pytest.mark.parametrize(
    "url", ["redis://h:port", "http://h", "kafka://h/t", "redis://u:p@h:0x/0"],
)  # fmt: skip
def test_a_url_that_is_none_is_one_sentence(url: str) -> None:
    with pytest.raises(RocketError, match=r"no such kind|not a Redis URL"), open_weights(url, "m"):
        pass


def test_passwords_are_masked_wherever_a_url_may_hold_them() -> None:
    assert masked("redis://u:p@ss@h/0") == "redis://u:***@h/0"
    assert masked("redis://h/0?password=pw&x=1") == "redis://h/0?password=***&x=1"


def test_a_version_rolled_back_to_meanwhile_does_not_expire(store: RedisWeights, raw: redis.Redis, adsim: App) -> None:
    held = [publish(store, adsim, seed) for seed in range(3)]
    store.rollback(1, "between a publish and its tidying up")
    store._retire({manifest.version: manifest for manifest in held})
    assert raw.ttl(names.manifest_key(store.model, 1)) == raw.ttl(names.blob_key(store.model, 1, 0)) == -1
