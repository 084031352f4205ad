"""Versions of the light net in Redis or Valkey: immutable bytes first, the manifest next, the pointer last.

    ctr:<model>:v:<version>:b:<n>       chunks            written with an expiry, so that a crash leaves no waste
    ctr:<model>:v:<version>:manifest    JSON
    ctr:<model>:current                 the pointer       compare-and-set in Lua, with the fence epoch
    ctr:<model>:releases                a stream          who published or rolled back what, when and why

A reader that sees the pointer move therefore finds every byte; it verifies each before it believes any.
"""

import getpass
import json
import os
import socket
from collections.abc import Sequence
from typing import Any

import msgspec
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from contracts import names
from contracts.errors import CorruptError, FencedError, RocketError, StoreError
from contracts.weights import WeightManifest, Weights
from nodes import redis_scripts as lua
from nodes.redis_errors import masked, speaking
from nodes.verify_weights import MAX_MANIFEST_BYTES, assemble, manifest_bytes, read_manifest

#: Chunks of a version that is not yet released expire after that long.
STAGING_S = 3600
_MANIFESTS_AT_ONCE = 256
#: A publish looks for itself among the versions kept and so many before them.
_ALSO_COMPARED = 32


class RedisWeights:
    """A `WeightStore` in Redis or Valkey.

    Args:
        url: redis://, rediss:// or unix://, with user and password if the server wants them.
        model: names the keys; usually the app's name.
        schema_id: refuse versions of another feature table; None takes any (the scorer checks again).
        keep: so many of the newest versions never expire.
        ttl_s: older ones expire after that.
        who: stands in the stream of releases; user, host and process by default.
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
        keep: int = 5,
        ttl_s: int = 86_400,
        who: str | None = None,
        called: str | None = None,
        timeout_s: float = 10.0,
    ) -> None:
        self.called, self.model = called or masked(url), model
        self._schema_id, self._keep, self._ttl_s = schema_id, keep, ttl_s
        self._who = who or f"{_user()}@{socket.gethostname()}:{os.getpid()}"
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

    def take_epoch(self, above: int = 0) -> int:
        """A fence epoch larger than any before, and than `above`: an earlier taker can no longer publish."""
        return int(self._run(lua.TAKE_EPOCH, [names.current_key(self.model)], [above]))

    def publish(self, manifest: WeightManifest, chunks: Sequence[bytes]) -> WeightManifest:
        """Write a version whole and point at it; returns its manifest with the number that it got.

        The same arrays at the same position again change nothing: the manifest that is held comes back.

        Args:
            manifest: `model`, `version` and `digest` are filled in here; the number lies above the version given.
            chunks: of all its blobs, in order.

        Raises:
            FencedError: a publisher with a newer epoch has taken over.
            StoreError: Redis cannot be reached or refuses; nothing has changed for readers.
        """
        held = self._held(self._keep + _ALSO_COMPARED)
        for known in held:
            if _same(known, manifest):
                if manifest.epoch < (newest := self.epoch()):
                    raise self._fenced(newest)
                return known
        current = names.current_key(self.model)
        version = int(self._run(lua.RESERVE, [current], [manifest.epoch, manifest.version]))
        made = msgspec.structs.replace(manifest, model=self.model, version=version)
        data = manifest_bytes(made)
        keys = self._keys(made)
        with speaking(self.called):
            for key, chunk in zip(keys[1:], chunks, strict=True):
                self._redis.set(key, chunk, ex=STAGING_S)
            self._redis.set(keys[0], data, ex=STAGING_S)
        why = str(manifest.gate.get("reason") or "published without a gate")
        lengths = [len(data), *map(len, chunks)]
        self._run(
            lua.RELEASE,
            [current, names.releases_key(self.model), *keys],
            [version, manifest.epoch, self._who, why, *lengths],
        )
        self._retire([*held, made])
        return read_manifest(data, self.model, version)

    def fetch(self, version: int | None = None) -> Weights:
        """A whole, verified version; the current one by default.

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
        manifest = self.manifest(asked)
        name = f"version {asked} of model '{self.model}'"
        keys = self._keys(manifest)[1:]
        lengths = [length for blob in manifest.blobs for length in blob.chunks]
        with speaking(self.called):
            asking = self._redis.pipeline(transaction=False)
            for key in keys:
                asking.strlen(key)
            asking.exists(names.blob_key(self.model, asked, len(keys)))
            *found, extra = asking.execute()
        if extra:
            raise CorruptError(f"{name}: has more chunks than the {len(keys)} declared; publish it again or roll back")
        for number, (length, held) in enumerate(zip(lengths, found, strict=True)):
            if held != length:
                state = f"has {held} bytes instead of {length}" if held or not length else "is missing"
                raise CorruptError(f"{name}: chunk {number} {state}; publish it again or roll back")
        with speaking(self.called):
            chunks = [self._redis.get(key) or b"" for key in keys]
        return assemble(manifest, chunks)

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
            raise StoreError(f"{self.called}: no version {version} of model '{self.model}'; held: {held}")
        if data is None:
            raise CorruptError(f"version {version} of model '{self.model}': its manifest has {length} bytes")
        return read_manifest(data, self.model, version, self._schema_id)

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

    def rollback(self, version: int, why: str) -> None:
        """Point at an older version, on the record; versions published later still get larger numbers.

        Raises:
            StoreError: no such version, or Redis cannot be reached. CorruptError: it is not whole any more.
        """
        self.fetch(version)
        manifest = self.manifest(version)
        keys = self._keys(manifest)
        with speaking(self.called):
            length = int(self._redis.strlen(keys[0]))
        lengths = [length, *(length for blob in manifest.blobs for length in blob.chunks)]
        self._run(
            lua.ROLLBACK,
            [names.current_key(self.model), names.releases_key(self.model), *keys],
            [version, self._who, why, *lengths],
        )

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
            held: list[WeightManifest] = []
            for start in range(0, len(numbers), _MANIFESTS_AT_ONCE):
                some = numbers[start : start + _MANIFESTS_AT_ONCE]
                found = self._redis.mget([names.manifest_key(self.model, number) for number in some])
                for number, data in zip(some, found, strict=True):
                    try:
                        held += [read_manifest(data, self.model, number)] if data is not None else []
                    except RocketError:  # not listed: `fetch` says what is wrong with it
                        continue
        return held

    def _retire(self, held: list[WeightManifest]) -> None:
        """Let the versions beyond the newest `keep` expire."""
        for manifest in held[: -self._keep]:
            self._run(
                lua.EXPIRE, [names.current_key(self.model), *self._keys(manifest)], [manifest.version, self._ttl_s]
            )

    def _fenced(self, epoch: int | str) -> FencedError:
        return FencedError(
            f"{self.called}: a publisher with epoch {epoch} has taken over model '{self.model}', this one is older; "
            "stop this one, or start it again to take over"
        )

    def _run(self, script: str, keys: list[str], args: list[Any]) -> str:
        """Run a script and turn its refusals into errors."""
        with speaking(self.called):
            code, detail = (part.decode() for part in self._redis.eval(script, len(keys), *keys, *args))
        if code == "fenced":
            raise self._fenced(detail)
        if code == "corrupt":
            raise self._broken_pointer()
        if code == "older":
            raise StoreError(
                f"{self.called}: version {detail} of model '{self.model}' was published meanwhile; try again"
            )
        if code == "partial":
            raise StoreError(
                f"{self.called}: {detail} is not there whole (evicted or deleted); publish the version again"
            )
        return detail


def _same(known: WeightManifest, asked: WeightManifest) -> bool:
    """The same arrays at the same place of the log."""
    return (known.position, known.schema_id, known.blobs) == (asked.position, asked.schema_id, asked.blobs)


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's uid without a name
        return f"uid{os.getuid()}"
