"""Where a topic lies: `kafka://host:port[,host:port]/topic`, read once and strictly."""

import re
from dataclasses import dataclass

from contracts.errors import ContractError

_SCHEME = "kafka://"
_BROKER = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):(\d{1,5})")
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
_FORM = "write kafka://host:port[,host:port]/topic"


@dataclass(frozen=True, slots=True)
class KafkaUrl:
    """One topic of one cluster."""

    brokers: tuple[str, ...]  #: host:port of some of its brokers; the client finds the others
    topic: str

    def __str__(self) -> str:
        """The URL, as it is written."""
        return f"{_SCHEME}{','.join(self.brokers)}/{self.topic}"


def is_kafka_url(where: object) -> bool:
    """Whether `where` names a topic and not a file or a folder.

    >>> is_kafka_url("kafka://h:9092/t"), is_kafka_url("runs/examples")
    (True, False)
    """
    return str(where).startswith(_SCHEME)


def parse_kafka_url(text: str) -> KafkaUrl:
    """Brokers and topic of a URL.

    Args:
        text: kafka://host:port[,host:port]/topic.

    Raises:
        ContractError: it has another form; user names and passwords belong into `[kafka]`, not into the URL.

    >>> parse_kafka_url("kafka://a:9092,b:9092/ctr.clicks.v1")
    KafkaUrl(brokers=('a:9092', 'b:9092'), topic='ctr.clicks.v1')
    >>> parse_kafka_url("kafka://a:9092")
    Traceback (most recent call last):
    contracts.errors.ContractError: kafka://a:9092: no topic; write kafka://host:port[,host:port]/topic
    """
    hosts, _, name = text.removeprefix(_SCHEME).partition("/")
    brokers = _brokers(text, hosts)
    if not name:
        raise ContractError(f"{text}: no topic; {_FORM}")
    if not _TOPIC.fullmatch(name) or name in (".", ".."):
        raise ContractError(
            f"{text}: '{name[:80]}' is no name of a topic; take letters, digits, '.', '_' and '-', 249 at most"
        )
    return KafkaUrl(brokers, name)


def parse_brokers(text: str) -> tuple[str, ...]:
    """The brokers of a URL without a topic.

    Args:
        text: kafka://host:port[,host:port].

    Raises:
        ContractError: it has another form, or names a topic.

    >>> parse_brokers("kafka://a:9092,b:9092/")
    ('a:9092', 'b:9092')
    """
    hosts, _, name = text.removeprefix(_SCHEME).partition("/")
    if name:
        raise ContractError(f"{text}: names a topic where only brokers belong; write kafka://host:port[,host:port]")
    return _brokers(text, hosts)


def _brokers(text: str, hosts: str) -> tuple[str, ...]:
    if not text.startswith(_SCHEME):
        raise ContractError(f"{text}: is no Kafka URL; {_FORM}")
    if "@" in hosts:
        raise ContractError(
            f"{_SCHEME}***@{hosts.rpartition('@')[2]}: a URL holds no secrets; set kafka.sasl_username, and "
            "ROCKET_KAFKA__SASL_PASSWORD in the environment"
        )
    for host in hosts.split(","):
        found = _BROKER.fullmatch(host)
        if not found or not 0 < int(found[1]) < 65_536:
            raise ContractError(f"{text}: '{host}' is no host:port; {_FORM}")
    return tuple(hosts.split(","))
