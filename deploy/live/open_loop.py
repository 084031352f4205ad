"""Load at a fixed schedule: a request leaves when it is due, whether or not those before it were answered.

A latency counts from when the request was due, not from when it was sent: a stall of the service, or of this process,
lengthens the latency of all that were due meanwhile (no coordinated omission; Tene, "How NOT to measure latency").
"""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from contracts.stores import Record
from nodes.clock import now_ms

_LEAD_S = 0.2  # from the call to the first request


class Asks(Protocol):
    """A client that sends requests in one thread and takes answers in another, as `nodes.ad_client.AdClient` does."""

    def send(self, requests: Sequence[bytes], *, ids: Sequence[bytes], at_ms: int, safe: bool) -> Any:
        """Send requests under correlation ids; not safe: without waiting until brokers have them."""
        ...

    def answers(self, max_wait_s: float) -> Iterable[tuple[bytes | None, Record]]:
        """Correlation id and answer of whatever comes next; none after `max_wait_s`."""
        ...


@dataclass(frozen=True, slots=True)
class Loaded:
    """What came of one span of load."""

    latency_ms: np.ndarray  #: float64, of each request that was answered, by its first answer
    behind_ms: np.ndarray  #: float64, of each request: how much later than due it left
    unanswered: int
    answers: list[tuple[Record, int]]  #: first answer, and when its request left, epoch milliseconds


def load(client: Asks, lines: Sequence[bytes], per_s: float, *, name: str, patience_s: float = 10.0) -> Loaded:
    """Ask all `lines`, one every 1 / per_s seconds.

    Args:
        client: nobody else's, as long as this goes on.
        lines: the requests.
        per_s: how many a second.
        name: correlation ids begin with it; another one each time.
        patience_s: to wait for answers after the last request.
    """
    ids = [f"{name}-{number}".encode() for number in range(len(lines))]
    place = {each: number for number, each in enumerate(ids)}
    began_s = time.perf_counter() + _LEAD_S
    due_s = began_s + np.arange(len(lines)) / per_s
    left_s, left_ms = np.zeros(len(lines)), np.zeros(len(lines), np.int64)
    came_s = np.full(len(lines), np.nan)
    first: dict[int, Record] = {}
    failed: list[BaseException] = []

    def send() -> None:
        try:
            for number, line in enumerate(lines):
                wait_s = due_s[number] - time.perf_counter()
                if wait_s > 0:
                    time.sleep(wait_s)
                left_s[number], left_ms[number] = time.perf_counter(), now_ms()
                client.send([line], ids=[ids[number]], at_ms=int(left_ms[number]), safe=False)
        except BaseException as error:  # told by the thread that waits
            failed.append(error)

    sender = threading.Thread(target=send, name="send", daemon=True)
    sender.start()
    _receive(client, place, came_s, first, sender.is_alive, due_s[-1] + patience_s)
    sender.join()
    if failed:
        raise failed[0]
    answered = np.isfinite(came_s)
    return Loaded(
        (came_s - due_s)[answered] * 1000,
        (left_s - due_s) * 1000,
        int((~answered).sum()),
        [(record, int(left_ms[number])) for number, record in first.items()],
    )


def _receive(
    client: Asks,
    place: dict[bytes, int],
    came_s: np.ndarray,
    first: dict[int, Record],
    sending: Callable[[], bool],
    until_s: float,
) -> None:
    while len(first) < len(place) and (sending() or time.perf_counter() < until_s):
        at_s = None
        for correlation_id, record in client.answers(0.05):
            at_s = at_s or time.perf_counter()
            number = place.get(correlation_id or b"")
            if number is not None and number not in first:
                first[number], came_s[number] = record, at_s
