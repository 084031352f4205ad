"""Kafka's jars: which, and where they lie."""

import hashlib
import re
from pathlib import Path

from deploy.local import maven

_POM = Path(__file__).resolve().parents[1] / "kafka" / "pom.xml"


def kafka_version() -> str:
    """The version of Kafka that deploy/kafka/pom.xml names.

    >>> kafka_version()[:2]
    '4.'
    """
    (version,) = re.findall(r"<kafka\.version>([^<]+)<", _POM.read_text())
    return str(version)


def jars_cache() -> Path:
    """Where the jars of this very pom lie once Maven has brought them, per user."""
    digest = hashlib.sha256(_POM.read_bytes()).hexdigest()[:8]
    return maven.rocket_cache() / f"kafka-{kafka_version()}-{digest}"


def find_maven() -> Path:
    """The `mvn` that is to bring them.

    Raises:
        StoreError: there is none.
    """
    return maven.find_maven("Kafka", jars_cache())


def find_jars() -> Path:
    """The folder of the jars: from the cache, else Maven brings them (45 MB), once.

    Raises:
        StoreError: there is no Maven, or it fails.
    """
    return maven.find_jars("Kafka", _POM, jars_cache(), proof="kafka-server-*.jar")
