"""Commits that wait for one another: a round trip to the brokers each few micro-batches, not with each."""

import time
from collections.abc import Callable

from contracts.stores import EventLog


class PacedCommits:
    """Commits a log at most every so many seconds, and at once where nothing else is to do.

    A crash then repeats what was answered since, with the same ids; nothing is lost. All calls come between two
    micro-batches, when everything polled is answered: a commit covers just that.

    Args:
        log: what is committed.
        every_s: at most; 0 commits with each micro-batch.
        clock_s: monotonic seconds.
    """

    def __init__(self, log: EventLog, every_s: float, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._log, self._every_s, self._clock_s = log, every_s, clock_s
        self._next_s, self._owed = float("-inf"), False

    def answered(self) -> None:
        """Everything polled so far is answered; commit it if it is time."""
        self._owed = True
        if self._clock_s() >= self._next_s:
            self.settle()

    def settle(self) -> None:
        """Commit what is answered and not committed: there is time, or this is the end."""
        if self._owed:
            self._log.commit()
            self._owed, self._next_s = False, self._clock_s() + self._every_s
