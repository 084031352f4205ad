"""What is not exactly what was published is refused, full or delta, and whoever holds weights keeps them."""

import hashlib
import json
import pickle
import random
from collections.abc import Callable

import msgspec
import numpy as np
import pytest

from contracts.app import App
from contracts.errors import CorruptError, RocketError, SchemaMismatchError, SignatureError, StoreError
from contracts.weights import Blob, TouchedRows, WeightManifest, pack_array
from nodes.fakes import MemoryWeights
from nodes.publish import Publisher
from nodes.refresh import Refresher
from nodes.verify_weights import encoded, manifest_bytes
from nodes.weight_buffers import WeightBuffers
from tests.nodes.tiny_nets import bits, tiny_app, tiny_arrays

KEY = b"a key of sixteen or more"
FULL, DELTA = 1, 2


@pytest.fixture(scope="module")
def app() -> App:
    return tiny_app()


def published(app: App, key: bytes | None = None) -> MemoryWeights:
    """Version 1 full, version 2 a delta of three rows, one of them evicted."""
    store, arrays = MemoryWeights(app.name, key=key), tiny_arrays(app)
    publisher = Publisher(app, store, lambda: 5, force=True)
    for step in (FULL, DELTA):
        publisher.offer(
            arrays, position=step, step=step, trained_until_ms=step, touched=TouchedRows(step - 1, np.array([2, 7]))
        )
        publisher.finish()
        arrays["embedding"][[2, 7]] += 1
        arrays["embedding"][4] = arrays["wide"][4] = 0
    assert [store.manifest(version).kind for version in (FULL, DELTA)] == ["full", "delta"]
    return store


def changed(store: MemoryWeights, at: int, **fields: object) -> None:
    """A manifest with a digest of its own that says something else."""
    made = msgspec.structs.replace(msgspec.json.decode(store.held[at].manifest, type=WeightManifest), **fields)
    store.held[at].manifest = manifest_bytes(made)


def blob_changed(store: MemoryWeights, version: int, name: str, **fields: object) -> None:
    blobs = store.manifest(version).blobs
    changed(
        store, version,
        blobs=tuple(msgspec.structs.replace(b, **fields) if b.name == name else b for b in blobs),
    )  # fmt: skip


def put(store: MemoryWeights, version: int, name: str, array: np.ndarray, dtype: str) -> None:
    """Another array, with lengths and digests that hold."""
    manifest = store.manifest(version)
    place = [blob.name for blob in manifest.blobs].index(name)
    blob, chunks = pack_array(name, array, dtype, 1 << 20)
    start = sum(len(blob.chunks) for blob in manifest.blobs[:place])
    store.held[version].chunks[start : start + len(manifest.blobs[place].chunks)] = chunks
    changed(store, version, blobs=(*manifest.blobs[:place], blob, *manifest.blobs[place + 1 :]))


def flip(store: MemoryWeights, version: int) -> None:
    chunks = store.held[version].chunks
    place = max(range(len(chunks)), key=lambda number: len(chunks[number]))
    data = bytearray(chunks[place])
    data[len(data) // 2] ^= 4
    chunks[place] = bytes(data)


def a_pickle(store: MemoryWeights, version: int) -> None:
    store.held[version].manifest = pickle.dumps({"kind": "full"})


def pickled_chunk(store: MemoryWeights, version: int) -> None:
    store.held[version].chunks[0] = pickle.dumps([1, 2])


def add_blob(store: MemoryWeights, version: int) -> None:
    data = b"\0\0"
    blob = Blob("more", "float16", (1,), hashlib.sha256(data).hexdigest(), (2,))
    store.held[version].chunks.append(data)
    changed(store, version, blobs=(*store.manifest(version).blobs, blob))


Break = Callable[[MemoryWeights, int], object]
BOTH: dict[str, tuple[Break, type[RocketError]]] = {
    "a flipped bit": (flip, CorruptError),
    "a missing chunk": (lambda s, v: s.held[v].chunks.pop(), CorruptError),
    "an extra chunk": (lambda s, v: s.held[v].chunks.append(b"x"), CorruptError),
    "a chunk twice": (lambda s, v: s.held[v].chunks.insert(0, s.held[v].chunks[0]), CorruptError),
    "a wrong shape": (lambda s, v: blob_changed(s, v, "mlp.0.weight", shape=(4, 2)), CorruptError),
    "a shape too large": (lambda s, v: blob_changed(s, v, "bias", shape=(2**60,)), CorruptError),
    "a wrong dtype": (lambda s, v: put(s, v, "bias", np.ones(1), "uint32"), CorruptError),
    "a NaN": (lambda s, v: put(s, v, "bias", np.array([np.nan]), "float16"), CorruptError),
    "an infinity": (lambda s, v: put(s, v, "bias", np.array([np.inf]), "float16"), CorruptError),
    "a foreign schema": (lambda s, v: changed(s, v, schema_id="f" * 16), RocketError),
    "another version's manifest": (lambda s, v: changed(s, v, version=9), CorruptError),
    "an array too many": (add_blob, CorruptError),
    "a pickle for a manifest": (a_pickle, CorruptError),
    "a pickle for a chunk": (pickled_chunk, CorruptError),
    "an unknown kind": (lambda s, v: changed(s, v, kind="patch"), CorruptError),
    "no manifest": (lambda s, v: s.held.pop(v), StoreError),
}
OF_A_DELTA: dict[str, tuple[Break, type[RocketError]]] = {
    "rows that descend": (lambda s, v: put(s, v, "rows", np.array([7, 2]), "uint32"), CorruptError),
    "a row twice": (lambda s, v: put(s, v, "rows", np.array([7, 7]), "uint32"), CorruptError),
    "a row beyond the table": (lambda s, v: put(s, v, "rows", np.array([2, 12]), "uint32"), CorruptError),
    "a row evicted and given": (lambda s, v: put(s, v, "evicted", np.array([7]), "uint32"), CorruptError),
    "an evicted row beyond": (lambda s, v: put(s, v, "evicted", np.array([2**32 - 1]), "uint32"), CorruptError),
    "fewer rows than values": (lambda s, v: put(s, v, "rows", np.array([2]), "uint32"), CorruptError),
    "rows that are no list": (lambda s, v: put(s, v, "rows", np.array([[2, 7]]), "uint32"), CorruptError),
    "row numbers with a fraction": (lambda s, v: put(s, v, "rows", np.array([2, 7]), "float32"), CorruptError),
    "wider values": (lambda s, v: put(s, v, "embedding", np.ones((2, 3)), "float16"), CorruptError),
    "values of another dtype": (lambda s, v: put(s, v, "embedding", np.ones((2, 2)), "float32"), CorruptError),
    "another tower": (lambda s, v: put(s, v, "mlp.0.bias", np.ones(3), "float16"), CorruptError),
    "another base's digest": (lambda s, v: changed(s, v, base_digest="0" * 64), CorruptError),
    "no digest of its base": (lambda s, v: changed(s, v, base_digest=""), CorruptError),
    "itself as base": (lambda s, v: changed(s, v, base_version=v), CorruptError),
    "a base that is not held": (lambda s, v: s.held.pop(FULL), StoreError),
    "another base under the number": (lambda s, v: changed(s, FULL, created_ms=9), CorruptError),
    "a longer chain than it has": (lambda s, v: changed(s, v, deltas=2), CorruptError),
    "an endless chain": (lambda s, v: changed(s, v, deltas=10**9), CorruptError),
    "the kind full": (lambda s, v: changed(s, v, kind="full"), CorruptError),
    "another link": (lambda s, v: changed(s, v, link="odds"), CorruptError),
}
CASES = [(FULL, name) for name in BOTH] + [(DELTA, name) for name in (*BOTH, *OF_A_DELTA)]


#: Only the scorer, who knows the app, can tell that a full version of these is not its own.
FOR_THE_SCORER = {"a wrong shape", "a foreign schema", "an array too many"}
#: Who holds the base already has verified it: only others must be refused.
OF_THE_BASE = {"a base that is not held", "another base under the number"}


@pytest.mark.parametrize(("version", "broken"), CASES)
def test_what_is_broken_is_refused_and_what_is_held_stays(app: App, version: int, broken: str) -> None:
    store = published(app)
    store.rollback(FULL, "to begin with")
    buffers, refresher = WeightBuffers(store), Refresher(app, store)
    held = buffers.advance(FULL)
    before = bits(held.arrays)
    if version == DELTA:
        assert refresher.look()
    break_it, kind = (BOTH | OF_A_DELTA)[broken]
    break_it(store, version)
    store._current = version
    reads = [lambda: store.fetch(version)] if version == DELTA or broken not in FOR_THE_SCORER else []
    if version == DELTA and broken not in OF_THE_BASE:
        reads += [lambda: buffers.advance(version), lambda: store.fetch(version, base=held)]
    for read in reads:
        with pytest.raises(kind):
            read()
    assert bits(held.arrays) == before
    if version == DELTA and broken in OF_THE_BASE:
        assert refresher.look(), "it holds the base"
        return
    assert not refresher.look()
    assert refresher.refused.total() == 1
    assert refresher.scorer.version == (FULL if version == DELTA else None)


def test_a_foreign_schema_is_refused_by_name(app: App) -> None:
    store = published(app)
    other = MemoryWeights(app.name, schema_id="f" * 16)
    other.held, other._current = store.held, DELTA
    with pytest.raises(SchemaMismatchError, match=f"trained for schema_id {app.schema_id}"):
        other.fetch()


@pytest.mark.parametrize("version", [FULL, DELTA])
@pytest.mark.parametrize(
    ("signed_with", "said"), [(None, "is not signed"), (b"another key of sixteen", "signed with another key")]
)
def test_who_has_a_key_refuses_what_was_not_signed_with_it(
    app: App, version: int, signed_with: bytes | None, said: str
) -> None:
    reader = MemoryWeights(app.name, key=KEY)
    reader.held, reader._current = published(app, KEY).held, version
    whole = bits(reader.fetch().arrays)
    reader.held[FULL] = published(app, signed_with).held[FULL]
    with pytest.raises(SignatureError, match=f"version 1 of model 'adsim': (is )?{said}"):
        reader.fetch()
    open_to_all = MemoryWeights(app.name)
    open_to_all.held, open_to_all._current = published(app, KEY).held, version
    assert bits(open_to_all.fetch().arrays) == whole


def test_a_signature_covers_every_field(app: App) -> None:
    store = published(app, KEY)
    signed = store.manifest(FULL)
    assert len(signed.signature) == 64
    forged = msgspec.structs.replace(signed, trained_until_ms=99)
    digest = msgspec.json.decode(manifest_bytes(forged), type=WeightManifest).digest
    store.held[FULL].manifest = encoded(msgspec.structs.replace(forged, digest=digest))
    with pytest.raises(SignatureError, match="another key"):
        store.fetch(FULL)


def test_versions_without_later_fields_keep_their_digest(app: App) -> None:
    """A manifest as it was written before there were deltas and signatures, byte for byte."""
    plain = json.loads(manifest_bytes(published(app).manifest(FULL)))
    assert plain.keys().isdisjoint({"base_digest", "deltas", "signature", "link"})
    assert (plain["kind"], plain["base_version"], plain["format"]) == ("full", None, 1)


def mutate(rng: random.Random, data: bytes) -> bytes:
    """One to three small changes: bits, bytes, runs cut out, doubled or moved, numbers of JSON made larger."""
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(data) + 1)
        stop = min(len(data), at + rng.randint(1, 12))
        data = rng.choice(
            [
                lambda d, a, z: d[:a] + bytes([d[a] ^ 1 << rng.randrange(8)]) + d[a + 1 :] if a < len(d) else d,
                lambda d, a, z: d[:a] + rng.randbytes(rng.randint(1, 6)) + d[a:],
                lambda d, a, z: d[:a] + d[z:],
                lambda d, a, z: d[:z] + d[a:z] + d[z:],
                lambda d, a, z: d[:a] + rng.choice([b"-1", b"1e400", b"null", b"[]", b"9" * 30, b"\xff"]) + d[z:],
                lambda d, a, z: d[z:] + d[:z],
            ]
        )(data, at, stop)
    return data


def damaged(app: App, rounds: int) -> int:
    """How many of so many random mutations were told from what was published; none is accepted as something else."""
    rng, refused, store = random.Random(5), 0, published(app)
    whole = {version: bits(store.fetch(version).arrays) for version in (FULL, DELTA)}
    manifests = {version: store.manifest(version) for version in (FULL, DELTA)}
    held = {version: (store.held[version].manifest, list(store.held[version].chunks)) for version in (FULL, DELTA)}
    for _ in range(rounds):
        version = rng.choice([FULL, DELTA])
        at = rng.randrange(-8, len(held[version][1]))
        if at < 0:
            store.held[version].manifest = mutate(rng, held[version][0])
        else:
            store.held[version].chunks[at] = mutate(rng, held[version][1][at])
        for read in (store.fetch, WeightBuffers(store).advance):
            try:
                found = read(version)
            except (CorruptError, StoreError):
                refused += 1
                continue
            assert (found.manifest, bits(found.arrays)) == (manifests[version], whole[version])
        store.held[version].manifest, store.held[version].chunks = held[version][0], list(held[version][1])
    return refused


def test_random_damage_is_never_accepted(app: App) -> None:
    assert damaged(app, 400) > 700


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ten_thousand_damages_are_never_accepted(app: App) -> None:
    assert damaged(app, 10_000) > 18_000


ODD = [0, -1, 1, 3, 2**31, 2**63, 10**40, 0.5, "", "x", "uint32", "float32", None, [], [3], [2, 7], {}, "rows", True]


def test_a_manifest_that_lies_with_a_digest_that_holds_is_refused_or_harmless(app: App) -> None:
    """Fields changed at random and digested again: an unsigned forgery may give other numbers, never a crash."""
    rng, store, refused = random.Random(3), published(app), 0
    base = store.fetch(FULL)
    before, honest = bits(base.arrays), json.loads(store.held[DELTA].manifest)
    for _ in range(600):
        forged = json.loads(json.dumps(honest))
        for _ in range(rng.randint(1, 2)):
            where = rng.choice([forged, *forged["blobs"]]) if isinstance(forged.get("blobs"), list) else forged
            if isinstance(where, dict):
                where[rng.choice(list(where))] = rng.choice(ODD)
        try:
            made = msgspec.convert(forged, WeightManifest)
        except msgspec.ValidationError:
            store.held[DELTA].manifest = json.dumps(forged).encode()
        else:
            store.held[DELTA].manifest = manifest_bytes(made)
        for read in (lambda: store.fetch(DELTA), lambda: store.fetch(DELTA, base=base)):
            try:
                found = read()
            except (CorruptError, StoreError):
                refused += 1
                continue
            assert {name: array.shape for name, array in found.arrays.items()} == {
                name: array.shape for name, array in base.arrays.items()
            }
        assert bits(base.arrays) == before
    assert refused > 600
