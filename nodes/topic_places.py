"""Beam's view of the topics' source: an element says which partitions, a restriction where each of them stands.

Both travel as JSON and MessagePack of a few bytes a partition, deterministic, never pickled.
"""

import msgspec
from apache_beam.coders import BytesCoder
from apache_beam.io.iobase import RestrictionProgress, RestrictionTracker
from apache_beam.transforms.core import RestrictionProvider

from contracts.events import Mark
from nodes.topic_partitions import Partition


class Split(msgspec.Struct, frozen=True):
    """The element: which partitions are read together."""

    brokers: tuple[str, ...]
    partitions: tuple[Partition, ...]
    start: tuple[Mark, ...]


class Places(msgspec.Struct, frozen=True, array_like=True):
    """The restriction: where the reader stands; Beam keeps it across failures."""

    marks: tuple[Mark, ...]
    begun: bool = False  #: the marks of the start are given
    done: bool = False  #: nothing is left


read_split = msgspec.json.Decoder(Split).decode
read_places = msgspec.msgpack.Decoder(Places).decode
write = msgspec.msgpack.Encoder().encode


class PlacesTracker(RestrictionTracker):
    """Claims places one after the other; splits only into what was read and the rest, never the rest in two."""

    def __init__(self, restriction: bytes) -> None:
        self._at, self._left = restriction, not read_places(restriction).done

    def current_restriction(self) -> bytes:
        return self._at

    def try_claim(self, position: bytes) -> bool:
        if not self._left:
            return False
        self._at, self._left = position, not read_places(position).done
        return True

    def try_split(self, fraction_of_remainder: float) -> tuple[bytes, bytes] | None:
        if fraction_of_remainder != 0 or not self._left:
            return None
        self._left = False
        rest = self._at
        self._at = write(Places((), begun=True, done=True))
        return self._at, rest

    def check_done(self) -> bool:
        if self._left:
            raise ValueError("a bundle of the topics' source ended without a place to go on from")
        return True

    def current_progress(self) -> RestrictionProgress:
        return RestrictionProgress(completed=0.0 if self._left else 1.0, remaining=1.0 if self._left else 0.0)

    def is_bounded(self) -> bool:
        return False


class PlacesProvider(RestrictionProvider):
    """Begins at the places that the element names; all its partitions stay together."""

    def initial_restriction(self, element: bytes) -> bytes:
        return write(Places(read_split(element).start))

    def create_tracker(self, restriction: bytes) -> PlacesTracker:
        return PlacesTracker(restriction)

    def restriction_size(self, element: bytes, restriction: bytes) -> int:
        return 1

    def restriction_coder(self) -> BytesCoder:
        return BytesCoder()

    def truncate(self, element: bytes, restriction: bytes) -> None:
        """Draining stops at once: what was not read stays in the topics."""
