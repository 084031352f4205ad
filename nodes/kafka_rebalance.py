"""What a member of a consumer group does when its partitions go to another."""

from collections import Counter
from collections.abc import Iterable

from kafka import ConsumerRebalanceListener, TopicPartition


class ForgetRevoked(ConsumerRebalanceListener):  # type: ignore[misc]  # kafka-python has no types
    """Forgets what was polled of partitions that go to another member: committing it would set that one back."""

    def __init__(self, done: dict[TopicPartition, int], counts: Counter[str]) -> None:
        self._done, self._counts = done, counts

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """These may be another member's from now on."""
        for part in revoked:
            if self._done.pop(part, None) is not None:
                self._counts["partitions_lost"] += 1

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """These begin at what was committed."""
