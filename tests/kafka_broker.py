"""A real Kafka broker for tests: each test takes topic names of its own."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from kafka import KafkaAdminClient, TopicPartition

from contracts.sections import Kafka
from deploy.local.kafka_jars import jars_cache
from deploy.local.kafka_server import KafkaServer
from nodes.kafka_client import consumer

_HEAP_MB = 384
#: Kills the last process that it was told of when our end of its stdin closes, which the system does however we end.
_LIFELINE = 'while read -r told; do pid=$told; done; test "$pid" && kill -9 $pid'


class KafkaBroker:
    """A running broker.

    `.server` is the `KafkaServer` behind it, with its `pid` and `process()`.
    """

    def __init__(self, folder: Path) -> None:
        """Start one in the folder, about two seconds."""
        self.server = KafkaServer(folder, heap_mb=_HEAP_MB)
        self._lifeline = subprocess.Popen(["/bin/sh", "-c", _LIFELINE], stdin=subprocess.PIPE, start_new_session=True)
        try:
            self.start()
        except BaseException:
            self._lifeline.communicate()
            raise

    @property
    def brokers(self) -> str:
        """`127.0.0.1:port`."""
        return self.server.brokers

    def url(self, topic: str) -> str:
        """As the commands take it."""
        return f"kafka://{self.brokers}/{topic}"

    def name(self, word: str = "t") -> str:
        """A topic name that no other test has."""
        return f"{word}-{uuid4().hex[:12]}"

    def create(self, topic: str | None = None, partitions: int = 1, **config: Any) -> str:
        """Make a topic and wait until it has leaders; `retention_ms=…` is Kafka's `retention.ms`. Returns its name."""
        topic = topic or self.name()
        configs = {key.replace("_", "."): str(value) for key, value in config.items()}
        plan = {topic: {"num_partitions": partitions, "replication_factor": 1, "configs": configs}}
        with _closing(self.brokers) as admin:
            admin.create_topics(plan, wait_for_metadata=True)
        return topic

    def read(self, topic: str) -> list[Any]:
        """All that stands in a topic now, with partition, offset and timestamp."""
        reader = consumer(self.brokers, Kafka(request_timeout_s=10), auto_offset_reset="earliest")
        parts = [TopicPartition(topic, number) for number in reader.partitions_for_topic(topic)]
        reader.assign(parts)
        reader.seek_to_beginning()
        ends, found = reader.end_offsets(parts), list[Any]()
        while any(reader.position(part) < ends[part] for part in parts):
            found += [each for records in reader.poll(timeout_ms=100).values() for each in records]
        reader.close()
        return found

    def delete(self, topic: str) -> None:
        """Remove a topic and what it holds."""
        with _closing(self.brokers) as admin:
            admin.delete_topics([topic])

    def delete_records(self, topic: str, before: dict[int, int]) -> None:
        """Forget, in each partition named, what lies before an offset, as retention would."""
        with _closing(self.brokers) as admin:
            admin.delete_records({TopicPartition(topic, partition): offset for partition, offset in before.items()})

    def kill(self) -> None:
        """SIGKILL."""
        self._tell("")
        assert self.server.kill()

    def start(self) -> None:
        """After `kill` or `stop`: the same port and data."""
        self.server.start()
        self._tell(str(self.server.pid))

    def stop(self) -> None:
        """SIGTERM."""
        self._tell("")
        self.server.stop()

    def remove(self) -> None:
        """End it, and what it stored."""
        self._tell("")
        self.server.kill()
        shutil.rmtree(self.server.folder)
        self._lifeline.communicate()

    def _tell(self, pid: str) -> None:
        assert self._lifeline.stdin is not None
        self._lifeline.stdin.write(f"{pid}\n".encode())
        self._lifeline.stdin.flush()


class _closing:  # noqa: N801
    def __init__(self, brokers: str) -> None:
        self._admin = KafkaAdminClient(bootstrap_servers=brokers)

    def __enter__(self) -> KafkaAdminClient:
        return self._admin

    def __exit__(self, *_: object) -> None:
        self._admin.close()


def needs_kafka() -> None:
    """Skip the test where there is no Java, or neither Maven nor the jars that it brought; fail it in CI."""
    missing = [
        word
        for word, there in (("java", shutil.which("java")), ("mvn", jars_cache().is_dir() or shutil.which("mvn")))
        if not there
    ]
    if missing:
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI needs {' and '.join(missing)} on PATH for a real Kafka")
        pytest.skip(f"no real Kafka here: {' and '.join(missing)} not on PATH")
