"""Requests in, answers out, by librdkafka: what `nodes.kafka_log` does, at a third of its processor time.

topic of requests ─▶ fetched in librdkafka's threads ─▶ poll ─▶ (answer) ─▶ append ─▶ topic of responses
                                                          ▲                   │ acknowledged
                                                          └────── commit ◀────┘
"""

import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition
from kafka import errors

from contracts.errors import FencedError
from contracts.sections import Kafka
from contracts.stores import Record
from nodes.kafka_group import CLOSE_AWAY_S, CLOSE_S, NEWS_S, answer_topic, found_topics, leave_group
from nodes.kafka_standing import Standing
from nodes.kafka_url import KafkaUrl
from nodes.rdkafka_client import rd_member, rd_producer
from nodes.rdkafka_commits import RdCommits
from nodes.rdkafka_errors import TIMEOUTS, as_kafka, rd_speaking
from nodes.rdkafka_reader import RdReader

_HEAR_S = 0.05  # how long news of a commit is waited for at a time
_DELIVERY_S = 0.2  # and an acknowledgement, before it is heard how the group does


class RdKafkaLog:
    """One member of a group of scorers, satisfying `contracts.stores.EventLog`.

    Takes what `nodes.kafka_log.KafkaLog` takes, promises what that promises, and raises the same. Members of one group
    speak with the same client: the two write what they have to say to each other differently.
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
        self.counts: Counter[str] = Counter()  #: commits_failed, damaged, partitions_lost, replies_refused
        self._kafka, self._group, self._member = kafka, group, member
        self._commits = RdCommits(self.requests.topic, requests, self.counts)
        self._trouble: KafkaError | None = None  # what was wrong with a connection since an answer was taken
        self._away = self._fenced = self._closed = False  # no broker answered last; another process has our name
        self._answered_s = float("-inf")  # when brokers took an answer last
        self._delivery_s = (2 * kafka.request_timeout_s if answer_s is None else answer_s) + 1
        limit_ms = round((self._delivery_s - 1) * 1000)
        with rd_speaking(requests):
            self._producer = rd_producer(brokers, kafka, limit_ms, self._heard)
            self._consumer = rd_member(brokers, kafka, group, member, begin, self._commits.told, self._heard)
            self._reader = RdReader(self._consumer, self.requests, kafka, self.counts)
            self._consumer.subscribe([self.requests.topic], on_revoke=self._revoked, on_lost=self._revoked)

    def poll(self, max_wait_ms: int, max_records: int) -> Sequence[Record]:
        """The next records of the partitions that this member has, none after `max_wait_ms` without any.

        Raises:
            StoreError: the broker refuses for good: rights, the topic was deleted.
            FencedError: another process has taken this member's name.
        """
        with self._speaking(self.requests):
            records, upto = self._reader.take(max_wait_ms / 1000, max_records)
        self._commits.done |= upto
        return records

    def append(self, records: Sequence[Record]) -> None:
        """Write each record to the response topic, or to the allowed one that it asks for; returns when all are safe.

        A record without a timestamp gets that of now.

        Raises:
            UnreachableError: not acknowledged within `answer_s`.
            StoreError: the broker refuses for good.
            ContractError: a record is larger than `max_message_bytes`.
        """
        self._away = True
        failed: list[KafkaError] = []
        left = 0

        def told(error: KafkaError | None, _: Message) -> None:
            nonlocal left
            left -= 1
            if error is not None:
                failed.append(error)

        with self._speaking(self.responses):
            for record in records:
                topic = answer_topic(record, self.responses.topic, self._reply_topics, self.counts)
                headers: Any = list(record.headers)
                self._producer.produce(
                    topic, record.value, record.key, headers=headers, timestamp=record.timestamp_ms, on_delivery=told
                )
                left += 1
            until_s = time.monotonic() + self._delivery_s
            while left and (left_s := until_s - time.monotonic()) > 0:
                self._producer.poll(min(left_s, _DELIVERY_S))
                if left and not self._reader.full:
                    self._reader.hear(0)  # a member that hears nothing for long is taken for dead, by itself too
            if left:
                raise self._late(f"not acknowledged within {self._delivery_s:g} s")
            if failed:
                raise self._late(failed[0].str()) if failed[0].code() in TIMEOUTS else as_kafka(failed[0])
        self._away, self._answered_s, self._trouble = False, time.monotonic(), None

    def standing(self, max_wait_s: float = 0.5) -> Standing:
        """How many partitions this member has, and how far behind it is.

        Asks the brokers, unless they took an answer within the last second: then they are there, and fetches tell ends.

        Raises:
            UnreachableError: they do not answer within `max_wait_s`.
            StoreError: they refuse.
        """
        self._away = True
        ask = time.monotonic() - self._answered_s > NEWS_S
        with self._speaking(self.requests):
            mine = self._consumer.assignment()
            if ask:
                self._consumer.list_topics(self.requests.topic, timeout=max_wait_s)
            at = {each.partition: each.offset for each in self._consumer.position(mine)}
            unread = [each for each in mine if at[each.partition] < 0]
            if unread:
                committed = self._consumer.committed(unread, timeout=max_wait_s)
                at |= {each.partition: each.offset for each in committed}
            lag = 0
            for part in mine:
                known = self._consumer.get_watermark_offsets(part, cached=True)  # to ask stands behind the fetch
                lag += max(0, (0 if known is None else int(known[1])) - max(at[part.partition], 0))
        self._away = False
        return Standing(len(mine), lag)

    def commit(self, *, wait: bool = True) -> None:
        """Everything polled so far is done with.

        Where that cannot be said, because the broker is away or the partitions went to another member, the records
        come again, here or there; `counts` tells how often.

        Raises:
            StoreError: the broker refuses for good.
            FencedError: another process has taken this member's name.
        """
        with self._speaking(self.requests):
            if wait:
                self._commits.settle(self._consumer, lambda: self._reader.hear(_HEAR_S))
            else:
                self._commits.say(self._consumer)

    def close(self) -> None:
        """Leave the group and end the connections, within some seconds even where no broker is there."""
        if self._closed:
            return
        self._closed = True
        member_id = self._consumer.memberid()
        leaving = threading.Thread(target=self._consumer.close, daemon=True)  # waits for a commit on its way, for ever
        leaving.start()
        leaving.join(CLOSE_AWAY_S if self._away else CLOSE_S)
        away = self._away or leaving.is_alive()
        if away:
            self._producer.purge()
        self._producer.flush(CLOSE_AWAY_S if away else CLOSE_S)
        if self._member is not None and not away and not self._fenced:
            leave_group(self.requests.brokers, self._kafka, self._group, self._member, member_id)

    def _revoked(self, _: Consumer, parts: Sequence[TopicPartition]) -> None:
        gone = {part.partition for part in parts}
        self._commits.forget(gone)
        self._reader.forget(gone)

    def _heard(self, error: KafkaError) -> None:
        self._trouble = error

    def _late(self, what: str) -> errors.KafkaError:
        """With what was wrong with a connection last, which nothing else tells."""
        return errors.KafkaTimeoutError(what if self._trouble is None else f"{what}; {self._trouble.str()}")

    @contextmanager
    def _speaking(self, where: KafkaUrl) -> Iterator[None]:
        trouble = self._trouble
        try:
            with rd_speaking(str(where)):
                if trouble is not None and trouble.code() == KafkaError._AUTHENTICATION:  # noqa: SLF001  # public
                    self._trouble = None
                    raise as_kafka(trouble)
                yield
        except FencedError:
            self._fenced = True
            raise

    def __enter__(self) -> "RdKafkaLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
