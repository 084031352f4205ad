"""What a member of a consumer group is done with, as its brokers know it: said, and not waited for.

A commit travels on the connection of the fetch that waits at the broker for new records, and behind it: whoever waits
for a commit under load stands still for 7 to 10 ms (kafka-python 3.0.12).
"""

import logging
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from kafka import OffsetAndMetadata, TopicPartition, errors

_log = logging.getLogger(__name__)
_WAIT_S = 5.0  # for a commit at the end; one that takes longer is given up, and its records come again
_PAUSE_S = 0.05  # before what failed is said again
_PATIENCE_S = 10.0  # for news of a commit that nobody waits for; then it counts as failed
# The group moves. What goes to another member is taken out of `done` when it goes; the rest is still to be said.
_MOVING = (
    errors.CommitFailedError,
    errors.IllegalGenerationError,
    errors.UnknownMemberIdError,
    errors.RebalanceInProgressError,
)


class GroupCommits:
    """Commits what a `KafkaConsumer` has polled; one at a time is on its way.

    Args:
        consumer: a member of a group; its polls bring the news of commits.
        where: it reads, for the log.
        counts: `commits_failed` is counted up.
        join: lets the member join its group again, where it has to, for at most so many seconds.
    """

    def __init__(self, consumer: Any, where: str, counts: Counter[str], join: Callable[[float], object]) -> None:
        self._consumer, self._where, self._counts, self._join = consumer, where, counts, join
        self.done: dict[TopicPartition, int] = {}  #: partition -> the offset after the last one polled; not yet known
        self._flying: object | None = None  # the commit on its way
        self._since_s = 0.0  # when it left
        self._refused: Exception | None = None  # for good, until the next call says so

    def say(self, *, wait: bool) -> None:
        """All in `done` is done with.

        Without `wait` nothing may have been said when this returns: a later call says it, if it is still so, as it
        says what could not be said because the broker was away, or the group on the move. With it, this is tried for
        five seconds.

        Raises:
            KafkaError: the broker refuses for good, this commit or the one before it.
        """
        if self._flying is not None and time.monotonic() - self._since_s > _PATIENCE_S:
            self._told(self._flying, {}, errors.KafkaTimeoutError(f"no news of it for {_PATIENCE_S:g} s"))
        self._raise_refusal()
        if not self.done or (self._flying is not None and not wait):
            return
        if wait:
            self._settle()
            return
        mine, upto = object(), self._upto()
        self._consumer.commit_async(upto, callback=lambda said, outcome: self._told(mine, said, outcome))
        self._flying, self._since_s = mine, time.monotonic()

    def _settle(self) -> None:
        until_s = time.monotonic() + _WAIT_S
        while self.done and (left_s := until_s - time.monotonic()) > 0:
            upto, outcome = self._upto(), None
            self._flying = mine = object()  # what becomes of an earlier one is no news any more
            try:
                self._consumer.commit(upto, timeout_ms=max(1, round(left_s * 1000)))
            except errors.KafkaError as error:
                outcome = error
            self._told(mine, upto, outcome)
            self._raise_refusal()
            if outcome is not None:
                time.sleep(_PAUSE_S)
                self._join(max(0.0, until_s - time.monotonic()))  # what goes to another member is not said again

    def _upto(self) -> dict[TopicPartition, OffsetAndMetadata]:
        """A copy: the client's thread may take partitions away meanwhile."""
        return {part: OffsetAndMetadata(offset, "", -1) for part, offset in dict(self.done).items()}

    def _told(self, commit: object, said: dict[TopicPartition, OffsetAndMetadata], outcome: object) -> None:
        """What became of a commit."""
        if commit is not self._flying:
            return
        self._flying = None
        if not isinstance(outcome, Exception):
            for part, upto in said.items():  # what was polled since is still to be said
                if self.done.get(part) == upto.offset:
                    self.done.pop(part, None)
        elif isinstance(outcome, _MOVING) or (isinstance(outcome, errors.KafkaError) and outcome.retriable):
            self._counts["commits_failed"] += 1
            _log.warning("%s: not committed (%s); what was answered may be answered again", self._where, outcome)
        else:
            self._refused = outcome

    def _raise_refusal(self) -> None:
        refused, self._refused = self._refused, None
        if refused is not None:
            raise refused
