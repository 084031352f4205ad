"""Which candidates travel as deltas, what they hold, how long their bases are kept, and who is told what moved."""

import uuid
from collections.abc import Iterator

import msgspec
import numpy as np
import pytest
import redis
from pydantic import SecretStr

from contracts import names
from contracts.app import App
from contracts.errors import FencedError, NotWholeError, SignatureError, StoreError
from contracts.weights import TouchedRows, WeightManifest, Weights
from flows.settings import overrides_from
from nodes.fake_traffic import examples
from nodes.fakes import MemoryWeights
from nodes.hasty_weights import HastyWeights
from nodes.pack import Snapshot
from nodes.pack_deltas import Packer
from nodes.publish import Publisher
from nodes.redis_weights import RedisWeights
from nodes.weight_buffers import WeightBuffers
from nodes.weight_stores import open_weights
from tests.nodes.tiny_nets import as_served, bits, tiny_app, tiny_arrays


@pytest.fixture(scope="module")
def app() -> App:
    return tiny_app(full_every=3, max_delta_share=0.9)


@pytest.fixture
def store(valkey_url: str) -> Iterator[RedisWeights]:
    made = RedisWeights(valkey_url, uuid.uuid4().hex, keep=2, ttl_s=1000)
    yield made
    made.close()


@pytest.fixture
def raw(valkey_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(valkey_url) as client:
        yield client


class Learning:
    """A trainer of one row a step, and its publisher."""

    def __init__(self, app: App, store: MemoryWeights | RedisWeights) -> None:
        self.store, self.publisher = store, Publisher(app, store, lambda: 5, force=True)
        self.arrays, self.step = tiny_arrays(app), 0

    def publish(self, **more: object) -> WeightManifest:
        """Learn a row, and publish."""
        self.step += 1
        row = self.step % 12
        self.arrays["embedding"][row] += 1
        touched = TouchedRows(self.step - 1, np.array([row]))
        said = {"position": self.step, "step": self.step, "trained_until_ms": 1, "touched": touched} | more
        self.publisher.offer(self.arrays, **said)
        made = self.publisher.finish()
        assert made is not None
        assert made.version is not None, made.reason
        return self.store.manifest(made.version)


def kinds(store: MemoryWeights | RedisWeights) -> list[tuple[str, int | None, int]]:
    return [(manifest.kind, manifest.base_version, manifest.deltas) for manifest in store.versions()]


def test_after_so_many_deltas_a_full_version_comes(app: App, store: RedisWeights) -> None:
    learning = Learning(app, store)
    for _ in range(6):
        learning.publish()
        assert bits(store.fetch().arrays) == as_served(learning.arrays)
    assert kinds(store) == [
        ("full", None, 0), ("delta", 1, 1), ("delta", 2, 2), ("delta", 3, 3), ("full", None, 0), ("delta", 5, 1),
    ]  # fmt: skip


def test_deltas_can_be_turned_off(store: RedisWeights) -> None:
    learning = Learning(tiny_app(deltas=False), store)
    assert [learning.publish().kind for _ in range(2)] == ["full", "full"]


def test_where_most_rows_differ_all_are_published() -> None:
    store = MemoryWeights("adsim")
    learning = Learning(tiny_app(max_delta_share=0.25), store)
    learning.publish()
    learning.arrays["embedding"][3:6] += 1
    assert learning.publish(touched=None).kind == "full", "four of twelve"
    learning.arrays["embedding"][:2] += 1
    assert learning.publish(touched=None).kind == "delta", "three of twelve"


def test_another_dtype_begins_with_a_full_version() -> None:
    store = MemoryWeights("adsim")
    Learning(tiny_app(), store).publish()
    wholes = Learning(tiny_app(dtype="fp32"), store)
    wholes.step = 1
    assert [wholes.publish().kind for _ in range(2)] == ["full", "delta"]
    assert bits(store.fetch().arrays) == as_served(wholes.arrays, dtype="float32")


def test_a_delta_holds_the_rows_that_differ_and_names_those_that_are_zeros(app: App) -> None:
    store = MemoryWeights("adsim")
    learning = Learning(app, store)
    learning.publish()
    learning.arrays["embedding"][5] = learning.arrays["wide"][5] = 0
    touched = TouchedRows(1, np.array([2, 5, 6, 9]))  # 6 and 9 did not move in the end
    made = learning.publish(touched=touched, evicted=np.array([9, 9]))
    numbers = {blob.name: blob.shape[0] for blob in made.blobs if blob.name in {"rows", "evicted", "embedding", "wide"}}
    assert numbers == {"rows": 1, "evicted": 2, "embedding": 1, "wide": 1}
    assert bits(store.fetch().arrays) == as_served(learning.arrays, evicted=(9,))


def test_rows_given_up_are_zeros_in_a_full_version_too(app: App) -> None:
    store = MemoryWeights("adsim")
    learning = Learning(app, store)
    assert learning.publish(evicted=np.array([4])).kind == "full"
    assert bits(store.fetch().arrays) == as_served(learning.arrays, evicted=(4,))
    assert learning.arrays["embedding"][4].any(), "what was offered is the trainer's"


@pytest.mark.parametrize("since_step", [0, 2])
def test_rows_told_of_another_stretch_are_not_relied_on(app: App, since_step: int) -> None:
    """Somebody else asked the trainer what moved meanwhile: all rows are looked at."""
    store = MemoryWeights("adsim")
    learning = Learning(app, store)
    learning.publish()
    learning.arrays["embedding"][7] += 1
    assert learning.publish(touched=TouchedRows(since_step, np.array([2]))).kind == "delta"
    assert bits(store.fetch().arrays) == as_served(learning.arrays)


def test_only_the_rows_that_moved_are_looked_at(app: App) -> None:
    """What nobody names does not travel: the proof that a delta does not cost a look at everything."""
    store = MemoryWeights("adsim")
    learning = Learning(app, store)
    learning.publish()
    learning.arrays["embedding"][7] += 1  # behind the trainer's back
    learning.publish()
    assert bits(store.fetch().arrays) != as_served(learning.arrays)


def test_a_version_sent_late_is_not_taken_for_the_newest() -> None:
    """The store refused one, the next ones were held, the first went out at the end: what follows it is right."""
    app = tiny_app(gate={"window_rows": 4})
    store = MemoryWeights("adsim")
    learning = Learning(app, store)
    learning.publish()
    publisher, arrays = learning.publisher, learning.arrays

    def offer(step: int, row: int) -> None:
        publisher.offer(
            arrays, position=step, step=step, trained_until_ms=1, touched=TouchedRows(step - 1, np.array([row]))
        )

    store.fail = StoreError("away")
    arrays["embedding"][3] += 1
    offer(2, 3)
    made = publisher.observe(examples(app, 4))
    assert made is not None
    assert made.reason == "away"
    late, store.fail = as_served(arrays), None
    arrays["embedding"][8] += 1
    offer(3, 8)
    arrays["bias"][0] = np.nan
    offer(4, 9)
    arrays["bias"][0] = 0
    made = publisher.finish()
    assert made is not None
    assert (made.version, made.position) == (2, 2)
    assert bits(store.fetch().arrays) == late
    learning.step = 4
    assert learning.publish().base_version == 2
    assert bits(store.fetch().arrays) == as_served(arrays)


def test_a_base_that_is_gone_makes_way_for_a_full_version(app: App, store: RedisWeights, raw: redis.Redis) -> None:
    learning = Learning(app, store)
    learning.publish()
    raw.delete(names.blob_key(store.model, 1, 2))
    made = learning.publish()
    assert made.kind == "full"
    raw.delete(names.manifest_key(store.model, made.version))
    assert learning.publish().kind == "full"
    assert bits(store.fetch().arrays) == as_served(learning.arrays)


def test_a_delta_of_what_is_not_held_is_refused_before_anything_is_written(app: App, store: RedisWeights) -> None:
    learning = Learning(app, MemoryWeights(app.name))
    learning.publish()
    made = learning.publish()
    with pytest.raises(NotWholeError, match="its base, version 1, is not held"):
        store.publish(made, learning.store.held[2].chunks)
    assert (store.current_version(), store.epoch()) == (None, 0)


def test_the_same_again_changes_nothing(app: App, store: RedisWeights) -> None:
    learning = Learning(app, store)
    learning.publish()
    made = learning.publish()
    again = Publisher(app, store, lambda: 9, force=True)  # a new process, that resumed where this one ended
    again.offer(learning.arrays, position=2, step=2, trained_until_ms=1)
    again.finish()
    assert store.current_version() == made.version == 2
    assert len(store.releases()) == 2


def test_a_store_that_forgot_its_last_versions_gets_new_ones_and_readers_follow(
    app: App, store: RedisWeights, raw: redis.Redis
) -> None:
    """As one that is killed does, where it answers before it writes: pointer, fence and numbers are those of before."""
    learning, buffers = Learning(app, store), WeightBuffers(store)
    learning.publish()
    buffers.advance(learning.publish().version)
    known = {key: raw.dump(key) for key in raw.scan_iter(f"ctr:{store.model}:*")}
    for _ in range(3):  # a full version among them
        buffers.advance(learning.publish().version)
    for forgotten in raw.scan_iter(f"ctr:{store.model}:*"):
        raw.delete(forgotten)
    for key, value in known.items():
        raw.restore(key, 0, value)
    buffers.advance(store.current_version())
    made = learning.publish()
    assert (made.version, made.base_version) == (6, 2), "no number is given twice"
    served = buffers.advance(made.version)
    assert bits(served.arrays) == bits(store.fetch().arrays) == as_served(learning.arrays)


def ttls(raw: redis.Redis, store: RedisWeights, versions: range) -> list[bool]:
    """Whether all keys of each version stay (True) or all expire (False)."""
    left = [{raw.ttl(key) == -1 for key in raw.scan_iter(f"ctr:{store.model}:v:{version}:*")} for version in versions]
    assert all(len(some) == 1 for some in left), "a version would expire in part"
    return [some.pop() for some in left]


def test_bases_stay_as_long_as_a_version_kept_needs_them(app: App, store: RedisWeights, raw: redis.Redis) -> None:
    learning = Learning(app, store)
    for _ in range(4):
        learning.publish()
    assert ttls(raw, store, range(1, 5)) == [True] * 4, "3 and 4 are kept, and need 2 and 1"
    learning.publish()
    assert ttls(raw, store, range(1, 6)) == [True] * 5, "4 is kept still"
    learning.publish()
    assert ttls(raw, store, range(1, 7)) == [False] * 4 + [True] * 2, "5 and 6 stand on their own"


def test_a_rollback_into_a_chain_that_was_to_expire_keeps_all_of_it(
    app: App, store: RedisWeights, raw: redis.Redis
) -> None:
    learning = Learning(app, store)
    served = []
    for _ in range(6):
        learning.publish()
        served.append(as_served(learning.arrays))
    store.rollback(3, "drill")
    assert ttls(raw, store, range(1, 7)) == [True, True, True, False, True, True]
    assert bits(store.fetch().arrays) == served[2]
    assert learning.publish().base_version == 3, "it follows what is live"
    assert bits(store.fetch().arrays) == as_served(learning.arrays)


def test_versions_retired_while_somebody_rolls_back_to_what_needs_them_stay(
    app: App, store: RedisWeights, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    learning = Learning(app, store)
    for _ in range(5):
        learning.publish()
    current = store.current_version
    monkeypatch.setattr(store, "current_version", lambda: 6)  # as it was read, a moment before the rollback
    monkeypatch.setattr(store, "_keep", 1)
    store.rollback(3, "between a publish and its tidying up")
    store._retire({manifest.version: manifest for manifest in store.versions()})
    assert ttls(raw, store, range(1, 4)) == [True] * 3
    assert current() == 3


def test_buffers_take_turns_and_a_version_given_back_is_written_over_first(app: App) -> None:
    learning = Learning(app, MemoryWeights("adsim"))
    buffers = WeightBuffers(learning.store)
    given = [buffers.advance(learning.publish().version) for _ in range(3)]
    tables = [weights.arrays["embedding"] for weights in given]
    assert tables[2] is tables[0] is not tables[1], "no third copy"
    assert given[0].changed is None
    assert [list(weights.changed["wide"]) for weights in given[1:]] == [[2], [3]]
    before = bits(given[1].arrays)
    buffers.release(given[2])
    made = buffers.advance(learning.publish().version)
    assert made.arrays["embedding"] is tables[0]
    assert list(made.changed["embedding"]) == [3, 4], "against version 2, which is still read"
    assert bits(given[1].arrays) == before
    whole = buffers.advance(learning.publish().version)
    assert whole.manifest.kind == "full"
    assert whole.arrays["embedding"] is tables[1], "a full version is read into the spare buffer"
    assert bits(whole.arrays) == as_served(learning.arrays)


def test_buffers_outlive_a_full_version_that_breaks_off(app: App) -> None:
    learning = Learning(app, MemoryWeights("adsim"))
    store, buffers = learning.store, WeightBuffers(learning.store)
    for _ in range(4):  # a full version and its deltas
        held = buffers.advance(learning.publish().version)
    before, full = bits(held.arrays), learning.publish()
    chunks = list(store.held[full.version].chunks)
    store.held[full.version].chunks[1] = b""
    with pytest.raises(Exception, match="length and digest"):
        buffers.advance(full.version)
    assert bits(held.arrays) == before
    store.held[full.version].chunks = chunks
    buffers.release(held)
    assert bits(buffers.advance(full.version).arrays) == as_served(learning.arrays)


def test_a_candidate_costs_no_new_tables(app: App) -> None:
    packer, arrays, live, seen = Packer(app), tiny_arrays(app), None, []
    for step in range(1, 4):
        arrays["wide"][step] += 1
        made = packer.pack(
            arrays, live, position=step, step=step, trained_until_ms=1, touched=TouchedRows(step - 1, np.array([step]))
        )
        assert isinstance(made, Snapshot)
        manifest = made.manifest(app, "m", 1, 1, {})
        live = Weights(msgspec.structs.replace(manifest, version=step, digest=str(step)), made.arrays)
        packer.published(made, live.manifest)
        seen.append(made.arrays["wide"])
    assert seen[2] is seen[0] is not seen[1]


def test_a_publisher_that_was_overtaken_publishes_no_delta(app: App, store: RedisWeights) -> None:
    early = Learning(app, store)
    early.publish()
    Publisher(app, store)
    with pytest.raises(FencedError):
        early.publish()
    assert store.current_version() == 1


def test_a_delta_that_was_given_up_and_yet_arrived_is_not_published_twice(app: App, store: RedisWeights) -> None:
    """The answer came too late: the store has the version, the publisher does not know."""
    learning = Learning(app, HastyWeights(store, patience_s=10))
    learning.store = store
    learning.publish()
    real, lost = store.publish, [True]

    def loses_the_answer(manifest: WeightManifest, chunks: list[bytes]) -> WeightManifest:
        made = real(manifest, chunks)
        if lost and not lost.clear():
            raise StoreError("no answer in time")
        return made

    store.publish = loses_the_answer
    learning.arrays["embedding"][5] += 1
    learning.publisher.offer(learning.arrays, position=2, step=2, trained_until_ms=1)
    made = learning.publisher.finish()  # sends again what it holds for lost
    assert made is not None
    assert (made.version, store.current_version(), lost) == (2, 2, [])
    learning.step = 2
    assert (learning.publish().base_version, len(store.releases())) == (2, 3)
    assert bits(store.fetch().arrays) == as_served(learning.arrays)


def test_the_key_comes_from_the_environment_and_signs_in_a_real_store(valkey_url: str) -> None:
    settings = overrides_from(None, {"ROCKET_PUBLISH__KEY": "a key of sixteen or more"})
    signing, model = tiny_app(**settings["publish"]), uuid.uuid4().hex
    key = signing.config.publish.key
    assert key is not None
    assert "sixteen" not in repr(signing.config)
    with (
        open_weights(valkey_url, model, key=key) as ours,
        open_weights(valkey_url, model) as open_to_all,
        open_weights(valkey_url, model, key=SecretStr("another key of sixteen")) as theirs,
    ):
        learning = Learning(signing, ours)
        learning.publish()
        assert len(learning.publish().signature) == 64
        assert bits(open_to_all.fetch().arrays) == bits(ours.fetch().arrays)
        assert theirs.versions() == []
        with pytest.raises(SignatureError, match=r"version 2 .* another key"):
            theirs.fetch()
        assert Learning(tiny_app(), theirs).publish().kind == "full", "nothing is built upon what cannot be believed"
