"""How far a member of a group is: told by its fetches while answers go out, by the brokers when none does."""

from typing import Any

import pytest
from kafka import TopicPartition, errors

from nodes.kafka_standing import standing_of

ONE, TWO = TopicPartition("asks", 0), TopicPartition("asks", 1)


class Member:
    """A consumer with what it knows of each partition, and what the brokers would say."""

    def __init__(self, known: dict[TopicPartition, int | None], truth: dict[TopicPartition, int]) -> None:
        self.known, self.truth, self.at = known, truth, dict.fromkeys(known, 3)
        self.asked: list[list[TopicPartition]] = []
        self.taken: set[TopicPartition] = set()

    def assignment(self) -> set[TopicPartition]:
        return set(self.known)

    def highwater(self, part: TopicPartition) -> int | None:
        return self.known[part]

    def end_offsets(self, parts: list[TopicPartition], timeout_ms: int) -> dict[TopicPartition, int]:
        assert timeout_ms == 7
        self.asked.append(sorted(parts))
        return {part: self.truth[part] for part in parts}

    def position(self, part: TopicPartition, timeout_ms: int) -> int:
        if part in self.taken:
            raise errors.IllegalStateError("not assigned")
        return self.at[part]


@pytest.mark.parametrize(
    ("known", "ask", "partitions", "lag", "asked"),
    [
        ({ONE: 5, TWO: 4}, False, 2, 3, []),
        ({ONE: 5, TWO: 4}, True, 2, 24, [[ONE, TWO]]),
        ({ONE: 5, TWO: None}, False, 2, 24, [[ONE, TWO]]),
        ({ONE: 2}, False, 1, 0, []),
        ({}, False, 0, 0, [[ONE]]),
        ({}, True, 0, 0, [[ONE]]),
    ],
    ids=["known", "asked", "not fetched yet", "ahead of an old fetch", "no partition", "no partition, asked"],
)
def test_brokers_are_asked_where_they_must_be(known: Any, ask: Any, partitions: int, lag: int, asked: Any) -> None:
    member = Member(known, {ONE: 10, TWO: 20})
    assert standing_of(member, "asks", ask=ask, max_wait_ms=7) == (partitions, lag)
    assert member.asked == asked


@pytest.mark.parametrize("ask", [True, False])
def test_a_partition_that_is_taken_away_meanwhile_leaves_none_for_now(ask: Any) -> None:
    member = Member({ONE: 5, TWO: 5}, {ONE: 10, TWO: 20})
    member.taken = {TWO}
    assert standing_of(member, "asks", ask=ask, max_wait_ms=7) == (0, 0)
