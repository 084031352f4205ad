"""Topics of one run's own, so that its events can be counted apart from all others."""

import contextlib

from contracts.names import topic
from contracts.sections import Kafka
from deploy.local.topics import plan_topics
from nodes.kafka_client import admin
from nodes.kafka_errors import speaking

_STREAMS = ("impressions", "clicks", "requests", "responses")


def make_run_topics(brokers: str, run: str, kafka: Kafka) -> dict[str, str]:
    """Make the four topics of a run, with the partitions and retention of the common ones; stream -> URL.

    Args:
        brokers: `host:port`.
        run: ends their names.
        kafka: how the brokers are spoken to.

    Raises:
        StoreError: the broker does not make them.
    """
    names = {topic(stream): f"{topic(stream)}-{run}" for stream in _STREAMS}
    wanted = {
        names[plan.name]: {"num_partitions": plan.partitions, "replication_factor": 1, "configs": plan.config}
        for plan in plan_topics()
        if plan.name in names
    }
    with contextlib.closing(admin((brokers,), kafka)) as client, speaking(f"kafka://{brokers}"):
        client.create_topics(wanted, wait_for_metadata=True)
    return {stream: f"kafka://{brokers}/{names[topic(stream)]}" for stream in _STREAMS}
