"""Clients of librdkafka with the settings that Rocket needs; `nodes.kafka_client` has them for kafka-python."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

from confluent_kafka import Consumer, Producer

from contracts.sections import Kafka
from nodes.kafka_group import HEARTBEAT_MS, POLL_INTERVAL_MS, SESSION_MS

_LOGGER = logging.getLogger("rdkafka")
_LOGGER.setLevel(logging.CRITICAL + 1)  # it logs each failed attempt; what is raised is told once
_LEAST_MS, _MOST_MS, _MOST_BYTES = 10, 300_000, 1_000_000_000  # it takes no others


def rd_producer(brokers: Sequence[str], kafka: Kafka, answer_ms: int, on_error: Callable[..., None]) -> Producer:
    """A writer whose retries neither lose, double nor reorder a message.

    Args:
        brokers: host:port of some of them.
        kafka: how they are spoken to.
        answer_ms: what is not acknowledged within that time is given up.
        on_error: told what is wrong with a connection.
    """
    settings = {
        "enable.idempotence": True,
        "linger.ms": 0,
        "partitioner": "murmur2_random",  # a key's partition is that of kafka-python, and of Java
        "message.max.bytes": min(kafka.max_message_bytes, _MOST_BYTES),
        "message.timeout.ms": answer_ms,
        "request.timeout.ms": max(1, min(answer_ms * 3 // 4, round(kafka.request_timeout_s * 1000))),
        "error_cb": on_error,
    }
    return Producer(_connection(brokers, kafka) | settings)


def rd_member(
    brokers: Sequence[str],
    kafka: Kafka,
    group: str,
    member: str | None,
    begin: str,
    on_commit: Callable[..., None],
    on_error: Callable[..., None],
) -> Consumer:
    """A member of a consumer group that commits by itself alone.

    Args:
        brokers: host:port of some of them.
        kafka: how they are spoken to.
        group: its name.
        member: a name that it keeps when it is started again.
        begin: where a group that never committed begins.
        on_commit: told an error, or None, and the partitions of each commit.
        on_error: told what is wrong with a connection.
    """
    settings = {
        "group.id": group,
        "group.instance.id": member,
        "partition.assignment.strategy": "cooperative-sticky",  # who keeps its partitions goes on answering
        "auto.offset.reset": begin,
        "enable.auto.commit": False,
        "isolation.level": "read_committed",
        "check.crcs": True,
        "fetch.wait.max.ms": 100,  # whatever else is asked of the broker stands behind a fetch that waits there
        "session.timeout.ms": SESSION_MS,
        "heartbeat.interval.ms": HEARTBEAT_MS,
        "max.poll.interval.ms": POLL_INTERVAL_MS,
        "queued.min.messages": 1_000,  # fetched ahead at most, and not 64 MB of them
        "queued.max.messages.kbytes": 4_096,
        "fetch.queue.backoff.ms": 10,
        "on_commit": on_commit,
        "error_cb": on_error,
    }
    return Consumer(
        _connection(brokers, kafka) | {name: value for name, value in settings.items() if value is not None}
    )


def _connection(brokers: Sequence[str], kafka: Kafka) -> dict[str, Any]:
    """As `nodes.kafka_client.connection`, in librdkafka's words."""
    settings = {
        "bootstrap.servers": ",".join(brokers),
        "security.protocol": kafka.security_protocol,
        "sasl.mechanism": kafka.sasl_mechanism,
        "sasl.username": kafka.sasl_username,
        "sasl.password": kafka.sasl_password.get_secret_value() if kafka.sasl_password else None,
        "ssl.ca.location": kafka.ca_file,
        "ssl.certificate.location": kafka.cert_file,
        "ssl.key.location": kafka.key_file,
        "socket.timeout.ms": min(max(_LEAST_MS, round(kafka.request_timeout_s * 1000)), _MOST_MS),
        "socket.nagle.disable": True,
        "reconnect.backoff.max.ms": 1_000,
        "topic.metadata.refresh.interval.ms": 60_000,
        "allow.auto.create.topics": False,
        "logger": _LOGGER,
    }
    return {name: value for name, value in settings.items() if value is not None}
