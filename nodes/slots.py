"""The grid of event time in which followed events settle: all that falls into one slot settles at its end."""

from dataclasses import dataclass

from contracts.app import App

_NEVER = -(2**62)


@dataclass(frozen=True, slots=True)
class Slots:
    """Slots of `fine_ms`, and longer ones where a backlog is caught up with.

    Before `until_ms` a slot is the longest span that begins at a multiple of its length, lies across neither `until_ms`
    nor `since_ms`, and is `fine_ms` times a power of two, at most `2 ** doublings`. So they grow shorter towards both,
    every end is a multiple of `fine_ms`, and who knows the four numbers knows them all.

    >>> slots = Slots(10, doublings=2, until_ms=110)
    >>> [slots.end(ms) for ms in (0, 39, 40, 80, 100, 110, 125)]
    [40, 40, 80, 100, 110, 120, 130]
    """

    fine_ms: int
    doublings: int = 0
    until_ms: int = _NEVER  #: a multiple of `fine_ms`, or before all times
    since_ms: int = _NEVER  #: likewise; where a run goes on: what was decided up to it is not decided anew

    def end(self, at_ms: int) -> int:
        """The end of the slot that a moment falls into, behind it."""
        return self._bounds(at_ms)[1]

    def last_end(self, at_ms: int) -> int:
        """The last end of a slot at or before a moment."""
        return self._bounds(at_ms)[0]

    def length(self, at_ms: int) -> int:
        """Of the slot that a moment falls into, milliseconds."""
        begin, end = self._bounds(at_ms)
        return end - begin

    def _bounds(self, at_ms: int) -> tuple[int, int]:
        for doubling in range(self.doublings if at_ms < self.until_ms else 0, 0, -1):
            length = self.fine_ms << doubling
            begin = at_ms // length * length
            if begin + length <= self.until_ms and not begin < self.since_ms < begin + length:
                return begin, begin + length
        begin = at_ms // self.fine_ms * self.fine_ms
        return begin, begin + self.fine_ms


def slots_of(app: App, backlog: tuple[int, int, int] | None = None) -> Slots:
    """The grid of a run.

    Args:
        app: `live.slot_s`; of a backlog a slot shall hold `live.backlog_rows` rows on the average, for each costs some
            timers, whatever falls into it.
        backlog: events that wait when it begins, and the first and the last of their times; None: none do.

    >>> from contracts.app import load_app
    >>> slots_of(load_app("adsim")).fine_ms
    500
    >>> week = slots_of(load_app("adsim"), (40_960, 0, 604_800_000))
    >>> week.length(0) // 1000, week.length(604_799_000), week.length(604_800_500)
    (32768, 128000, 500)
    """
    fine_ms = max(1, round(app.config.live.slot_s * 1000))
    if backlog is None or not app.config.live.backlog_rows:
        return Slots(fine_ms)
    rows, first_ms, last_ms = backlog
    share = (last_ms - first_ms) * app.config.live.backlog_rows // max(rows, 1) // fine_ms
    return Slots(fine_ms, max(share, 1).bit_length() - 1, (last_ms // fine_ms + 1) * fine_ms)
