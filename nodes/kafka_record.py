"""A record as kafka-python gives it, as ours."""

from typing import Any

from contracts.stores import Record


def record_of(found: Any) -> Record:
    """The same content; what may be absent is empty."""
    return Record(
        found.key,
        found.value or b"",  # a tombstone is an empty request: it is refused, not passed over
        tuple((name, value or b"") for name, value in found.headers),
        found.timestamp,
        found.offset,
    )
