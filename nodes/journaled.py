"""Stateful Beam nodes around a pure core that stays in memory; Beam's state is there to rebuild it, and only then read.

    memory ──entry──▶ core ──▶ answer             the good case: one entry is appended, one token renewed
    state:   snapshot + journal of entries + token

The memory of a process may lag behind Beam's state or run ahead of it: a bundle that fails, a runner that goes back to
a checkpoint, a key that moves between workers. So each write renews a random token in the state, and what is in memory
counts only while it holds the same token; else the core is rebuilt from the snapshot and the entries after it, in their
order. Once the journal outgrows the snapshot a new snapshot takes their place.
"""

import struct
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, Protocol, TypeVar

from apache_beam.coders import BytesCoder
from apache_beam.metrics.metric import Metrics
from apache_beam.transforms.userstate import BagStateSpec, ReadModifyWriteStateSpec

SNAPSHOT = BagStateSpec("snapshot", BytesCoder())  #: the core at some moment, in pieces
JOURNAL = BagStateSpec("journal", BytesCoder())  #: the entries since then, each behind its number
TOKEN = ReadModifyWriteStateSpec("token", BytesCoder())  #: renewed with each write

_PIECE_BYTES = 1 << 20
_JOURNAL_BYTES = 4 << 20
_NUMBER, _PART = struct.Struct(">q"), struct.Struct("<qq")
_LOCK = threading.Lock()
_MEMORY: dict[tuple[str, Any], "Held[Any]"] = {}


class Core(Protocol):
    """What is kept: all that it does, it does by entries, and the same entries do the same again."""

    def apply(self, entry: bytes) -> Any:
        """Take one entry; the answer is thrown away where it is taken again."""
        ...

    def snapshot(self) -> dict[str, bytes]:
        """Everything that it remembers."""
        ...

    def restore(self, parts: dict[str, bytes]) -> None:
        """Go on from a snapshot."""
        ...


C = TypeVar("C", bound=Core)


class Held(Generic[C]):
    """A core and what is written of it, while a bundle has it."""

    def __init__(self, core: C) -> None:
        self.core = core
        self.token: bytes | None = None
        self.next_number = 0
        self.journal_bytes = self.snapshot_bytes = 0
        self.touched = False
        self._journal: Any = None

    def apply(self, entry: bytes) -> Any:
        """Write the entry down, and let the core take it."""
        self._journal.add(_NUMBER.pack(self.next_number) + entry)
        self.next_number, self.journal_bytes, self.touched = (
            self.next_number + 1,
            self.journal_bytes + len(entry),
            True,
        )
        return self.core.apply(entry)

    def bind(self, journal: Any) -> None:
        """From now on entries go into this bag."""
        self._journal, self.touched = journal, False


class Journaled(Generic[C]):
    """The cores of one stateful node, by key; it travels to workers, the cores do not.

    Costs a read of 16 bytes and an append a bundle and key; a snapshot each time the journal has outgrown the last.
    """

    def __init__(
        self, make: Callable[[], C], *, journal_bytes: int = _JOURNAL_BYTES, snapshot_first: bool = False
    ) -> None:
        """Make a core by `make`, which travels to workers too.

        Args:
            make: gives an empty core.
            journal_bytes: a shorter journal is no reason for a new snapshot.
            snapshot_first: what `make` gives is not empty, and may not be made again later.
        """
        self._make, self._journal_bytes, self._snapshot_first = make, journal_bytes, snapshot_first
        self._node = uuid.uuid4().hex

    @contextmanager
    def open(self, key: Any, snapshot: Any, journal: Any, token: Any) -> Iterator[Held[C]]:
        """The core of a key, for one call; where the call fails, it is forgotten and rebuilt at the next one.

        Args:
            key: of the element or the timer.
            snapshot: the state handle of SNAPSHOT.
            journal: that of JOURNAL.
            token: that of TOKEN.
        """
        standing = token.read()
        with _LOCK:
            held = _MEMORY.pop((self._node, key), None)
        if held is None or held.token != standing:
            held = self._rebuilt(snapshot.read(), journal.read(), standing)
        held.bind(journal)
        yield held
        if held.touched:
            first = self._snapshot_first and standing is None
            if first or held.journal_bytes > max(self._journal_bytes, held.snapshot_bytes):
                _compact(held, snapshot, journal)
            held.token = uuid.uuid4().bytes
            token.write(held.token)
        with _LOCK:
            _MEMORY[self._node, key] = held

    def _rebuilt(self, snapshot: Iterable[bytes], journal: Iterable[bytes], token: bytes | None) -> Held[C]:
        held = Held(self._make())
        held.token = token
        if token is None:
            return held
        Metrics.counter("rocket", "ctr_journaled_rebuilds_total").inc()
        pieces = sorted(snapshot)
        if pieces:
            whole = b"".join(piece[_NUMBER.size :] for piece in pieces)
            held.core.restore(_unpacked(whole))
            held.snapshot_bytes = len(whole)
        for numbered in sorted(journal):  # a bag promises no order
            entry = numbered[_NUMBER.size :]
            held.core.apply(entry)
            held.next_number = _NUMBER.unpack_from(numbered)[0] + 1
            held.journal_bytes += len(entry)
        return held


def _compact(held: Held[Any], snapshot: Any, journal: Any) -> None:
    whole = _packed(held.core.snapshot())
    snapshot.clear()
    journal.clear()
    for number, start in enumerate(range(0, len(whole), _PIECE_BYTES)):
        snapshot.add(_NUMBER.pack(number) + whole[start : start + _PIECE_BYTES])
    held.snapshot_bytes, held.journal_bytes = len(whole), 0


def _packed(parts: dict[str, bytes]) -> bytes:
    """Names and bytes, each behind its length.

    >>> _unpacked(_packed({"a": b"x", "b": b""}))
    {'a': b'x', 'b': b''}
    """
    return b"".join(_PART.pack(len(name.encode()), len(data)) + name.encode() + data for name, data in parts.items())


def _unpacked(whole: bytes) -> dict[str, bytes]:
    parts, at = {}, 0
    while at < len(whole):
        name_bytes, data_bytes = _PART.unpack_from(whole, at)
        at += _PART.size
        name, at = whole[at : at + name_bytes].decode(), at + name_bytes
        parts[name], at = whole[at : at + data_bytes], at + data_bytes
    return parts
