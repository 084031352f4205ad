"""What a Kafka client complains of, as one sentence with the place and the mend."""

import contextlib
import logging
import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from kafka import errors

from contracts.errors import ContractError, FencedError, RocketError, StoreError, UnreachableError
from contracts.sections import Kafka

# The client logs each failed attempt; a command says once what failed, so only what is raised is told.
logging.getLogger("kafka").setLevel(logging.CRITICAL)

_FENCED = (
    errors.ProducerFencedError,
    errors.InvalidProducerEpochError,
    errors.TransactionCoordinatorFencedError,
    errors.FencedInstanceIdError,
)
_CREDENTIALS = (errors.SaslAuthenticationFailedError, errors.UnacceptableCredentialError)
_MECHANISM = (errors.UnsupportedSaslMechanismError, errors.IllegalSaslStateError)
_MISSING = (errors.UnknownTopicOrPartitionError, errors.UnknownTopicIdError)
_TOO_LARGE = (errors.MessageSizeTooLargeError, errors.RecordListTooLargeError)
_AWAY = (errors.KafkaConnectionError, errors.NodeNotReadyError, errors.NetworkExceptionError, OSError)
_FOR_NOW = (errors.KafkaTimeoutError, errors.RetriableError, *_AWAY)
_PROBE_S = 1.0


@contextmanager
def speaking(where: str) -> Iterator[None]:
    """Turn the client's errors inside the `with` block into one sentence each.

    Args:
        where: brokers or URL, to be shown.

    Raises:
        FencedError: another client with the same identity has taken over.
        ContractError: what was asked for can never work: a setting, or a message that is too large.
        StoreError: the brokers cannot be reached (then it is an UnreachableError) or refuse.

    >>> with speaking("kafka://h:9092/t"):
    ...     raise errors.TopicAuthorizationFailedError({"t"})
    Traceback (most recent call last):
    contracts.errors.StoreError: kafka://h:9092/t: this user may not do that (TopicAuthorizationFailedError: {'t'});
    give it rights on the topic, the group and the transactional id
    """
    try:
        yield
    except (errors.KafkaError, OSError) as error:
        raise as_sentence(where, error) from error


def as_sentence(where: str, error: Exception) -> RocketError:
    """The typed error that stands for one of the client's; see `speaking`."""
    if isinstance(error, _FENCED):
        return FencedError(f"{where}: another writer has taken over ({_said(error)}); stop this one")
    if isinstance(error, _TOO_LARGE):
        return ContractError(
            f"{where}: a message is too large ({_said(error)}); raise kafka.max_message_bytes here, and "
            "max.message.bytes of the topic, or send less at once"
        )
    if isinstance(error, errors.KafkaConfigurationError):
        return ContractError(f"{where}: the settings in [kafka] do not go together ({_said(error)})")
    return (UnreachableError if isinstance(error, _FOR_NOW) else StoreError)(f"{where}: {_mend(error)}")


def missing_topic(where: str) -> StoreError:
    """The error for a topic that is not there."""
    return StoreError(
        f"{where}: no such topic; create it with `rocket up`, or with your cluster's own tool (topics are never "
        "created by reading or writing)"
    )


def _mend(error: Exception) -> str:
    said = _said(error)
    if isinstance(error, _CREDENTIALS):
        return (
            f"the broker refuses the user or the password ({said}); set kafka.sasl_username, and "
            "ROCKET_KAFKA__SASL_PASSWORD in the environment"
        )
    if isinstance(error, _MECHANISM):
        return f"the broker does not take this login ({said}); set kafka.sasl_mechanism to one that it has"
    if isinstance(error, errors.AuthorizationError):
        return f"this user may not do that ({said}); give it rights on the topic, the group and the transactional id"
    if isinstance(error, _MISSING):
        return f"no such topic or partition ({said}); create it with `rocket up`, or with your cluster's own tool"
    if isinstance(error, errors.OffsetOutOfRangeError | errors.NoOffsetForPartitionError):
        return f'the topic does not hold what was asked for ({said}); set live.gone = "earliest", or begin a new run'
    if isinstance(error, errors.CorruptRecordError):
        return f"a stored message is damaged ({said}); restore the topic from a replica"
    if isinstance(error, errors.KafkaTimeoutError | errors.RequestTimedOutError):
        return f"no answer in time ({said}); check the broker and the network, or raise kafka.request_timeout_s"
    if isinstance(error, _AWAY):
        return f"cannot be reached ({said}); start the brokers with `rocket up`, or give the right address"
    if isinstance(error, errors.UnsupportedVersionError):
        return f"the broker is too old ({said}); Kafka 2.8 or newer is needed"
    return f"the broker refused ({said})"


def _said(error: Exception) -> str:
    """The error's name and first words, without the advice that the client adds to some of them."""
    words = " ".join(str(error.args[0] if error.args else "").split())[:200]
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


def why_unreachable(brokers: Sequence[str], kafka: Kafka) -> str:
    """Look for the reason why no broker let the client in: address, port, TLS or login.

    Args:
        brokers: host:port of each.
        kafka: how they are spoken to.

    Returns:
        A sentence with the mend, for after "brokers: ".
    """
    reasons = [_probe(broker, kafka) for broker in brokers]
    tls = next((reason for reason in reasons if reason and reason.startswith("TLS")), None)
    if tls:
        return tls
    if all(reasons):
        return f"no broker answers ({reasons[0]}); start it with `rocket up`, or give the right address"
    return (
        f"the port is open, but nothing speaks Kafka with security_protocol {kafka.security_protocol} there; check the "
        "address, kafka.security_protocol and kafka.sasl_mechanism"
    )


def _probe(broker: str, kafka: Kafka) -> str | None:
    """What stands in the way of a plain connection, and of TLS on it where TLS is asked for; None: nothing."""
    host, _, port = broker.rpartition(":")
    host = host.strip("[]")
    try:
        with socket.create_connection((host, int(port)), timeout=_PROBE_S) as plain:
            if "SSL" not in kafka.security_protocol:
                return None
            try:
                context = ssl.create_default_context(cafile=kafka.ca_file)
                if kafka.cert_file:
                    context.load_cert_chain(kafka.cert_file, kafka.key_file)
                with context.wrap_socket(plain, server_hostname=host):
                    return None
            except OSError as error:  # ssl.SSLError and a missing file among them
                with contextlib.suppress(OSError):
                    plain.shutdown(socket.SHUT_RDWR)
                return (
                    f"TLS fails ({' '.join(str(error).split())[:200]}); check kafka.ca_file, kafka.cert_file, "
                    "kafka.key_file and the host's name in the broker's certificate"
                )
    except OSError as error:
        return f"{broker}: {error.strerror or error}"
