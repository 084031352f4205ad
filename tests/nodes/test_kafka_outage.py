"""A broker that hangs, dies and comes back: members of a group of scorers lose nothing, and write nothing late."""

import contextlib
import os
import signal
import threading
import time

import pytest

from contracts.errors import UnreachableError
from contracts.stores import Record
from tests.nodes.scorer_topics import KINDS, Topics, append_until_safe, poll_until


@pytest.mark.parametrize("client", KINDS)
def test_an_outage_while_an_answer_is_written_leaves_a_member_its_name(own_kafka, client):
    broker = own_kafka()
    topics = Topics(broker, partitions=1, client=client)
    topics.ask(b"a")
    with topics.log(member="scorer-0", answer_s=1.0) as log:
        answers = poll_until(log, 1)
        broker.kill()
        began = time.monotonic()
        with pytest.raises(UnreachableError):
            log.append(answers)
        while time.monotonic() - began < 8:  # longer than a member may be silent
            with contextlib.suppress(UnreachableError):
                log.append(answers)
        broker.start()
        until = time.monotonic() + 30
        while not topics.broker.read(topics.responses) and time.monotonic() < until:
            with contextlib.suppress(UnreachableError):
                log.append(answers)
        topics.ask(b"b")
        while b"b" not in {each.value for each in log.poll(100, 10)}:
            assert time.monotonic() < until
        log.commit()
    topics.ask(b"c")
    with topics.log(member="scorer-0") as again:
        assert [each.value for each in poll_until(again, 1)] == [b"c"]


@pytest.mark.parametrize("client", KINDS)
def test_an_answer_on_its_way_when_the_broker_dies_keeps_none_back_and_none_goes_out_late(own_kafka, client):
    broker = own_kafka()
    topics = Topics(broker, partitions=1, client=client)
    with topics.log(answer_s=1.0) as log:
        append_until_safe(log, b"before")
        os.kill(broker.server.pid, signal.SIGSTOP)
        dies = threading.Timer(0.3, broker.kill)
        dies.start()
        for value in (b"on its way", b"while it is away"):
            with pytest.raises(UnreachableError):
                log.append([Record(None, value)])
        dies.join()
        broker.start()
        append_until_safe(log, b"after")
        assert {each.value for each in topics.broker.read(topics.responses)} == {b"before", b"after"}


@pytest.mark.parametrize("client", KINDS)
def test_a_member_ends_within_seconds_while_its_broker_hangs_over_a_commit(own_kafka, client):
    broker = own_kafka()
    topics = Topics(broker, partitions=1, client=client)
    topics.ask(b"a")
    log = topics.log(member="scorer-0", answer_s=1.0)
    poll_until(log, 1)
    os.kill(broker.server.pid, signal.SIGSTOP)
    try:
        log.commit(wait=False)
        began = time.monotonic()
        log.commit()
        log.close()
        assert time.monotonic() - began < 15
    finally:
        os.kill(broker.server.pid, signal.SIGCONT)


@pytest.mark.slow
def test_a_broker_that_is_killed_and_comes_back_loses_nothing(own_kafka):
    broker = own_kafka()
    topics = Topics(broker, partitions=2)
    log = topics.log(member="scorer-0")
    topics.ask(b"a")
    log.append([record._replace(value=b"to " + record.value) for record in poll_until(log, 1)])
    broker.kill()
    assert log.poll(200, 10) == []
    began = time.monotonic()
    log.commit()  # cannot be said now, and is said later
    assert time.monotonic() - began < 8
    broker.start()
    topics.ask(b"b")
    seen = poll_until(log, 1, timeout_s=30)
    assert b"b" in {record.value for record in seen}
    log.append([record._replace(value=b"to " + record.value) for record in seen])
    log.commit()
    log.close()
    assert {each.value for each in topics.broker.read(topics.responses)} == {b"to a", b"to b"}
    topics.ask(b"c")
    again = topics.log(member="scorer-0")
    assert [each.value for each in poll_until(again, 1)] == [b"c"]
    again.close()
