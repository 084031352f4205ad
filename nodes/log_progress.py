"""How far the example log has come, told within one process: so a source can bound its lead over it."""

import threading

_LOCK = threading.Lock()
_SETTLED: dict[str, int] = {}


def set(run_id: str, event_time_ms: int) -> None:
    """All that was decided by this event time stands in the log; an earlier time than before changes nothing.

    It stands still while nothing settles: a reader that waits for it must go on after a moment without progress,
    because a gap in event time that is longer than its lead ends only with the event behind the gap.
    """
    with _LOCK:
        _SETTLED[run_id] = max(event_time_ms, _SETTLED.get(run_id, event_time_ms))


def get(run_id: str) -> int | None:
    """The newest of them; None before the first, and in a process where the log is not written.

    >>> get("a run"), set("a run", 5), set("a run", 3), get("a run")
    (None, None, None, 5)
    """
    with _LOCK:
        return _SETTLED.get(run_id)
