"""What must be known of a request before it is read: how long it may take, and who is looking."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from contracts.app import App
from contracts.serving import UNREADABLE, echoed
from contracts.stores import Record

_MOST_TMAX_MS = 2**40
NEVER_MS = 2**62  #: a record without a timestamp has no deadline


class Peeked(NamedTuple):
    """What was seen; nothing of it is checked, and the reader's own answer counts."""

    id: str | None
    user_id: str | None
    deadline_ms: int  #: epoch milliseconds; `NEVER_MS` where there is none, or the request cannot be read


class RequestPeeker:
    """Looks at the envelope of requests, a fraction of the cost of reading them; made once.

    Args:
        app: its requests contract says where the user's id stands, its settings bound what is looked at.
    """

    def __init__(self, app: App) -> None:
        serving = app.config.serving
        self._max_bytes, self._tmax_ms = serving.max_request_bytes, serving.tmax_ms
        self.user_column = next((column.name for column in app.requests.columns if column.role == "user_id"), None)
        user = msgspec.defstruct("User", [("user_id", Any, None)], rename={"user_id": self.user_column or "user_id"})
        fields: list[tuple[str, Any, Any]] = [("id", Any, None), ("tmax", Any, None), ("user", user | None, None)]
        self._decode = msgspec.json.Decoder(msgspec.defstruct("Envelope", fields)).decode

    def peek(self, records: Sequence[Record]) -> list[Peeked]:
        """One a record; never raises."""
        return [self._peek(record) for record in records]

    def _peek(self, record: Record) -> Peeked:
        if len(record.value) > self._max_bytes:
            return _NOTHING
        try:
            seen: Any = self._decode(record.value)
        except UNREADABLE:
            return _NOTHING
        tmax = seen.tmax if type(seen.tmax) is int and 0 < seen.tmax < _MOST_TMAX_MS else self._tmax_ms
        deadline_ms = record.timestamp_ms + tmax if record.timestamp_ms else NEVER_MS
        user_id = seen.user.user_id if seen.user is not None else None
        return Peeked(echoed(seen.id), echoed(user_id), deadline_ms)


_NOTHING = Peeked(None, None, NEVER_MS)
