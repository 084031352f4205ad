"""Versions of the light net in Redis or Valkey: immutable bytes first, the manifest next, the pointer last.

    ctr:<model>:v:<version>:b:<n>       chunks            written with an expiry, so that a crash leaves no waste
    ctr:<model>:v:<version>:manifest    JSON
    ctr:<model>:current                 the pointer       compare-and-set in Lua, with the fence epoch
    ctr:<model>:releases                a stream          who published or rolled back what, when and why

A reader that sees the pointer move therefore finds every byte, those of a delta's bases too; it verifies each before it
believes any. A base does not expire before the versions that need it.
"""

import getpass
import os
import socket
from collections.abc import Sequence
from typing import Any

import msgspec

from contracts import names
from contracts.errors import FencedError, NotWholeError, StoreError
from contracts.weights import WeightManifest
from nodes import redis_scripts as lua
from nodes.chains import chain_of, dependents, same_arrays
from nodes.redis_errors import speaking
from nodes.redis_serving import ServingRecords
from nodes.redis_versions import RedisVersions
from nodes.verify_weights import encoded, manifest_bytes, read_manifest

#: Chunks of a version that is not yet released expire after that long.
STAGING_S = 3600
#: A publish looks for itself among the versions kept and so many before them.
_ALSO_COMPARED = 32
#: Chunks are sent together while they are small.
_SENT_BYTES = 4_194_304


class RedisWeights(RedisVersions, ServingRecords):
    """A `WeightStore` in Redis or Valkey.

    Args:
        url, model, schema_id, called, timeout_s: as of `RedisVersions`.
        keep: so many of the newest versions never expire, nor what they need.
        ttl_s: older ones expire after that.
        key: versions are signed with it, and refused where they are not; None: neither.
        who: stands in the stream of releases; user, host and process by default.

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
        key: bytes | None = None,
        who: str | None = None,
        called: str | None = None,
        timeout_s: float = 10.0,
    ) -> None:
        super().__init__(url, model, schema_id=schema_id, key=key, called=called, timeout_s=timeout_s)
        self._keep, self._ttl_s = keep, ttl_s
        self._released: int | None = None  # by this one, last; what follows holds as long as nobody did anything since
        self._retired: set[int] = set()  # versions that expire
        self._bases: dict[int, WeightManifest] = {}  # older than those held, and needed by them
        self._who = who or f"{_user()}@{socket.gethostname()}:{os.getpid()}"

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
            NotWholeError: the base of a delta is not held whole any more; publish the same as a full version.
            StoreError: Redis cannot be reached or refuses; nothing has changed for readers.
        """
        held = {known.version: known for known in self._held(self._keep + _ALSO_COMPARED)}
        for known in held.values():
            if same_arrays(known, manifest):
                if manifest.epoch < (newest := self.epoch()):
                    raise self._fenced(newest)
                return known
        if len(chunks) != sum(len(blob.chunks) for blob in manifest.blobs):
            raise NotWholeError(f"{self.called}: what should be there already is not; publish it again whole")
        bases = chain_of(lambda version: held.get(version) or self.manifest(version), manifest)[1:]
        current = names.current_key(self.model)
        version = int(self._run(lua.RESERVE, [current], [manifest.epoch, manifest.version]))
        data = manifest_bytes(msgspec.structs.replace(manifest, model=self.model, version=version), self._key)
        made = read_manifest(data, self.model, version, key=self._key)
        keys = self._keys(made)
        with speaking(self.called):
            writing, size = self._redis.pipeline(transaction=False), 0
            for key, chunk in zip(keys[1:], chunks, strict=True):
                writing.set(key, chunk, ex=STAGING_S)
                size += len(chunk)
                if size >= _SENT_BYTES:
                    writing.execute()
                    size = 0
            writing.set(keys[0], data, ex=STAGING_S)
            writing.execute()
        why = str(manifest.gate.get("reason") or "published without a gate")
        if not self._undisturbed():
            self._retired, self._bases = set(), {}
        self._move(lua.RELEASE, [made, *bases], [version, manifest.epoch, self._who, why])
        self._released = version
        self._retire(held | {version: made})
        return made

    def _undisturbed(self) -> bool:
        """Whether the last release of all is this one's: else a rollback may have kept versions from expiring."""
        newest = self.newest_release()
        return newest is not None and (newest["action"], newest["version"]) == ("publish", str(self._released))

    def rollback(self, version: int, why: str) -> None:
        """Point at an older version, on the record; versions published later still get larger numbers.

        Raises:
            StoreError: no such version, or Redis cannot be reached. CorruptError: it is not whole any more.
        """
        self.fetch(version)
        self._move(lua.ROLLBACK, chain_of(self.manifest, self.manifest(version)), [version, self._who, why])

    def _move(self, script: str, chain: Sequence[WeightManifest], args: list[Any]) -> None:
        """Move the pointer to the first of the chain, if all of it is there whole."""
        keys = [key for manifest in chain for key in self._keys(manifest)]
        lengths: list[int] = []
        for manifest in chain:
            lengths += [len(encoded(manifest)), *(length for blob in manifest.blobs for length in blob.chunks)]
        self._run(script, [names.current_key(self.model), names.releases_key(self.model), *keys], [*args, *lengths])

    def _retire(self, held: dict[int, WeightManifest]) -> None:
        """Let the versions expire that none of the newest `keep` needs, nor the current one."""
        current = self.current_version()
        kept = [*sorted(held)[-self._keep :], *([] if current is None else [current])]

        def manifest_of(version: int) -> WeightManifest:
            if version not in held and version not in self._bases:
                self._bases[version] = self.manifest(version)
            return held.get(version) or self._bases[version]

        needed_by = dependents(held, manifest_of)
        asked = {}
        for version, (manifest, needing) in sorted(needed_by.items()):
            if not needing.intersection(kept) and version not in self._retired:
                keys = [names.current_key(self.model), *self._keys(manifest)]
                asked[version] = keys, [self._ttl_s, version, *sorted(needing - {version})]
        self._run_all(lua.EXPIRE, list(asked.values()))
        self._retired = (self._retired | asked.keys()) & needed_by.keys()
        self._bases = {version: known for version, known in self._bases.items() if version in needed_by}

    def _fenced(self, epoch: int | str) -> FencedError:
        return FencedError(
            f"{self.called}: a publisher with epoch {epoch} has taken over model '{self.model}', this one is older; "
            "stop this one, or start it again to take over"
        )

    def _run(self, script: str, keys: list[str], args: list[Any]) -> str:
        """Run a script and turn its refusals into errors."""
        (detail,) = self._run_all(script, [(keys, args)])
        return detail

    def _run_all(self, script: str, asked: Sequence[tuple[list[str], list[Any]]]) -> list[str]:
        """Likewise with each of these keys and arguments, in one exchange."""
        with speaking(self.called):
            writing = self._redis.pipeline(transaction=False)
            for keys, args in asked:
                writing.eval(script, len(keys), *keys, *args)
            answers = writing.execute(raise_on_error=False)  # it would put the script's text before what is wrong
            for answer in answers:
                if isinstance(answer, Exception):
                    raise answer
        return [self._told(*map(bytes.decode, answer)) for answer in answers]

    def _told(self, code: str, detail: str) -> str:
        """What a script says; its refusals as errors."""
        if code == "fenced":
            raise self._fenced(detail)
        if code == "corrupt":
            raise self._broken_pointer()
        if code == "older":
            raise StoreError(
                f"{self.called}: version {detail} of model '{self.model}' was published meanwhile; try again"
            )
        if code == "partial":
            raise NotWholeError(
                f"{self.called}: {detail} is not there whole (evicted or deleted); publish the version again"
            )
        return detail


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's uid without a name
        return f"uid{os.getuid()}"
