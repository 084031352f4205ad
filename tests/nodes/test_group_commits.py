"""What a member says that it is done with, over a consumer whose commits come to nothing, late, or never."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka import TopicPartition, errors

from nodes import group_commits
from nodes.group_commits import GroupCommits
from nodes.kafka_rebalance import ForgetRevoked

A, B = TopicPartition("requests", 0), TopicPartition("requests", 1)


class Broker:
    """Its consumer's side: commits wait until the test lets them succeed or fail."""

    def __init__(self) -> None:
        self.committed: dict[TopicPartition, int] = {}
        self.flying: list[tuple[dict[TopicPartition, Any], Callable[..., None]]] = []
        self.refuses: Exception | None = None
        self.moves = 0  # commits that fail until the member has joined again
        self.on_join: Callable[[], None] = lambda: None

    def commit_async(self, upto: dict[TopicPartition, Any], callback: Callable[..., None]) -> None:
        self.flying.append((upto, callback))

    def commit(self, upto: dict[TopicPartition, Any], timeout_ms: int) -> None:
        assert timeout_ms > 0
        while self.flying:  # one connection: what left first is there first
            self.land()
        if self.refuses is not None:
            raise self.refuses
        if self.moves:
            raise errors.CommitFailedError
        self._take(upto)

    def join(self, most_s: float) -> None:
        assert most_s >= 0
        self.moves = max(0, self.moves - 1)
        self.on_join()

    def land(self, outcome: Exception | None = None) -> None:
        upto, callback = self.flying.pop(0)
        if outcome is None:
            self._take(upto)
        callback(upto, outcome)

    def _take(self, upto: dict[TopicPartition, Any]) -> None:
        self.committed.update({part: each.offset for part, each in upto.items()})


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_commits, "_PAUSE_S", 0.0)


@pytest.fixture
def commits(broker: Broker) -> GroupCommits:
    return GroupCommits(broker, "kafka://b:1/requests", Counter(), broker.join)


def test_a_commit_on_its_way_is_followed_by_one_with_all_that_came_since(broker: Broker, commits: GroupCommits) -> None:
    commits.done[A] = 3
    commits.say(wait=False)
    commits.done[A], commits.done[B] = 5, 2
    commits.say(wait=False)
    assert len(broker.flying) == 1
    broker.land()
    assert broker.committed == {A: 3}
    assert commits.done == {A: 5, B: 2}
    commits.say(wait=False)
    broker.land()
    assert broker.committed == {A: 5, B: 2}
    assert not commits.done
    commits.say(wait=False)
    assert not broker.flying


@pytest.mark.parametrize(
    "kind", [errors.CoordinatorNotAvailableError, errors.RebalanceInProgressError, errors.CommitFailedError,
             errors.IllegalGenerationError, errors.UnknownMemberIdError]
)  # fmt: skip
def test_what_could_not_be_said_is_said_with_the_next_but_not_of_partitions_that_went(
    broker: Broker, commits: GroupCommits, kind: type[errors.KafkaError]
) -> None:
    commits.done[A], commits.done[B] = 3, 2
    commits.say(wait=False)
    broker.land(kind())
    del commits.done[B]  # as `ForgetRevoked` does
    commits.say(wait=False)
    broker.land()
    assert (broker.committed, commits.done, commits._counts["commits_failed"]) == ({A: 3}, {}, 1)


def test_what_was_polled_after_a_commit_that_failed_is_said_with_the_next(
    broker: Broker, commits: GroupCommits
) -> None:
    commits.done[A], commits.done[B] = 3, 1
    commits.say(wait=False)
    commits.done[A] = 5
    broker.land(errors.RebalanceInProgressError())
    commits.say(wait=True)
    assert (broker.committed, commits.done, commits._counts["commits_failed"]) == ({A: 5, B: 1}, {}, 1)
    broker.refuses = errors.GroupAuthorizationFailedError()
    commits.say(wait=True)  # says nothing, since all is said


def test_at_the_end_a_member_that_has_to_joins_again_and_says_what_it_still_has(
    broker: Broker, commits: GroupCommits
) -> None:
    commits.done[A], commits.done[B] = 3, 1
    broker.moves = 2
    broker.on_join = lambda: ForgetRevoked(commits.done, Counter()).on_partitions_revoked([B])
    commits.say(wait=True)
    assert (broker.committed, commits.done, commits._counts["commits_failed"]) == ({A: 3}, {}, 2)


def test_at_the_end_patience_is_limited(broker: Broker, commits: GroupCommits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_commits, "_WAIT_S", 0.1)
    commits.done[A] = 3
    broker.moves = 1_000_000
    commits.say(wait=True)
    assert (broker.committed, commits.done) == ({}, {A: 3})


@pytest.mark.parametrize("wait", [False, True])
def test_a_refusal_for_good_is_raised(broker: Broker, commits: GroupCommits, *, wait: bool) -> None:
    commits.done[A] = 3
    if wait:
        broker.refuses = errors.GroupAuthorizationFailedError()
    else:
        commits.say(wait=False)
        broker.land(errors.GroupAuthorizationFailedError())
    with pytest.raises(errors.GroupAuthorizationFailedError):
        commits.say(wait=wait)
    broker.refuses = None  # it was given rights
    commits.say(wait=True)
    assert (broker.committed, commits.done) == ({A: 3}, {})


def test_news_of_a_commit_that_another_has_overtaken_is_none(broker: Broker, commits: GroupCommits) -> None:
    commits.done[A] = 3
    commits.say(wait=False)
    late = broker.flying.pop()
    commits.done[A] = 4
    commits.say(wait=True)
    commits.done[A] = 6
    late[1](late[0], errors.IllegalGenerationError())
    commits.say(wait=True)
    assert (broker.committed, commits.done, commits._counts["commits_failed"]) == ({A: 6}, {}, 0)


def test_a_commit_without_news_is_given_up(
    broker: Broker, commits: GroupCommits, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits.done[A] = 3
    commits.say(wait=False)
    monkeypatch.setattr(group_commits, "_PATIENCE_S", -1.0)
    commits.say(wait=False)
    assert (len(broker.flying), commits._counts["commits_failed"]) == (2, 1)


def test_a_commit_that_could_not_even_leave_is_not_waited_for(
    broker: Broker, commits: GroupCommits, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fenced(*_: object, **__: object) -> None:
        raise errors.FencedInstanceIdError

    commits.done[A] = 3
    with monkeypatch.context() as patch:
        patch.setattr(broker, "commit_async", fenced)
        with pytest.raises(errors.FencedInstanceIdError):
            commits.say(wait=False)
    commits.say(wait=False)
    assert len(broker.flying) == 1


_STEPS = st.lists(st.sampled_from(["poll A", "poll B", "revoke A", "say", "land", "fail", "lose", "wait"]), max_size=40)


@given(_STEPS)
def test_all_that_was_polled_is_committed_in_the_end_but_not_of_partitions_that_went(steps: list[str]) -> None:
    broker, polled, owed = Broker(), {A: 0, B: 0}, dict[TopicPartition, int]()
    commits = GroupCommits(broker, "kafka://b:1/requests", Counter(), broker.join)
    for step in steps:
        match step:
            case "poll A" | "poll B":
                part = A if step.endswith("A") else B
                polled[part] += 1
                commits.done[part] = owed[part] = polled[part]
            case "revoke A":
                commits.done.pop(A, None)
                owed.pop(A, None)
            case "say":
                commits.say(wait=False)
            case "wait":
                commits.say(wait=True)
                assert broker.committed.items() >= owed.items()
            case _ if broker.flying:
                failure = {"fail": errors.CoordinatorNotAvailableError(), "lose": errors.RebalanceInProgressError()}
                broker.land(failure.get(step))
        assert len(broker.flying) <= 1
        assert all(broker.committed.get(part, 0) <= upto for part, upto in polled.items())
        assert commits.done.items() <= owed.items()
    commits.say(wait=True)
    assert not commits.done
    assert broker.committed.items() >= owed.items()
