"""Commits are few, and none is forgotten."""

import pytest

from contracts.errors import StoreError
from nodes.fakes import MemoryLog
from nodes.paced_commits import PacedCommits


class Seconds:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_commits_come_at_their_pace_and_the_rest_when_there_is_time() -> None:
    log, clock = MemoryLog([b"%d" % number for number in range(10)]), Seconds()
    commits = PacedCommits(log, 1.0, clock)
    seen = []
    for at_s in (0.0, 0.5, 0.9, 1.0, 1.5):
        clock.now = at_s
        log.poll(0, 2)
        commits.answered()
        seen.append(log.committed)
    assert seen == [2, 2, 2, 8, 8]
    commits.idle()
    assert log.committed == 10
    commits.settle()
    log.fail_commit = StoreError("nothing is owed, so nothing is said")
    commits.idle()
    commits.settle()


def test_only_the_last_commit_is_waited_for() -> None:
    class Log(MemoryLog):
        def __init__(self) -> None:
            super().__init__([b"a", b"b"])
            self.waited: list[bool] = []

        def commit(self, *, wait: bool = True) -> None:
            self.waited.append(wait)
            super().commit(wait=wait)

    log = Log()
    commits = PacedCommits(log, 0.0)
    for _ in range(2):
        log.poll(0, 1)
        commits.answered()
    commits.idle()
    commits.settle()
    assert log.waited == [False, False, False, True]


def test_a_commit_that_failed_is_made_with_the_next() -> None:
    log, clock = MemoryLog([b"a"]), Seconds()
    commits = PacedCommits(log, 1.0, clock)
    log.poll(0, 1)
    log.fail_commit = StoreError("gone")
    with pytest.raises(StoreError):
        commits.answered()
    commits.settle()
    assert log.committed == 1
