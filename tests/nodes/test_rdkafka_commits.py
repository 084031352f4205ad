"""What a member says that it is done with by librdkafka, over a consumer whose commits fail, or take their time."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from confluent_kafka import KafkaError, TopicPartition
from hypothesis import given
from hypothesis import strategies as st
from kafka import errors

from nodes import rdkafka_commits
from nodes.rdkafka_commits import RdCommits


class Broker:
    """A consumer whose commits wait until the test lets them succeed or fail."""

    def __init__(self) -> None:
        self.committed: dict[int, int] = {}
        self.flying: list[list[TopicPartition]] = []

    def commit(self, offsets: list[TopicPartition]) -> None:
        self.flying.append(offsets)

    def land(self, commits: RdCommits, code: int | None = None, *, in_parts: bool = False) -> None:
        offsets = self.flying.pop(0)
        if code is None:
            self.committed |= {each.partition: each.offset for each in offsets}
            commits.told(None, offsets)
        elif in_parts:
            commits.told(None, [Failed(KafkaError(code))])  # type: ignore[list-item]
        else:
            commits.told(KafkaError(code), offsets)

    def news(self, commits: RdCommits, *codes: int) -> Callable[[], None]:
        """Each time one commit more has arrived: the first ones to no avail."""
        coming = iter(codes)
        return lambda: self.land(commits, next(coming, None)) if self.flying else None


class Failed:
    """A partition whose part of a commit was refused."""

    def __init__(self, error: KafkaError) -> None:
        self.error = error


@pytest.fixture
def broker() -> Any:
    return Broker()


@pytest.fixture
def commits(monkeypatch: pytest.MonkeyPatch) -> RdCommits:
    monkeypatch.setattr(rdkafka_commits, "_PAUSE_S", 0.0)
    return RdCommits("requests", "kafka://b:1/requests", Counter())


MENDS = [
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError._TRANSPORT,
    KafkaError._TIMED_OUT,
    KafkaError._WAIT_COORD,
]
MOVES = [
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.UNKNOWN_MEMBER_ID,
    KafkaError.REBALANCE_IN_PROGRESS,
    KafkaError._ASSIGNMENT_LOST,
    KafkaError._FATAL,
]


@pytest.mark.parametrize("in_parts", [False, True])
@pytest.mark.parametrize("code", MENDS + MOVES)
def test_what_could_not_be_said_is_said_with_the_next_but_not_of_partitions_that_went(
    broker: Any, commits: RdCommits, code: int, *, in_parts: bool
) -> None:
    commits.done = {0: 3, 1: 2}
    commits.say(broker)
    commits.done[0] = 5
    commits.forget([1, 7])
    broker.land(commits, code, in_parts=in_parts)
    commits.say(broker)
    broker.land(commits)
    assert (broker.committed, commits.done, commits._counts) == ({0: 5}, {}, {"commits_failed": 1})


def test_one_commit_is_on_its_way_and_the_next_has_all_that_came_since(broker: Any, commits: RdCommits) -> None:
    for offset in (1, 2, 3):
        commits.done[0] = offset
        commits.say(broker)
    assert (len(broker.flying), commits.done) == (1, {0: 3})
    broker.land(commits)
    commits.say(broker)
    broker.land(commits)
    commits.say(broker)
    assert (broker.flying, broker.committed, commits.done) == ([], {0: 3}, {})


def test_partitions_that_go_take_along_what_was_polled_of_them(broker: Any, commits: RdCommits) -> None:
    commits.done = {0: 3, 1: 2}
    commits.forget([0, 7])
    commits.settle(broker, broker.news(commits))
    assert (broker.committed, commits._counts) == ({1: 2}, {"partitions_lost": 1})


@pytest.mark.parametrize("wait", [False, True])
def test_a_refusal_for_good_is_raised_once(broker: Any, commits: RdCommits, *, wait: bool) -> None:
    commits.done[0] = 3
    news = broker.news(commits, KafkaError.GROUP_AUTHORIZATION_FAILED)
    if not wait:
        commits.say(broker)
        news()
    with pytest.raises(errors.GroupAuthorizationFailedError):
        commits.settle(broker, news) if wait else commits.say(broker)
    commits.settle(broker, news)
    assert (broker.committed, commits.done) == ({0: 3}, {})


def test_at_the_end_what_failed_is_said_until_it_is_known(broker: Any, commits: RdCommits) -> None:
    commits.done[0] = 3
    commits.say(broker)
    commits.done[0] = 4
    commits.settle(broker, broker.news(commits, *MENDS, *MOVES))
    assert (broker.committed, commits._counts) == ({0: 4}, {"commits_failed": 10})


@pytest.mark.parametrize("silent", [False, True])
def test_at_the_end_patience_is_limited(
    broker: Any, commits: RdCommits, monkeypatch: pytest.MonkeyPatch, *, silent: bool
) -> None:
    monkeypatch.setattr(rdkafka_commits, "_WAIT_S", 0.05)
    commits.done[0] = 3
    news = (lambda: None) if silent else broker.news(commits, *[KafkaError.ILLEGAL_GENERATION] * 1_000_000)
    commits.settle(broker, news)
    assert not broker.committed
    assert commits._counts["commits_failed"] == 1 if silent else commits._counts["commits_failed"] > 1


def test_a_commit_that_cannot_leave_is_still_to_be_said(
    broker: Any, commits: RdCommits, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(offsets: Sequence[TopicPartition]) -> None:
        raise RuntimeError(len(offsets))

    commits.done[0] = 3
    with monkeypatch.context() as patch:
        patch.setattr(broker, "commit", full)
        with pytest.raises(RuntimeError):
            commits.say(broker)
    commits.settle(broker, broker.news(commits))
    assert broker.committed == {0: 3}


_STEPS = st.lists(st.sampled_from(["poll 0", "poll 1", "revoke", "say", "land", "fail", "move", "settle"]), max_size=40)


@given(_STEPS)
def test_all_that_was_polled_is_committed_in_the_end_but_not_of_partitions_that_went(steps: list[str]) -> None:
    broker: Any = Broker()
    polled, owed = {0: 0, 1: 0}, dict[int, int]()
    commits = RdCommits("requests", "kafka://b:1/requests", Counter())
    for step in steps:
        match step:
            case "poll 0" | "poll 1":
                part = int(step[-1])
                polled[part] += 1
                commits.done[part] = owed[part] = polled[part]
            case "revoke":
                commits.forget([0])
                owed.pop(0, None)
            case "say":
                commits.say(broker)
            case "settle":
                commits.settle(broker, broker.news(commits))
                assert broker.committed.items() >= owed.items()
            case _ if broker.flying:
                broker.land(commits, {"fail": KafkaError._TRANSPORT, "move": KafkaError.ILLEGAL_GENERATION}.get(step))
        assert len(broker.flying) <= 1
        assert all(broker.committed.get(part, 0) <= upto for part, upto in polled.items())
        assert commits.done.items() <= owed.items()
    commits.settle(broker, broker.news(commits))
    assert not commits.done
    assert broker.committed.items() >= owed.items()
