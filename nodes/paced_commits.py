"""Commits that wait for one another: word to the brokers each few micro-batches, not with each."""

import time
from collections.abc import Callable

from contracts.stores import EventLog


class PacedCommits:
    """Commits a log at most every so many seconds, and at once where nothing else is to do.

    A crash then repeats what was answered since, with the same ids; nothing is lost. All calls come between two
    micro-batches, when everything polled is answered: a commit covers just that. Only the last one is waited for.

    Args:
        log: what is committed.
        every_s: at most; 0 commits with each micro-batch.
        clock_s: monotonic seconds.
    """

    def __init__(self, log: EventLog, every_s: float, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._log, self._every_s, self._clock_s = log, every_s, clock_s
        self._next_s, self._owed = float("-inf"), False

    def answered(self) -> None:
        """Everything polled so far is answered; say so if it is time."""
        self._owed = True
        now_s = self._clock_s()
        if now_s >= self._next_s:
            self.idle()
            self._next_s = now_s + self._every_s

    def idle(self) -> None:
        """Say what is answered and not committed: there is time."""
        if self._owed:  # until the log is waited for, which knows what is still to be said
            self._log.commit(wait=False)

    def settle(self) -> None:
        """Commit what is answered: this is the end."""
        if self._owed:
            self._log.commit()
            self._owed = False
