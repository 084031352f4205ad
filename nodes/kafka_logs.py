"""The event log of a scorer on Kafka, by the client that the settings name."""

from importlib.util import find_spec
from typing import Any

from contracts.errors import ContractError
from contracts.sections import Kafka
from nodes.kafka_log import KafkaLog


def open_kafka_log(requests: str, responses: str, group: str, kafka: Kafka, **more: Any) -> KafkaLog:
    """A member of a group of scorers (`nodes.kafka_log.KafkaLog`, or one that promises the same).

    Args:
        requests: kafka://… URL of the topic of requests.
        responses: that of the answers.
        group: of scorers, which all speak with the same client.
        kafka: `client` says with which.
        more: as `KafkaLog` takes it.

    Raises:
        ContractError: as `KafkaLog`; or the client is not installed.
        StoreError: as `KafkaLog`.
    """
    if kafka.client == "kafka-python":
        return KafkaLog(requests, responses, group, kafka, **more)
    if find_spec("confluent_kafka") is None:
        raise ContractError(
            'kafka.client = "librdkafka" needs confluent-kafka; install rocket-ctr[fast], or take "kafka-python"'
        )
    from nodes.rdkafka_log import RdKafkaLog  # noqa: PLC0415  # only where it is installed

    made: Any = RdKafkaLog(requests, responses, group, kafka, **more)
    return made
