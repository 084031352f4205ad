"""Topics of a scorer's own, the members that read and write them, and what these may wait for."""

import time

from contracts.errors import UnreachableError
from contracts.sections import Kafka
from contracts.stores import Record
from nodes.kafka_client import producer
from nodes.kafka_log import KafkaLog
from nodes.kafka_logs import open_kafka_log
from nodes.rdkafka_log import RdKafkaLog

SETTINGS = Kafka(request_timeout_s=10)
KINDS = {"kafka-python": KafkaLog, "librdkafka": RdKafkaLog}


class Topics:
    """Two topics and a group of a test's own, and what it opened."""

    def __init__(self, broker, partitions: int, client: str = "kafka-python") -> None:
        self.settings = SETTINGS.model_copy(update={"client": client})
        self.broker, self.group = broker, broker.name("group")
        self.requests = broker.create(partitions=partitions)
        self.responses = broker.create(partitions=2)
        self.logs: list[KafkaLog] = []

    def log(self, **over) -> KafkaLog:
        urls = self.broker.url(self.requests), self.broker.url(self.responses)
        self.logs.append(open_kafka_log(*urls, self.group, self.settings, **over))
        return self.logs[-1]

    def ask(self, *values: bytes) -> None:
        writer = producer(self.broker.brokers, SETTINGS)
        for value in values:
            writer.send(self.requests, value, key=value, headers=[("kafka_correlationId", value)])
        writer.close()


def poll_until(log: KafkaLog, count: int, timeout_s: float = 20) -> list[Record]:
    found, until = [], time.monotonic() + timeout_s
    while len(found) < count and time.monotonic() < until:
        found += log.poll(50, 100)
    return found


def append_until_safe(log: KafkaLog, value: bytes, timeout_s: float = 30) -> None:
    until = time.monotonic() + timeout_s
    while True:
        try:
            return log.append([Record(None, value)])
        except UnreachableError:
            assert time.monotonic() < until
