"""Requests in, answers out: an `EventLog` over a Kafka consumer group and a producer.

topic of requests ─▶ poll ─▶ (answer) ─▶ append ─▶ topic of responses, or the reply topic that a request names
                      ▲                                │ acknowledged
                      └──────────── commit ◀───────────┘
"""

import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType

from kafka import errors
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.structs import MemberState

from contracts.errors import FencedError
from contracts.sections import Kafka
from contracts.stores import Record
from nodes.group_commits import GroupCommits
from nodes.kafka_client import close_producer, consumer, producer
from nodes.kafka_damage import skip_damage
from nodes.kafka_errors import speaking
from nodes.kafka_group import (
    CLOSE_AWAY_S,
    CLOSE_S,
    HEARTBEAT_MS,
    NEWS_S,
    POLL_INTERVAL_MS,
    SESSION_MS,
    answer_topic,
    found_topics,
    leave_group,
)
from nodes.kafka_outage import forget_waiting
from nodes.kafka_rebalance import ForgetRevoked, remember_join
from nodes.kafka_record import record_of
from nodes.kafka_standing import Standing, standing_of
from nodes.kafka_url import KafkaUrl

_log = logging.getLogger(__name__)
_JOIN_S = 0.5  # a poll of a member without partitions waits so long for its join to end: nothing can come before
_LOST_S = 8.0  # a member that has not joined for that long begins anew


class KafkaLog:
    """One member of a group of scorers, satisfying `contracts.stores.EventLog`.

    What is polled and not yet committed comes again after a crash, here or at another member: nothing is lost, some is
    answered twice. While no broker is there, `poll` gives nothing and `append` waits.

    Args:
        requests: kafka://… URL of the topic that is polled.
        responses: kafka://… URL of the topic that is written to; on the same brokers.
        group: name of the consumer group; members share the partitions.
        kafka: how the brokers are spoken to.
        reply_topics: names of the topics that a record may ask for with its header kafka_replyTopic.
        member: a name of this process that it keeps when it is started again: then it has its partitions back at once,
            and not after six seconds. Two processes with one name fence each other. None: any name.
        begin: where a group that never committed begins; "latest" passes over what is there already.
        answer_s: `append` gives up after that long; then nothing of it is written later. None: twice
            `kafka.request_timeout_s`.

    Raises:
        ContractError: a URL is none, or the two name different brokers.
        StoreError: no broker answers, or a topic is missing.
    """

    def __init__(
        self,
        requests: str,
        responses: str,
        group: str,
        kafka: Kafka,
        *,
        reply_topics: Iterable[str] = (),
        member: str | None = None,
        begin: str = "earliest",
        answer_s: float | None = None,
    ) -> None:
        self._reply_topics = frozenset(reply_topics)
        self.requests, self.responses = found_topics(requests, responses, self._reply_topics, kafka)
        brokers = self.requests.brokers
        self.counts: Counter[str] = (
            Counter()
        )  #: commits_failed, damaged, joined_again, partitions_lost, replies_refused
        self._kafka, self._group, self._member = kafka, group, member
        self._away = self._fenced = False  # no broker answered last; another process has our name
        limits = {} if answer_s is None else _within(answer_s)
        self._delivery_s = (2 * kafka.request_timeout_s if answer_s is None else answer_s) + 1
        self._producer = producer(brokers, kafka, linger_ms=0, **limits)
        self._consumer = consumer(
            brokers,
            kafka,
            group_id=group,
            group_instance_id=member,
            partition_assignment_strategy=(CooperativeStickyAssignor,),  # who keeps its partitions goes on answering
            auto_offset_reset=begin,
            session_timeout_ms=SESSION_MS,
            heartbeat_interval_ms=HEARTBEAT_MS,
            max_poll_interval_ms=POLL_INTERVAL_MS,
        )
        self._commits = GroupCommits(self._consumer, requests, self.counts, self._join)
        self._answered_s = float("-inf")  # when brokers took an answer last
        self._joined: tuple[float, Standing] | None = None  # when this member got partitions, and its standing then
        self._stable_s = time.monotonic()  # when this member was last in its group, or last joined again
        self._subscribe()

    def poll(self, max_wait_ms: int, max_records: int) -> Sequence[Record]:
        """The next records of the partitions that this member has, none after `max_wait_ms` without any.

        Raises:
            StoreError: the broker refuses for good: rights, the topic was deleted.
            FencedError: another process has taken this member's name.
        """
        with self._speaking(self.requests):
            try:
                if self._consumer.assignment():
                    remember_join(self._consumer)
                else:
                    self._join_first(max(max_wait_ms / 1000, _JOIN_S))
                found = self._consumer.poll(timeout_ms=max_wait_ms, max_records=max_records)
                if not found:
                    self._join_again_where_lost()
            except errors.CorruptRecordError as error:
                return self._skip_damage(error)
            except errors.KafkaError as error:
                if not error.retriable:
                    raise
                return []
        self._commits.done.update((part, records[-1].offset + 1) for part, records in found.items())
        return [record_of(each) for records in found.values() for each in records]

    def append(self, records: Sequence[Record]) -> None:
        """Write each record to the response topic, or to the allowed one that it asks for; returns when all are safe.

        A record without a timestamp gets that of now.

        Raises:
            UnreachableError: not acknowledged within `answer_s`.
            StoreError: the broker refuses for good.
            ContractError: a record is larger than `max_message_bytes`.
        """
        self._away = True
        with self._speaking(self.responses):
            sent = [
                self._producer.send(
                    answer_topic(record, self.responses.topic, self._reply_topics, self.counts),
                    record.value,
                    key=record.key,
                    headers=list(record.headers),
                    timestamp_ms=record.timestamp_ms or None,
                )
                for record in records
            ]
            try:
                for each in sent:
                    each.get(self._delivery_s)
            except errors.KafkaTimeoutError as error:
                forget_waiting(self._producer, error)
                raise
        self._away, self._answered_s = False, time.monotonic()

    def standing(self, max_wait_s: float = 0.5) -> Standing:
        """How many partitions this member has, and how far behind it is.

        Asks the brokers, unless they took an answer within the last second: then they are there, and fetches tell ends.
        Who got its partitions within the last second tells what it asked then.

        Raises:
            UnreachableError: they do not answer within `max_wait_s`.
            StoreError: they refuse.
        """
        if self._joined is not None:
            since_s, then = self._joined
            if time.monotonic() - since_s < NEWS_S and len(self._consumer.assignment()) == then.partitions:
                return then
            self._joined = None
        self._away = True
        ask = time.monotonic() - self._answered_s > NEWS_S
        with self._speaking(self.requests):
            found = standing_of(self._consumer, self.requests.topic, ask=ask, max_wait_ms=round(max_wait_s * 1000))
        self._away = False
        return found

    def commit(self, *, wait: bool = True) -> None:
        """Everything polled so far is done with.

        Where that cannot be said, because the broker is away or the partitions went to another member, the records
        come again, here or there; `counts` tells how often.

        Raises:
            StoreError: the broker refuses for good.
            FencedError: another process has taken this member's name.
        """
        with self._speaking(self.requests):
            self._commits.say(wait=wait)

    def close(self) -> None:
        """Leave the group and end the connections, within some seconds even where no broker is there."""
        patience_s = CLOSE_AWAY_S if self._away else CLOSE_S
        member_id = self._consumer.group_metadata().member_id
        self._consumer.close(autocommit=False, timeout_ms=round(patience_s * 1000))
        close_producer(self._producer, patience_s)
        if self._member is not None and not self._away and not self._fenced:
            leave_group(self.requests.brokers, self._kafka, self._group, self._member, member_id)

    def _subscribe(self) -> None:
        self._consumer.subscribe([self.requests.topic], listener=ForgetRevoked(self._commits.done, self.counts))

    def _join_first(self, most_s: float) -> None:
        """Join, and see how far behind this member is before a fetch waits at the broker and all else behind that."""
        self._consumer.partitions_for_topic(self.requests.topic)  # who joins without knowing them has to join twice
        self._join(most_s)
        if self._consumer.assignment():
            found = standing_of(self._consumer, self.requests.topic, ask=True, max_wait_ms=round(most_s * 1000))
            self._joined = time.monotonic(), found

    def _join(self, most_s: float) -> None:
        """As a poll does where the group moves, but without taking records, and no longer than until it has joined."""
        try:
            remember_join(self._consumer)
            self._consumer._coordinator.poll(timeout_ms=round(most_s * 1000))  # noqa: SLF001  # nothing public does
        except errors.KafkaError as error:
            if not error.retriable:
                raise

    def _skip_damage(self, error: errors.CorruptRecordError) -> list[Record]:
        skipped = skip_damage(self._consumer, self.requests.brokers, self._kafka)
        if not skipped:
            raise error
        for part, (first, after) in skipped.items():
            self.counts["damaged"] += after - first
            _log.warning("%s: offsets %d to %d of partition %d cannot be read (%s) and are passed over",
                         self.requests, first, after - 1, part.partition, error)  # fmt: skip
        return []

    def _join_again_where_lost(self) -> None:
        """Mend a join whose end went by between two polls all the same: the client would wait for it for ever."""
        now_s = time.monotonic()
        if self._consumer.group_metadata().state == MemberState.STABLE:
            self._stable_s = now_s
        elif now_s - self._stable_s > _LOST_S:
            self._stable_s = now_s
            self.counts["joined_again"] += 1
            self._consumer.unsubscribe()
            self._subscribe()

    @contextmanager
    def _speaking(self, where: KafkaUrl) -> Iterator[None]:
        try:
            with speaking(str(where)):
                yield
        except FencedError:
            self._fenced = True
            raise

    def __enter__(self) -> "KafkaLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _within(answer_s: float) -> dict[str, int]:
    """The producer's own limits, so that what was given up is not written after all."""
    limit_ms = round(answer_s * 1000)
    return {"delivery_timeout_ms": limit_ms, "request_timeout_ms": limit_ms * 3 // 4, "max_block_ms": limit_ms}
