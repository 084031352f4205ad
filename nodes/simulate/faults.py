"""What goes wrong on the way from the browser to the log: repeats, stragglers, strays and damaged lines."""

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from contracts.errors import ContractError
from nodes.simulate.effects import Ints

_USED_DISORDER = 0.9  # of `disorder_s`: what arrives on time stays clear of the edge
_TIME = re.compile(rb'("event_time_ms":)(\d+)')


@dataclass(frozen=True, slots=True)
class Faults:
    """Rates of planted faults, each a share of a stream's proper events, and the times they are measured by.

    An event gets at most one of duplicates and late; damaged lines and orphans come on top of the proper events.
    """

    duplicates: float = 0.01  #: sent again: the same bytes, or the same event some seconds later
    late: float = 0.002  #: arrive further behind than `disorder_s`
    orphans: float = 0.002  #: clicks without an impression, a share of the clicks
    malformed: float = 0.001  #: damaged copies of an event
    disorder_s: float = 60.0  #: events are permuted within that span
    wait_s: float = 600.0  #: a later click does not count
    dedupe_s: float = 3600.0  #: an impression is forgotten after it

    def checked(self) -> "Faults":
        """The same.

        Raises:
            ContractError: a rate is outside 0 to 1, or a time is negative.
        """
        for name in ("duplicates", "late", "orphans", "malformed"):
            if not 0 <= getattr(self, name) <= 1:
                raise ContractError(f"simulate: {name} = {getattr(self, name)} is no rate; give one from 0 to 1")
        if self.duplicates + self.late > 1:
            raise ContractError("simulate: duplicates + late is above 1, but an event gets at most one; lower one")
        for name in ("disorder_s", "wait_s", "dedupe_s"):
            if not 0 <= getattr(self, name) < 86_400:
                raise ContractError(f"simulate: {name} = {getattr(self, name)} is not from 0 to 86400 seconds")
        return self


@dataclass(frozen=True, slots=True)
class Sent:
    """The lines of a stream as they are sent: which event each one is, and when it arrives."""

    event: Ints  #: index of the event
    shift_ms: Ints  #: added to its event time (an event that was fired again)
    arrival_ms: Ints
    late: NDArray[np.bool_]  #: an event
    repeated: NDArray[np.bool_]  #: an event


def send(
    rng: np.random.Generator,
    faults: Faults,
    time_ms: Ints,
    *,
    lag_ms: float,
    end_ms: int,
    spared: NDArray[np.bool_] | None = None,
) -> Sent:
    """Delay, repeat and hold back events.

    Args:
        rng: draws everything.
        faults: the rates.
        time_ms: event time of each event.
        lag_ms: how much later than `disorder_s` a late event comes, so long that many events lie between.
        end_ms: when the log ends; an event too near to it cannot come late.
        spared: events that get no fault.
    """
    count = len(time_ms)
    disorder_ms = int(faults.disorder_s * 1000)
    on_time_ms = int(disorder_ms * _USED_DISORDER) + 1
    draw = rng.random(count)
    if spared is not None:
        draw[spared] = 2.0
    delay = (disorder_ms + rng.uniform(1, 2, count) * lag_ms).astype(np.int64)
    late = (draw < faults.late) & (time_ms + delay + disorder_ms + lag_ms < end_ms)
    repeated = (draw >= faults.late) & (draw < faults.late + faults.duplicates)
    arrival = time_ms + np.where(late, delay, rng.integers(0, on_time_ms, count))
    again = np.flatnonzero(repeated)
    shift = np.where(rng.random(len(again)) < 0.5, 0, rng.integers(500, 3000, len(again)))
    return Sent(
        event=np.concatenate([np.arange(count), again]),
        shift_ms=np.concatenate([np.zeros(count, np.int64), shift]),
        arrival_ms=np.concatenate([arrival, time_ms[again] + shift + rng.integers(0, on_time_ms, len(again))]),
        late=late,
        repeated=repeated,
    )


def _time_as(pattern: bytes) -> Callable[[bytes], bytes]:
    return lambda line: _TIME.sub(pattern, line, count=1)


#: Ways to damage a line; every one of them must end as a dead letter.
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda line: line[: len(line) // 2],
    "not_utf8": lambda line: line.replace(b'_id":"', b'_id":"\xff\xfe', 1),
    "not_json": lambda line: b"<html><h1>502 Bad Gateway</h1></html>",
    "not_an_object": lambda line: b"[" + line + b"]",
    "missing": lambda line: b"{" + line[line.index(b",") + 1 :],
    "unknown_column": lambda line: b'{"debug":true,' + line[1:],
    "wrong_type": _time_as(rb'\1"\2"'),
    "not_finite": _time_as(rb"\1NaN"),
    "beyond_64_bits": _time_as(rb"\g<1>\g<2>00000000000000000000"),
    "microseconds": _time_as(rb"\g<1>\g<2>000"),
    "year_1970": _time_as(rb"\g<1>1000"),
}


def damaged(line: bytes, kind: int) -> bytes:
    r"""The line without its newline, damaged in one of the ways.

    >>> damaged(b'{"click_id":"k1","event_time_ms":5}', 6)
    b'{"click_id":"k1","event_time_ms":"5"}'
    """
    return list(DAMAGES.values())[kind % len(DAMAGES)](line)
