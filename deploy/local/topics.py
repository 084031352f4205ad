"""The topics of a local stack: their partitions, their retention, and the making of what is missing."""

from dataclasses import dataclass, field

from kafka import KafkaAdminClient
from kafka.errors import KafkaError

from contracts.errors import ContractError, StoreError
from contracts.names import topic

_DAY_MS = 86_400_000
_MIB = 1_048_576
EVENT_PARTITIONS = 4


@dataclass(frozen=True, slots=True)
class TopicPlan:
    """A topic as it should be."""

    name: str
    partitions: int
    config: dict[str, str] = field(default_factory=dict)  #: Kafka's own names of its settings


def plan_topics(event_partitions: int = EVENT_PARTITIONS) -> tuple[TopicPlan, ...]:
    """All topics of the system, with so many partitions for impressions and for clicks.

    >>> [(plan.name, plan.partitions) for plan in plan_topics()][:2]
    [('ctr.impressions.v1', 4), ('ctr.clicks.v1', 4)]
    """
    return (
        _plan("impressions", event_partitions, retention_ms=7 * _DAY_MS, max_message_bytes=2 * _MIB),
        _plan("clicks", event_partitions, retention_ms=7 * _DAY_MS, max_message_bytes=2 * _MIB),
        _plan("requests", 2, retention_ms=_DAY_MS, max_message_bytes=2 * _MIB),
        _plan("responses", 2, retention_ms=_DAY_MS, max_message_bytes=2 * _MIB),
        # One partition: its offsets are the order that training follows. All of it is the replay horizon.
        _plan("examples", 1, retention_ms=-1, max_message_bytes=16 * _MIB),
        _plan("dead-letters", 1, retention_ms=30 * _DAY_MS, max_message_bytes=16 * _MIB),
    )


def _plan(stream: str, partitions: int, *, retention_ms: int, max_message_bytes: int) -> TopicPlan:
    config = {"retention.ms": str(retention_ms), "max.message.bytes": str(max_message_bytes)}
    return TopicPlan(topic(stream), partitions, config)


def make_topics(brokers: str, event_partitions: int | None) -> dict[str, int]:
    """Make the topics that are missing; those that exist stay as they are. Returns partitions by topic.

    Args:
        brokers: `host:port`.
        event_partitions: of impressions and clicks; None: as they are, else four.

    Raises:
        ContractError: a topic exists with another number of partitions.
        StoreError: the broker does not make them.
    """
    plans = plan_topics(event_partitions or EVENT_PARTITIONS)
    asked = {plan.name: plan.partitions for plan in plans}
    if event_partitions is None:
        asked = {name: count for name, count in asked.items() if name not in (topic("impressions"), topic("clicks"))}
    try:
        admin = KafkaAdminClient(bootstrap_servers=brokers)
        try:
            there = {row["name"]: len(row["partitions"]) for row in admin.describe_topics(admin.list_topics())}
            _refuse_other_counts(there, asked)
            missing = {
                plan.name: {"num_partitions": plan.partitions, "replication_factor": 1, "configs": plan.config}
                for plan in plans
                if plan.name not in there
            }
            if missing:
                admin.create_topics(missing, wait_for_metadata=True)
        finally:
            admin.close()
    except KafkaError as error:
        raise StoreError(f"Kafka at {brokers} does not make the topics ({error}); see its log and try again") from error
    return {plan.name: there.get(plan.name, plan.partitions) for plan in plans}


def _refuse_other_counts(there: dict[str, int], asked: dict[str, int]) -> None:
    """Keys would move to other partitions, so a topic never gets another number of them silently."""
    for name, count in asked.items():
        if there.get(name, count) != count:
            raise ContractError(
                f"topic {name} has {there[name]} partitions, not {count}, and changing that would move keys to other "
                f"partitions; give --partitions {there[name]}, or start anew with rocket down --wipe"
                if name in (topic("impressions"), topic("clicks"))
                else f"topic {name} has {there[name]} partitions, not {count}; delete it, or start anew with "
                "rocket down --wipe"
            )
