"""What travels between ingest's Beam nodes, each with its own coder: Arrow IPC, never pickle."""

import struct
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import polars as pl
from apache_beam.coders.typecoders import registry

from contracts.events import Mark
from contracts.segments import FeatureBatch, decode_segment, encode_segment
from nodes.coders import from_bytes, to_bytes
from nodes.join import Settled

_LENGTH = struct.Struct("<q")
_MARK = struct.Struct("<qq")


@dataclass(frozen=True, slots=True)
class Chunk:
    """Checked events of one stream: the contract's columns, then the ORIGIN columns."""

    stream: str  #: impressions | clicks
    frame: pl.DataFrame


@dataclass(frozen=True, slots=True)
class Ordered:
    """Rows in log order, and the number of the first of them in the example log."""

    first_row: int
    frame: pl.DataFrame


class ChunkCoder(beam.coders.Coder):
    """Beam coder for `Chunk`."""

    def encode(self, value: Chunk) -> bytes:
        """The stream's name, then Arrow IPC bytes."""
        return value.stream.encode() + b"\n" + to_bytes(value.frame)

    def decode(self, encoded: bytes) -> Chunk:
        """The chunk back.

        >>> ChunkCoder().decode(ChunkCoder().encode(Chunk("clicks", pl.DataFrame({"a": [1]})))).stream
        'clicks'
        """
        stream, _, frame = encoded.partition(b"\n")
        return Chunk(stream.decode(), from_bytes(frame))

    def is_deterministic(self) -> bool:
        """The same chunk gives the same bytes."""
        return True

    def to_type_hint(self) -> Any:
        """The type that it codes."""
        return Chunk


class MarkCoder(beam.coders.Coder):
    """Beam coder for `Mark`."""

    def encode(self, value: Mark) -> bytes:
        """Both numbers, then the origin.

        >>> MarkCoder().decode(MarkCoder().encode(Mark("t:0", 7, -5)))
        Mark(origin='t:0', offset=7, newest_ms=-5)
        """
        return _MARK.pack(value.offset, value.newest_ms) + value.origin.encode()

    def decode(self, encoded: bytes) -> Mark:
        """The mark back."""
        return Mark(encoded[_MARK.size :].decode(), *_MARK.unpack_from(encoded))

    def is_deterministic(self) -> bool:
        """The same mark gives the same bytes."""
        return True

    def to_type_hint(self) -> Any:
        """The type that it codes."""
        return Mark


class OrderedCoder(beam.coders.Coder):
    """Beam coder for `Ordered`."""

    def encode(self, value: Ordered) -> bytes:
        """The row number, then Arrow IPC bytes."""
        return _LENGTH.pack(value.first_row) + to_bytes(value.frame)

    def decode(self, encoded: bytes) -> Ordered:
        """The rows back."""
        return Ordered(_LENGTH.unpack_from(encoded)[0], from_bytes(encoded[_LENGTH.size :]))

    def is_deterministic(self) -> bool:
        """The same rows give the same bytes."""
        return True

    def to_type_hint(self) -> Any:
        """The type that it codes."""
        return Ordered


class SettledCoder(beam.coders.Coder):
    """Beam coder for `Settled`."""

    def encode(self, value: Settled) -> bytes:
        """The examples' length, the examples, the fates."""
        examples = to_bytes(value.examples)
        return _LENGTH.pack(len(examples)) + examples + to_bytes(value.fates)

    def decode(self, encoded: bytes) -> Settled:
        """Both frames back."""
        cut = _LENGTH.size + _LENGTH.unpack_from(encoded)[0]
        return Settled(from_bytes(encoded[_LENGTH.size : cut]), from_bytes(encoded[cut:]))

    def is_deterministic(self) -> bool:
        """The same frames give the same bytes."""
        return True

    def to_type_hint(self) -> Any:
        """The type that it codes."""
        return Settled


class FeatureBatchCoder(beam.coders.Coder):
    """Beam coder for `FeatureBatch`: a segment's bytes."""

    def encode(self, value: FeatureBatch) -> bytes:
        """A segment without an app's name."""
        return encode_segment(value, "")

    def decode(self, encoded: bytes) -> FeatureBatch:
        """The batch back."""
        return decode_segment(encoded)

    def is_deterministic(self) -> bool:
        """The same batch gives the same bytes."""
        return True

    def to_type_hint(self) -> Any:
        """The type that it codes."""
        return FeatureBatch


for _type, _coder in (
    (Chunk, ChunkCoder),
    (Mark, MarkCoder),
    (Ordered, OrderedCoder),
    (Settled, SettledCoder),
    (FeatureBatch, FeatureBatchCoder),
):
    registry.register_coder(_type, _coder)
