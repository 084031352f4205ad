"""What librdkafka complains of, as the error that `nodes.kafka_errors.speaking` knows."""
# ruff: noqa: SLF001  # librdkafka's own codes begin with an underscore, and are public

from collections.abc import Iterator
from contextlib import contextmanager

from confluent_kafka import KafkaError, KafkaException
from kafka import errors

from nodes.kafka_errors import speaking

#: Its own errors have negative codes; the others are the protocol's.
_OWN: dict[int, type[errors.KafkaError]] = {
    KafkaError._MSG_TIMED_OUT: errors.KafkaTimeoutError,
    KafkaError._TIMED_OUT: errors.KafkaTimeoutError,
    KafkaError._TIMED_OUT_QUEUE: errors.KafkaTimeoutError,
    KafkaError._WAIT_COORD: errors.CoordinatorNotAvailableError,
    KafkaError._ALL_BROKERS_DOWN: errors.KafkaConnectionError,
    KafkaError._TRANSPORT: errors.KafkaConnectionError,
    KafkaError._RESOLVE: errors.KafkaConnectionError,
    KafkaError._DESTROY: errors.KafkaConnectionError,
    KafkaError._PURGE_QUEUE: errors.KafkaTimeoutError,
    KafkaError._PURGE_INFLIGHT: errors.KafkaTimeoutError,
    KafkaError._SSL: errors.KafkaConnectionError,
    KafkaError._AUTHENTICATION: errors.SaslAuthenticationFailedError,
    KafkaError._UNKNOWN_TOPIC: errors.UnknownTopicOrPartitionError,
    KafkaError._UNKNOWN_PARTITION: errors.UnknownTopicOrPartitionError,
    KafkaError._BAD_MSG: errors.CorruptRecordError,
    KafkaError._BAD_COMPRESSION: errors.CorruptRecordError,
    KafkaError._NOT_IMPLEMENTED: errors.UnsupportedVersionError,
    KafkaError._INVALID_ARG: errors.KafkaConfigurationError,
    KafkaError._ASSIGNMENT_LOST: errors.IllegalGenerationError,
    KafkaError._AUTO_OFFSET_RESET: errors.OffsetOutOfRangeError,
}

#: What was given up, for a reason that only the news of connections tells.
TIMEOUTS = frozenset(code for code, kind in _OWN.items() if kind is errors.KafkaTimeoutError)


def as_kafka(error: KafkaError) -> errors.KafkaError:
    """kafka-python's error for one of librdkafka's.

    >>> as_kafka(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))
    TopicAuthorizationFailedError('Broker: Topic authorization failed')
    >>> as_kafka(KafkaError(KafkaError._TRANSPORT)).retriable
    True
    """
    code, said = error.code(), error.str()
    if code > 0:
        return errors.for_code(code)(said)
    if code == KafkaError._FATAL and "fenced" in said:  # the code below it is not handed on
        return errors.FencedInstanceIdError(said)
    return _OWN.get(code, errors.KafkaError)(said)


def mends(error: KafkaError) -> bool:
    """Whether it mends by itself, or is news of librdkafka's own, such as the end of a partition.

    >>> mends(KafkaError(KafkaError._TRANSPORT)), mends(KafkaError(KafkaError._PARTITION_EOF))
    (True, True)
    >>> mends(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)), mends(KafkaError(KafkaError._FATAL))
    (False, False)
    """
    known = as_kafka(error)
    own = type(known) is errors.KafkaError and error.code() != KafkaError._FATAL
    return known.retriable or own or isinstance(known, errors.KafkaTimeoutError)


@contextmanager
def rd_speaking(where: str) -> Iterator[None]:
    """As `speaking`, for librdkafka's exceptions, too."""
    with speaking(where):
        try:
            yield
        except KafkaException as error:
            raise as_kafka(error.args[0]) from error
