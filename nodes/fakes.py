"""Stores in memory and a clock set by hand, for tests and examples: they keep the same promises as the real ones."""

import dataclasses
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec
import numpy as np

from contracts.errors import CorruptError, FencedError, NotWholeError, NoVersionError, StoreError
from contracts.stores import Record
from contracts.weights import WeightManifest, Weights
from nodes.chains import Steps, chain_of, fetch, read_steps, same_arrays
from nodes.verify_weights import manifest_bytes, read_manifest


class ManualClock:
    """A clock that moves only when told.

    >>> clock = ManualClock(1000)
    >>> clock.advance(5)
    >>> clock()
    1005
    """

    def __init__(self, at_ms: int = 0) -> None:
        self.at_ms = at_ms

    def __call__(self) -> int:
        """Epoch milliseconds."""
        return self.at_ms

    def advance(self, by_ms: int) -> None:
        """Let time pass."""
        self.at_ms += by_ms


class MemoryLog:
    """An `EventLog`: what is polled but not committed comes again after `restart`, as after a crash.

    >>> log = MemoryLog([b"a", b"b"])
    >>> [record.value for record in log.poll(0, 1)], log.committed
    ([b'a'], 0)
    >>> log.restart()
    >>> [record.value for record in log.poll(0, 10)]
    [b'a', b'b']
    """

    def __init__(self, values: Sequence[bytes] = (), *, clock_ms: Callable[[], int] | None = None) -> None:
        self._clock_ms = clock_ms or ManualClock()
        self._lock = threading.Condition()
        self.records: list[Record] = []
        self.committed = 0  #: records done with
        self._next = 0
        self.fail_append: Exception | None = None  #: raised by `append`, once
        self.fail_commit: Exception | None = None  #: raised by `commit`, once
        self.append([Record(None, value) for value in values])

    def poll(self, max_wait_ms: int, max_records: int) -> Sequence[Record]:
        """The next records, none after `max_wait_ms` without any."""
        with self._lock:
            if self._next >= len(self.records) and max_wait_ms:
                self._lock.wait(max_wait_ms / 1000)
            found = self.records[self._next : self._next + max_records]
            self._next += len(found)
            return found

    def append(self, records: Sequence[Record]) -> None:
        """Write records; each gets its offset, and the time where it has none."""
        with self._lock:
            failure, self.fail_append = self.fail_append, None
            if failure is not None:
                raise failure
            for record in records:
                stamped = record._replace(
                    offset=len(self.records), timestamp_ms=record.timestamp_ms or self._clock_ms()
                )
                self.records.append(stamped)
            self._lock.notify_all()

    def commit(self, *, wait: bool = True) -> None:
        """Everything polled so far is done with, at once whether or not that is waited for."""
        del wait
        with self._lock:
            failure, self.fail_commit = self.fail_commit, None
            if failure is not None:
                raise failure
            self.committed = self._next

    def restart(self) -> None:
        """A new reader begins behind the last commit."""
        with self._lock:
            self._next = self.committed


@dataclasses.dataclass
class _Held:
    manifest: bytes
    chunks: list[bytes]


class MemoryWeights:
    """A `WeightStore` in a dictionary; keeps bytes, so that a test can break them as it can in Redis.

    Args:
        model: whose versions these are.
        schema_id: refuse versions of another feature table; None takes any.
        key: versions are signed with it, and refused where they are not; None: neither.
    """

    def __init__(self, model: str, *, schema_id: str | None = None, key: bytes | None = None) -> None:
        self.model, self._schema_id, self._key = model, schema_id, key
        self.held: dict[int, _Held] = {}  #: version -> its bytes
        self.releases: list[tuple[str, int, str]] = []  #: (publish or rollback, version, why)
        self.fail: Exception | None = None  #: raised by every call while it is set
        self.held_records: list[dict[str, str]] = []  #: candidates held, oldest first
        self.serving_told: tuple[int | None, int, float] | None = None  #: version, since, expires after
        self._current: int | None = None
        self._epoch = self._last = 0

    def _speak(self) -> None:
        if self.fail is not None:
            raise self.fail

    def current_version(self) -> int | None:
        """The version that the pointer names."""
        self._speak()
        return self._current

    def epoch(self) -> int:
        """The newest fence epoch taken; 0 at first."""
        self._speak()
        return self._epoch

    def take_epoch(self, above: int = 0) -> int:
        """A fence epoch larger than any before, and than `above`."""
        self._speak()
        self._epoch = max(self._epoch, above) + 1
        return self._epoch

    def wipe(self) -> None:
        """Forget everything, as a server that lost its data does."""
        self.held, self._current, self._epoch, self._last = {}, None, 0, 0

    def publish(self, manifest: WeightManifest, chunks: Sequence[bytes]) -> WeightManifest:
        """Keep a version and point at it; the same arrays at the same position again change nothing."""
        self._speak()
        for known in self.versions():
            if same_arrays(known, manifest):
                return known
        if len(chunks) != sum(len(blob.chunks) for blob in manifest.blobs):
            raise NotWholeError(f"model '{self.model}': what should be there already is not; publish it again whole")
        chain_of(self.manifest, manifest)
        if manifest.epoch < self._epoch:
            raise FencedError(f"epoch {self._epoch} has taken over model '{self.model}'; stop this publisher")
        self._epoch = manifest.epoch
        self._last = max(self._last, manifest.version) + 1
        made = msgspec.structs.replace(manifest, model=self.model, version=self._last)
        data = manifest_bytes(made, self._key)
        self.held[self._last] = _Held(data, list(chunks))
        self._current = self._last
        self.releases.append(("publish", self._last, str(manifest.gate.get("reason"))))
        return self.manifest(self._last)

    def fetch(self, version: int | None = None, *, base: Weights | None = None) -> Weights:
        """A whole, verified version, the current one by default; of one made from the base only the deltas are read."""
        self._speak()
        asked = version if version is not None else self._current
        if asked is None:
            raise StoreError(f"no version of model '{self.model}' is published; run `rocket publish` first")
        return fetch(self, asked, base)

    def steps(self, version: int, base: Weights | None = None, into: Mapping[str, np.ndarray] | None = None) -> Steps:
        """What leads to a version from the base, or from a full one: verified, not applied."""
        self._speak()
        return read_steps(self, version, base, into)

    def manifest(self, version: int) -> WeightManifest:
        """The verified manifest of a version."""
        if version not in self.held:
            raise NoVersionError(f"no version {version} of model '{self.model}'; held: {sorted(self.held)}")
        return read_manifest(self.held[version].manifest, self.model, version, self._schema_id, key=self._key)

    def chunks(self, manifest: WeightManifest) -> Iterator[bytes]:
        """The chunks of a version in order."""
        yield from self.held[manifest.version].chunks

    def versions(self) -> list[WeightManifest]:
        """Manifests still held, oldest first; broken ones are left out."""
        self._speak()
        found: list[WeightManifest] = []
        for version, held in sorted(self.held.items()):
            try:
                found.append(read_manifest(held.manifest, self.model, version, key=self._key))
            except CorruptError:
                continue
        return found

    def rollback(self, version: int, why: str) -> None:
        """Point at an older version, on the record."""
        self._speak()
        fetch(self, version)
        self._current = version
        self.releases.append(("rollback", version, why))

    def newest_release(self) -> dict[str, str] | None:
        """The last entry of the record."""
        self._speak()
        if not self.releases:
            return None
        action, version, why = self.releases[-1]
        return {"at_ms": str(len(self.releases)), "action": action, "version": str(version), "who": "test", "why": why}

    def record_held(self, entry: Mapping[str, str]) -> None:
        """Keep a held candidate's entry."""
        self._speak()
        self.held_records.append(dict(entry))

    def tell_serving(self, version: int | None, since_ms: int, expires_s: float) -> None:
        """Keep what was told last."""
        self._speak()
        self.serving_told = (version, since_ms, expires_s)
