"""Protocols that sources, sinks and stores satisfy; adapters live in `nodes`."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from contracts.segments import FeatureBatch
from contracts.weights import WeightManifest, Weights


class Record(NamedTuple):
    """One message of an event log."""

    key: bytes | None
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()
    timestamp_ms: int = 0
    offset: int = 0


class EventLog(Protocol):
    """An append-only log of messages, as a Kafka topic is one."""

    def poll(self, max_wait_ms: int, max_records: int) -> Sequence[Record]:
        """The next records, none after `max_wait_ms` without any."""
        ...

    def append(self, records: Sequence[Record]) -> None:
        """Write whole records; returns when they are safe."""
        ...

    def commit(self, *, wait: bool = True) -> None:
        """Everything polled so far is done with; without `wait` that is known some time later, with a later commit."""
        ...


class ExampleLog(Protocol):
    """The ordered log of segments between ingest and training."""

    def read(self, first_row: int, schema_id: str | None = None) -> Iterator[FeatureBatch]:
        """Segments from the one that holds `first_row`, in order, to the end; the first is cut to begin there.

        Args:
            first_row: a row number; that of the next row to come gives nothing.
            schema_id: refuse another one; None takes any.
        """
        ...

    def rows(self) -> int:
        """How many rows stand in it."""
        ...


class WeightStore(Protocol):
    """Immutable versions and a pointer to the current one (DESIGN.md, section 8)."""

    def publish(self, manifest: WeightManifest, chunks: Sequence[bytes]) -> WeightManifest:
        """Write the bytes, then the manifest, then move the pointer; the same position and digest again is a no-op.

        The number that it gets is larger than any before, and than `manifest.version`. A delta whose base is not held
        whole is refused (NotWholeError).
        """
        ...

    def current_version(self) -> int | None:
        """The version that the pointer names."""
        ...

    def fetch(self, version: int | None = None, *, base: Weights | None = None) -> Weights:
        """A whole, verified version, the current one by default, in arrays of its own.

        With a base that it was made from by deltas, only those are read.
        """
        ...

    def versions(self) -> list[WeightManifest]:
        """Manifests still held, oldest first."""
        ...

    def take_epoch(self, above: int = 0) -> int:
        """A fence epoch larger than any before, and than `above`: an earlier taker can no longer publish."""
        ...

    def epoch(self) -> int:
        """The newest fence epoch taken; 0 at first."""
        ...

    def rollback(self, version: int, why: str) -> None:
        """Point at an older version, on the record."""
        ...

    def newest_release(self) -> dict[str, str] | None:
        """The last entry of the record: at_ms, action ("publish", "rollback"), version, who, why; None before it."""
        ...

    def record_held(self, entry: Mapping[str, str]) -> None:
        """Put a held candidate on the record (`nodes.held.record_of`); moves no pointer and asks for no fence."""
        ...

    def tell_serving(self, version: int | None, since_ms: int, expires_s: float) -> None:
        """Say that this process answers with a version (None: the app's prior) since then; forgotten after a while."""
        ...
