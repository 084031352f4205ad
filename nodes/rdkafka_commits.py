"""What a member of a group is done with, as librdkafka tells its brokers; `nodes.group_commits` is kafka-python's."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from confluent_kafka import Consumer, KafkaError, TopicPartition
from kafka import errors

from nodes.rdkafka_errors import as_kafka, mends

_log = logging.getLogger(__name__)
_WAIT_S = 5.0  # for a commit at the end; one that takes longer is given up, and its records come again
_PAUSE_S = 0.05  # before what failed is said again
# The group moves, or has another member of our name. What goes to another is forgotten when it goes, and the rest is
# still to be said: a commit behind a request to join again comes with a generation that is over.
_MOVING = {
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.UNKNOWN_MEMBER_ID,
    KafkaError.REBALANCE_IN_PROGRESS,
    KafkaError._ASSIGNMENT_LOST,  # noqa: SLF001  # a public name of librdkafka's
    KafkaError._FATAL,  # noqa: SLF001  # polls tell what it is
}


class RdCommits:
    """Commits of one topic; one at a time is on its way.

    Args:
        topic: its name.
        where: its URL, for the log.
        counts: `commits_failed` is counted up, and `partitions_lost`.
    """

    def __init__(self, topic: str, where: str, counts: Counter[str]) -> None:
        self._topic, self._where, self._counts = topic, where, counts
        self.done: dict[int, int] = {}  #: partition -> the offset after the last one polled; not said
        self._flying: dict[int, int] | None = None  # the commit on its way; librdkafka tells of each how it ended
        self._refused: errors.KafkaError | None = None  # for good, until the next call says so

    def say(self, consumer: Consumer) -> None:
        """All in `done` is done with: said now, or by a later call if a commit is on its way.

        Raises:
            KafkaError: the broker refused the last one for good.
            KafkaException: it cannot leave.
        """
        refused, self._refused = self._refused, None
        if refused is not None:
            raise refused
        if self.done and not self._under_way():
            consumer.commit(offsets=[TopicPartition(self._topic, *each) for each in self.done.items()])
            self._flying, self.done = self.done, {}

    def settle(self, consumer: Consumer, news: Callable[[], None]) -> None:
        """Say all in `done`, and wait until brokers know it; what is not known after five seconds comes again.

        Args:
            consumer: it commits.
            news: polls it for a moment.

        Raises:
            KafkaError: the broker refuses for good.
            KafkaException: a commit cannot leave.
        """
        until_s = time.monotonic() + _WAIT_S
        self.say(consumer)
        while self._under_way():
            if time.monotonic() > until_s:
                self._failed(errors.KafkaTimeoutError(f"no answer for {_WAIT_S:g} s"))
                return
            news()
            if self.done and not self._under_way():
                time.sleep(_PAUSE_S)
            self.say(consumer)

    def told(self, error: KafkaError | None, parts: Sequence[TopicPartition]) -> None:
        """What became of the commit on its way; a poll calls it."""
        said, self._flying = self._flying or {}, None
        error = error or next((part.error for part in parts if part.error is not None), None)
        if error is None:
            return
        self.done = said | self.done
        known = as_kafka(error)
        if error.code() in _MOVING or mends(error):
            self._failed(known)
        else:
            self._refused = known

    def forget(self, parts: Iterable[int]) -> None:
        """These go to another member: committing what was polled of them would set that one back."""
        for part in parts:
            if self._flying is not None:
                self._flying.pop(part, None)
            if self.done.pop(part, None) is not None:
                self._counts["partitions_lost"] += 1

    def _under_way(self) -> bool:
        return self._flying is not None

    def _failed(self, error: errors.KafkaError) -> None:
        self._counts["commits_failed"] += 1
        _log.warning("%s: not committed (%s); what was answered may be answered again", self._where, error)
