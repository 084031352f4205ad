"""Kafka clients with the settings that Rocket needs, and what a topic holds: partitions and offsets.

Nothing here reads or writes events. The client's defaults that are changed, and why: auto-commit off (what has been
read is not done with), aborted transactions unread, topics never made by accident, offsets that are gone raise instead
of jumping, idempotent writes acknowledged by all replicas, reconnecting within a second instead of thirty.
"""

import contextlib
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka import errors as kafka_errors
from kafka.net.compat import KafkaNetClient
from kafka.net.inet import KafkaNetSocket

from contracts.errors import StoreError
from contracts.sections import Kafka
from nodes.kafka_errors import as_sentence, missing_topic, speaking, why_unreachable
from nodes.kafka_outage import ask_for_new_ids

_RECONNECT_MAX_MS = 1_000  # a broker that is back is found within a second
_METADATA_MAX_AGE_MS = 60_000
_MISSING_TOPIC, _INVALID_TOPIC = 3, 17  # error codes of the protocol
_FETCH_BYTES = 4_194_304  # of one partition at a time; a larger message still comes, alone


class _ClosingSocket(KafkaNetSocket):  # type: ignore[misc]  # kafka-python has no types
    """Closes what fails to connect: kafka-python leaves each refused attempt to the garbage collector."""

    SCHEMES = ("direct",)

    async def sock_connect(self, net: Any, sock: socket.socket, sockaddr: Any, timeout_at: float | None = None) -> Any:
        try:
            return await super().sock_connect(net, sock, sockaddr, timeout_at=timeout_at)
        except BaseException:
            sock.close()
            raise


def connection(brokers: Sequence[str], kafka: Kafka) -> dict[str, Any]:
    """What consumer, producer and admin client share: addresses, security, timeouts.

    >>> connection(("h:9092",), Kafka())["security_protocol"]
    'PLAINTEXT'
    """
    request_ms = round(kafka.request_timeout_s * 1000)
    return {
        "bootstrap_servers": _listed(brokers),
        "proxy_url": "direct://",  # see _ClosingSocket
        "security_protocol": kafka.security_protocol,
        "sasl_mechanism": kafka.sasl_mechanism,
        "sasl_plain_username": kafka.sasl_username,
        "sasl_plain_password": kafka.sasl_password.get_secret_value() if kafka.sasl_password else None,
        "ssl_cafile": kafka.ca_file,
        "ssl_certfile": kafka.cert_file,
        "ssl_keyfile": kafka.key_file,
        "ssl_check_hostname": True,
        "bootstrap_timeout_ms": round(kafka.connect_timeout_s * 1000),
        "request_timeout_ms": request_ms,
        "connections_max_idle_ms": max(540_000, 2 * request_ms),
        "reconnect_backoff_max_ms": _RECONNECT_MAX_MS,
        "metadata_max_age_ms": _METADATA_MAX_AGE_MS,
    }


def consumer(brokers: Sequence[str], kafka: Kafka, **over: Any) -> KafkaConsumer:
    """A reader with offsets of its own: no group, no auto-commit, only what is committed by its writers.

    Args:
        brokers: host:port of some of them.
        kafka: how they are spoken to.
        over: kafka-python's own options over these.

    Raises:
        StoreError: no broker answers within `connect_timeout_s`, or it refuses.
    """
    settings = connection(brokers, kafka) | {
        "enable_auto_commit": False,
        "isolation_level": "read_committed",
        "allow_auto_create_topics": False,
        "auto_offset_reset": "none",
        "max_partition_fetch_bytes": _FETCH_BYTES,
        "metrics_enabled": False,
    }
    return _connected(KafkaConsumer, brokers, kafka, settings | over)


def producer(brokers: Sequence[str], kafka: Kafka, **over: Any) -> KafkaProducer:
    """A writer whose retries neither lose, double nor reorder a message.

    Its buffer has no bound: flush, or wait for the futures, every few megabytes.

    Args:
        brokers: host:port of some of them.
        kafka: how they are spoken to; a message beyond `max_message_bytes` is refused here, before it is sent.
        over: kafka-python's own options over these.

    Raises:
        StoreError: no broker answers within `connect_timeout_s`, or it refuses.
    """
    request_ms = round(kafka.request_timeout_s * 1000)
    settings = connection(brokers, kafka) | {
        "enable_idempotence": True,
        "acks": "all",
        "linger_ms": 5,
        "batch_size": 131_072,
        "max_request_size": kafka.max_message_bytes,
        "max_block_ms": request_ms,
        "delivery_timeout_ms": 2 * request_ms,
        "allow_auto_create_topics": False,
        "metrics_enabled": False,
    }
    made = _connected(KafkaProducer, brokers, kafka, settings | over)
    ask_for_new_ids(made)
    return made


def close_producer(writer: KafkaProducer, patience_s: float) -> None:
    """End a producer within some seconds; what is not acknowledged by then is given up.

    A batch that was under way when a broker was killed may never be told of again (kafka-python 3.0.12): its own
    `close` waits for it, raises, and leaves the producer running.
    """
    try:
        writer.close(timeout=patience_s)
    except kafka_errors.KafkaError:
        sender = writer._sender  # noqa: SLF001  # its thread; told to give up, it fails what is left
        sender.force_close()
        sender.join(patience_s)
        with contextlib.suppress(kafka_errors.KafkaError):
            writer.close(timeout=0)


def admin(brokers: Sequence[str], kafka: Kafka, **over: Any) -> KafkaAdminClient:
    """A client that describes, creates and deletes topics.

    Raises:
        StoreError: no broker answers within `connect_timeout_s`, or it refuses.
    """
    return _connected(KafkaAdminClient, brokers, kafka, connection(brokers, kafka) | over)


def partitions_of(brokers: Sequence[str], topic: str, kafka: Kafka) -> list[int]:
    """The partition numbers of a topic, ascending.

    Raises:
        StoreError: the topic is missing, this user may not see it, or no broker answers.
    """
    return partitions_of_all(brokers, [topic], kafka)[topic]


def partitions_of_all(brokers: Sequence[str], topics: Iterable[str], kafka: Kafka) -> dict[str, list[int]]:
    """The partition numbers of each topic, asked for at once.

    Raises:
        StoreError: a topic is missing, this user may not see it, or no broker answers.
    """
    names = list(dict.fromkeys(topics))
    with contextlib.closing(admin(brokers, kafka)) as client, speaking(_shown(brokers)):
        described = {found["name"]: found for found in client.describe_topics(names)}
    return {name: _partitions(_shown(brokers, name), described.get(name, {})) for name in names}


def begin_offsets(
    brokers: Sequence[str], topic: str, kafka: Kafka, *, using: KafkaConsumer | None = None
) -> dict[int, int]:
    """Partition -> the first offset that it still holds.

    Args:
        brokers: host:port of some of them.
        topic: must exist.
        kafka: how the brokers are spoken to.
        using: an open consumer; by default one is opened, which takes some 20 ms.

    Raises:
        StoreError: as `partitions_of`.
    """
    return _offsets(brokers, topic, kafka, using, lambda reader, parts: reader.beginning_offsets(parts))


def end_offsets(
    brokers: Sequence[str], topic: str, kafka: Kafka, *, using: KafkaConsumer | None = None
) -> dict[int, int]:
    """Partition -> the offset after the last one that a reader may see (before a transaction that is still open).

    Arguments and errors as `begin_offsets`.
    """
    return _offsets(brokers, topic, kafka, using, lambda reader, parts: reader.end_offsets(parts))


def offsets_at(
    brokers: Sequence[str], topic: str, kafka: Kafka, timestamp_ms: int, *, using: KafkaConsumer | None = None
) -> dict[int, int]:
    """Partition -> the first offset whose record timestamp is `timestamp_ms` or later; the end where none is.

    Other arguments and errors as `begin_offsets`.
    """

    def look_up(reader: KafkaConsumer, parts: list[TopicPartition]) -> dict[TopicPartition, int]:
        ends = reader.end_offsets(parts)
        found = reader.offsets_for_times(dict.fromkeys(parts, max(timestamp_ms, 0)))
        return {part: ends[part] if at is None else at.offset for part, at in found.items()}

    return _offsets(brokers, topic, kafka, using, look_up)


def _offsets(
    brokers: Sequence[str],
    topic: str,
    kafka: Kafka,
    using: KafkaConsumer | None,
    look_up: Callable[[KafkaConsumer, list[TopicPartition]], Mapping[TopicPartition, int]],
) -> dict[int, int]:
    parts = [TopicPartition(topic, number) for number in partitions_of(brokers, topic, kafka)]
    with _opened(brokers, kafka, using) as reader, speaking(_shown(brokers, topic)):
        found = look_up(reader, parts)
    return {part.partition: found[part] for part in parts}


@contextlib.contextmanager
def _opened(brokers: Sequence[str], kafka: Kafka, using: KafkaConsumer | None) -> Iterator[KafkaConsumer]:
    if using is not None:
        yield using
        return
    with contextlib.closing(consumer(brokers, kafka)) as reader:
        yield reader


def _partitions(where: str, described: Mapping[str, Any]) -> list[int]:
    code = described.get("error_code", _MISSING_TOPIC)
    if code in (_MISSING_TOPIC, _INVALID_TOPIC):
        raise missing_topic(where)
    if code:
        raise as_sentence(where, kafka_errors.for_code(code)())
    return sorted(found["partition_index"] for found in described["partitions"])


def _connected(kind: Callable[..., Any], brokers: Sequence[str], kafka: Kafka, settings: dict[str, Any]) -> Any:
    """Make a client; where that fails, end the thread and the sockets that it has begun with."""
    begun: list[KafkaNetClient] = []

    def net_client(**config: Any) -> KafkaNetClient:
        begun.append(KafkaNetClient(**config))
        return begun[-1]

    try:
        return kind(kafka_client=net_client, **settings)
    except (kafka_errors.KafkaError, OSError, ValueError) as error:
        for client in begun:
            with contextlib.suppress(kafka_errors.KafkaError, OSError):
                client.close()
        where = _shown(brokers)
        if isinstance(error, kafka_errors.KafkaTimeoutError):
            raise StoreError(f"{where}: {why_unreachable(_listed(brokers), kafka)}") from error
        if isinstance(error, ValueError):
            raise as_sentence(where, kafka_errors.KafkaConfigurationError(str(error))) from error
        raise as_sentence(where, error) from error


def _listed(brokers: Sequence[str]) -> list[str]:
    """A text is taken as host:port[,host:port]."""
    return brokers.split(",") if isinstance(brokers, str) else list(brokers)


def _shown(brokers: Sequence[str], topic: str = "") -> str:
    return f"kafka://{','.join(_listed(brokers))}" + (f"/{topic}" if topic else "")
