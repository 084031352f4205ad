"""What members of a group of scorers have in common, whatever client they speak with."""

import logging
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from contextlib import closing

from kafka.admin import MemberToRemove

from contracts.errors import ContractError, RocketError
from contracts.sections import Kafka
from contracts.stores import Record
from nodes.kafka_client import admin, partitions_of_all
from nodes.kafka_errors import speaking
from nodes.kafka_url import KafkaUrl, parse_kafka_url
from nodes.reply_headers import REPLY_TOPIC, header_of

_log = logging.getLogger(__name__)
SESSION_MS = 6_000  #: a member that is silent that long loses its partitions; brokers take no less by default
POLL_INTERVAL_MS = 60_000  #: and one that does not poll
HEARTBEAT_MS = 1_000
NEWS_S = 1.0  #: brokers that took an answer so lately are there
CLOSE_S, CLOSE_AWAY_S = 3.0, 0.5  #: with brokers and without


def found_topics(requests: str, responses: str, reply_topics: Iterable[str], kafka: Kafka) -> tuple[KafkaUrl, KafkaUrl]:
    """The topics that a scorer reads and writes, once they are known to be there.

    Raises:
        ContractError: a URL is none, or the two name different brokers.
        StoreError: no broker answers, or a topic is missing.
    """
    asked, answered = parse_kafka_url(requests), parse_kafka_url(responses)
    if set(asked.brokers) != set(answered.brokers):
        raise ContractError(f"{responses}: answers go to the brokers that requests come from, {requests}")
    partitions_of_all(asked.brokers, [asked.topic, answered.topic, *reply_topics], kafka)
    return asked, answered


def leave_group(brokers: Sequence[str], kafka: Kafka, group: str, member: str, member_id: str | None) -> None:
    """A member with a name of its own keeps its partitions when it closes, until it is told to go.

    Args:
        brokers: host:port of some of them.
        kafka: how they are spoken to.
        group: its name.
        member: the member's own name.
        member_id: the one that the group knew it by, so that nobody else of that name has to go; none: it never joined.
    """
    if not member_id:
        return
    where = f"kafka://{','.join(brokers)}"
    try:
        with closing(admin(brokers, kafka)) as client, speaking(where):
            client.remove_group_members(group, [MemberToRemove(member_id, member)])
    except RocketError as error:
        _log.warning("%s; others have its partitions in %d s", error, SESSION_MS // 1000)


def answer_topic(record: Record, own: str, allowed: Collection[str], counts: Counter[str]) -> str:
    """Where an answer goes: the topic that it asks for, if that is allowed; `replies_refused` counts the others.

    >>> answer_topic(Record(None, b"", ((REPLY_TOPIC, b"theirs"),)), "ours", {"theirs"}, Counter())
    'theirs'
    """
    asked = header_of(record, REPLY_TOPIC)
    if asked is None:
        return own
    name = asked.decode("utf-8", "replace")
    if name in allowed:
        return name
    if name != own:
        counts["replies_refused"] += 1
    return own
