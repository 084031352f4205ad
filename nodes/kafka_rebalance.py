"""What a member of a consumer group does when its group moves."""
# ruff: noqa: SLF001  # nothing public of kafka-python's tells how a join does

from collections import Counter
from collections.abc import Iterable
from typing import Any

from kafka import ConsumerRebalanceListener, KafkaConsumer, TopicPartition

_ASKED_WITHIN_S = 0.05


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


def remember_join(member: KafkaConsumer) -> None:
    """Let a poll that begins now go on with a join that the one before did not wait for to its end.

    kafka-python (3.0.12) forgets it. Where it has ended since, another is begun, which may end so again, and all others
    of the group wait for it. Where a leader joins for new partitions, there is no need of one to its mind, as soon as
    they are assigned.
    """
    coordinator = member._coordinator
    join = coordinator._join_task
    if join is None:
        return
    if join.is_done and join.succeeded():

        async def ended() -> Any:
            await coordinator._net.sleep(_ASKED_WITHIN_S)  # one that has ended when the poll looks is forgotten
            return join.value

        coordinator._join_task = coordinator._manager.call_soon(ended)
    if not coordinator.need_rejoin():
        coordinator.request_rejoin()
