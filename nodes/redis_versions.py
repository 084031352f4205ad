"""Versions of the light net in Redis or Valkey, as a reader sees them: each byte verified before it is believed.

ctr:<model>:v:<version>:b:<n>       chunks
ctr:<model>:v:<version>:manifest    JSON
ctr:<model>:current                 the pointer: JSON, as `redis_scripts` says
ctr:<model>:releases                a stream: who published or rolled back what, when and why
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from contracts import names
from contracts.errors import CorruptError, NoVersionError, RocketError, StoreError
from contracts.weights import WeightManifest, Weights
from nodes.chains import Steps, fetch, read_steps
from nodes.redis_errors import masked, speaking
from nodes.verify_weights import MAX_MANIFEST_BYTES, read_manifest

_MANIFESTS_AT_ONCE = 256
#: Chunks are read together while they are small.
_READ_BYTES = 8_388_608


class RedisVersions:
    """Reads versions.

    Args:
        url: redis://, rediss:// or unix://, with user and password if the server wants them.
        model: names the keys; usually the app's name.
        schema_id: refuse versions of another feature table; None takes any (the scorer checks again).
        key: refuse versions that were not signed with it; None takes all.
        called: what errors call it; the URL, without its password, by default.

    Raises:
        StoreError: the URL is none.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        schema_id: str | None = None,
        key: bytes | None = None,
        called: str | None = None,
        timeout_s: float = 10.0,
    ) -> None:
        self.called, self.model = called or masked(url), model
        self._schema_id, self._key = schema_id, key
        self._verified: dict[int, tuple[bytes, WeightManifest]] = {}  # of the versions held: what was read, and says
        try:
            self._redis: Any = redis.Redis.from_url(
                url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, retry=Retry(NoBackoff(), 1)
            )
        except ValueError as error:
            raise StoreError(f"{self.called}: not a Redis URL ({error}); write redis://host:port/0") from error

    def close(self) -> None:
        """Let go of the connections."""
        self._redis.close()

    def current_version(self) -> int | None:
        """The version that the pointer names; None before the first."""
        return int(self._pointer()["version"]) or None

    def epoch(self) -> int:
        """The newest fence epoch taken; 0 at first."""
        return int(self._pointer()["epoch"])

    def fetch(self, version: int | None = None, *, base: Weights | None = None) -> Weights:
        """A whole, verified version, the current one by default, in arrays of its own.

        Args:
            version: its number.
            base: what the reader holds: where the version was made from it by deltas, only those are read.

        Raises:
            StoreError: no such version, or Redis cannot be reached.
            CorruptError: a byte, a chunk, a shape or a number is not what was published.
            SchemaMismatchError: made for another feature table.
        """
        asked = version if version is not None else self.current_version()
        if asked is None:
            raise StoreError(
                f"{self.called}: no version of model '{self.model}' is published; run `rocket publish` first"
            )
        return fetch(self, asked, base)

    def steps(self, version: int, base: Weights | None = None, into: Mapping[str, np.ndarray] | None = None) -> Steps:
        """What leads to a version from the base, or from a full one: verified, not applied.

        Raises:
            StoreError, CorruptError, SchemaMismatchError: as `fetch`.
        """
        return read_steps(self, version, base, into)

    def chunks(self, manifest: WeightManifest) -> Iterator[bytes]:
        """The chunks of a version in order, each of the length that is declared.

        Raises:
            CorruptError: one is missing, too many, or of another length.
        """
        name = f"version {manifest.version} of model '{self.model}'"
        keys = self._keys(manifest)[1:]
        lengths = [length for blob in manifest.blobs for length in blob.chunks]
        with speaking(self.called):
            asking = self._redis.pipeline(transaction=False)
            for key in keys:
                asking.strlen(key)
            asking.exists(names.blob_key(self.model, manifest.version, len(keys)))
            *found, extra = asking.execute()
        if extra:
            raise CorruptError(f"{name}: has more chunks than the {len(keys)} declared; publish it again or roll back")
        for number, (length, held) in enumerate(zip(lengths, found, strict=True)):
            if held != length:
                state = f"has {held} bytes instead of {length}" if held or not length else "is missing"
                raise CorruptError(f"{name}: chunk {number} {state}; publish it again or roll back")
        start = 0
        while start < len(keys):
            stop, size = start + 1, lengths[start]
            while stop < len(keys) and size + lengths[stop] <= _READ_BYTES:
                size, stop = size + lengths[stop], stop + 1
            with speaking(self.called):
                some = self._redis.mget(keys[start:stop])
            yield from (chunk or b"" for chunk in some)
            start = stop

    def manifest(self, version: int) -> WeightManifest:
        """The verified manifest of a version, without its arrays.

        Raises:
            StoreError: no such version. CorruptError, SchemaMismatchError: as `fetch`.
        """
        key = names.manifest_key(self.model, version)
        with speaking(self.called):
            length = int(self._redis.strlen(key))
            data = self._redis.get(key) if 0 < length <= MAX_MANIFEST_BYTES else None
        if not length:
            held = ", ".join(str(known.version) for known in self._held()) or "none"
            raise NoVersionError(f"{self.called}: no version {version} of model '{self.model}'; held: {held}")
        if data is None:
            raise CorruptError(f"version {version} of model '{self.model}': its manifest has {length} bytes")
        return read_manifest(data, self.model, version, self._schema_id, key=self._key)

    def versions(self) -> list[WeightManifest]:
        """Manifests of the released versions still held, oldest first; broken ones are left out."""
        return self._held()

    def releases(self, count: int = 100) -> list[dict[str, str]]:
        """The newest entries of the stream of releases, oldest first: at_ms, action, version, from, epoch, who, why."""
        with speaking(self.called):
            entries = self._redis.xrevrange(names.releases_key(self.model), count=count)
        return [
            {"at_ms": at.decode().split("-")[0]} | {k.decode(): v.decode(errors="replace") for k, v in fields.items()}
            for at, fields in reversed(entries)
        ]

    def _keys(self, manifest: WeightManifest) -> list[str]:
        """Manifest and chunk keys of a version."""
        count = sum(len(blob.chunks) for blob in manifest.blobs)
        blobs = [names.blob_key(self.model, manifest.version, number) for number in range(count)]
        return [names.manifest_key(self.model, manifest.version), *blobs]

    def _pointer(self) -> dict[str, Any]:
        with speaking(self.called):
            raw = self._redis.get(names.current_key(self.model))
        if raw is None:
            return {"version": 0, "epoch": 0, "last": 0, "released": 0}
        try:
            pointer = json.loads(raw)
            return {name: int(pointer[name]) for name in ("version", "epoch", "last", "released")}
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise self._broken_pointer() from error

    def _broken_pointer(self) -> CorruptError:
        key = names.current_key(self.model)
        return CorruptError(
            f"{self.called}: the pointer {key} is not one; delete that key, then publish or `rocket rollback` again"
        )

    def _held(self, newest: int | None = None) -> list[WeightManifest]:
        """Manifests of the released versions (or only of the last so many releases), oldest first."""
        with speaking(self.called):
            entries = self._redis.xrevrange(names.releases_key(self.model), count=newest)
            # a rollback names one too: older than the others, it must be seen again to expire once it is not live
            numbers = sorted({int(fields[b"version"]) for _, fields in entries})
            held: list[WeightManifest | None] = []
            for start in range(0, len(numbers), _MANIFESTS_AT_ONCE):
                some = numbers[start : start + _MANIFESTS_AT_ONCE]
                found = self._redis.mget([names.manifest_key(self.model, number) for number in some])
                held += [self._read_again(number, data) for number, data in zip(some, found, strict=True)]
        self._verified = {number: known for number, known in self._verified.items() if number in numbers}
        return [manifest for manifest in held if manifest is not None]

    def _read_again(self, version: int, data: bytes | None) -> WeightManifest | None:
        """A manifest that is there and good; the very bytes that were good before are not judged anew."""
        if data is None:
            return None
        known = self._verified.get(version)
        if known is not None and known[0] == data:
            return known[1]
        try:
            manifest = read_manifest(data, self.model, version, key=self._key)
        except RocketError:  # not listed: `fetch` says what is wrong with it
            return None
        self._verified[version] = data, manifest
        return manifest
