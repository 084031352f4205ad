"""Event time over several partitions: which of them hold it back.

A partition holds the watermark at its newest event time less `ingest.disorder_s`, unless it is idle: read to its end,
as the broker confirmed after `live.idle_s` of quiet. One that lags holds it, one that is empty does not, and one of
which nothing is known yet holds everything.

When all are idle, event time goes on with the clock, for as long as the broker confirms that nothing came, so that the
last impressions settle. The price, and the only place where arrival counts (law 4): an event that comes to an idle
partition from before the watermark is late (`behind_watermark`) and counted as such, though a replay of the topic,
where no partition is idle before its end, would have taken it.
"""

from collections.abc import Collection
from dataclasses import dataclass

from nodes.source import BEFORE_ALL

END_MS = 2**62  #: after all event times


@dataclass(slots=True)
class Standing:
    """Where the reader stands in one partition."""

    offset: int  #: of the next record
    newest_ms: int  #: largest plausible event time before it
    end: int | None  #: where reading ends; None: never
    quiet_since_s: float  #: when the last record came
    confirmed_s: float | None = None  #: when the broker last said that there is no more; None: since then more came

    @property
    def finished(self) -> bool:
        """Read to its end."""
        return self.end is not None and self.offset >= self.end


def is_idle(standing: Standing, now_s: float, idle_s: float) -> bool:
    """Nothing is to be waited for from this partition.

    >>> still = Standing(5, 1000, None, quiet_since_s=0, confirmed_s=2.5)
    >>> [is_idle(still, now, idle_s=2) for now in (2.6, 4.4, 60)]  # at last nobody confirms it any more
    [True, True, False]
    >>> is_idle(Standing(5, 1000, None, quiet_since_s=0), 60, idle_s=2)
    False
    """
    if standing.end is not None:
        return standing.finished
    confirmed = standing.confirmed_s
    return confirmed is not None and confirmed - standing.quiet_since_s >= idle_s and now_s - confirmed <= 2 * idle_s


def watermark_ms(standings: Collection[Standing], now_s: float, idle_s: float, disorder_ms: int) -> int | None:
    """Before which no event will come that is not late; None: not known; END_MS: all are finished.

    >>> lagging, leading = Standing(0, 5_000, None, 0), Standing(0, 90_000, None, 0)
    >>> empty = Standing(0, BEFORE_ALL, None, quiet_since_s=0, confirmed_s=3)
    >>> watermark_ms([lagging, leading, empty], now_s=3, idle_s=2, disorder_ms=1_000)
    4000
    >>> quiet = Standing(0, 90_000, None, quiet_since_s=0, confirmed_s=7)
    >>> watermark_ms([quiet, empty], now_s=7, idle_s=2, disorder_ms=1_000)  # 3 s without anything
    92000
    """
    if all(standing.finished for standing in standings):
        return END_MS
    active = [standing.newest_ms for standing in standings if not is_idle(standing, now_s, idle_s)]
    if active:
        slowest = min(active)
        return None if slowest == BEFORE_ALL else slowest - disorder_ms
    newest = max(standing.newest_ms for standing in standings)
    if newest == BEFORE_ALL:
        return None
    endless = [standing for standing in standings if standing.end is None]
    confirmed_s = min((standing.confirmed_s for standing in endless if standing.confirmed_s is not None), default=now_s)
    quiet_s = confirmed_s - max(standing.quiet_since_s for standing in endless)
    return newest + round(max(quiet_s, 0) * 1000) - disorder_ms
