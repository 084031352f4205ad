"""Serving: percentiles in process against other ways to score, and through Kafka against a service that echoes."""

from typing import Any

from deploy.benches import serve_in_process, serve_kafka


def run(quick: bool) -> dict[str, Any]:  # noqa: FBT001  # the form of every bench
    """All peers in the same run, taking turns.

    Args:
        quick: a small model and few repeats.
    """
    return {"in_process": serve_in_process.run(quick), **serve_kafka.run(quick)}
