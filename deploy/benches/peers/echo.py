"""A service that only answers: the scorer's loop without the scoring, on the same client with the same settings."""

import threading

from contracts.sections import Kafka
from contracts.stores import EventLog, Record
from deploy.signals import stopped_by_signals
from flows.serve import COMMIT_S
from flows.serve_kafka import ANSWER_S, POLL_MS
from nodes.clock import now_ms
from nodes.kafka_logs import open_kafka_log
from nodes.paced_commits import PacedCommits
from nodes.reply_headers import reply_headers
from nodes.settled_heap import settled_heap
from nodes.thread_turns import short_turns


def echo(requests: str, responses: str, group: str, kafka: Kafka, most: int = 128) -> None:
    """Send every request back until SIGTERM, as a process of its own.

    Args:
        requests: kafka:// URL of the topic of requests.
        responses: that of the answers.
        group: consumer group.
        kafka: how the brokers are spoken to, and by which client.
        most: requests of one micro-batch.
    """
    with (
        stopped_by_signals() as stop,
        short_turns(),
        open_kafka_log(requests, responses, group, kafka, answer_s=ANSWER_S) as log,
        settled_heap(),
    ):
        answer_until(stop, log, most)


def answer_until(stop: threading.Event, log: EventLog, most: int) -> None:
    """The loop: poll, answer, commit."""
    commits = PacedCommits(log, COMMIT_S)
    while not stop.is_set():
        records = log.poll(POLL_MS, most)
        if records:
            at_ms = now_ms()
            log.append([Record(r.key, r.value, reply_headers(r, app="echo", at_ms=at_ms), at_ms) for r in records])
            commits.answered()
        else:
            commits.idle()
