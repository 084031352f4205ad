"""What a member takes by librdkafka, over a consumer that hands out what the test says."""

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from confluent_kafka import KafkaError, TopicPartition
from hypothesis import given
from hypothesis import strategies as st
from kafka import errors

from contracts.errors import UnreachableError
from contracts.sections import Kafka
from nodes import rdkafka_reader
from nodes.kafka_url import parse_kafka_url
from nodes.rdkafka_reader import RdReader

AWAY = "the broker is away"


class Message(NamedTuple):
    """One that librdkafka hands out."""

    at: int
    part: int = 0
    code: int | None = None
    damage: type[BaseException] | None = None

    def error(self) -> KafkaError | None:
        return None if self.code is None else KafkaError(self.code)

    def partition(self) -> int:
        return self.part

    def offset(self) -> int:
        return self.at

    def timestamp(self) -> tuple[int, int]:
        return 1, 1_700_000_000_000

    def headers(self) -> Any:
        if self.damage is UnicodeDecodeError:
            raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no")
        if self.damage is not None:
            raise self.damage

    def key(self) -> None:
        return None

    def value(self) -> bytes:
        return b"%d:%d" % (self.part, self.at)


class Consumer:
    """Hands out messages, and calls what stands between them, as librdkafka calls who has to know of a revocation."""

    def __init__(self, *coming: Message | Callable[[], None]) -> None:
        self.coming = list(coming)
        self.sought: list[tuple[int, int]] = []

    def poll(self, _: float) -> Message | None:
        return next(iter(self.consume(1, timeout=0)), None)

    def consume(self, most: int, timeout: float) -> list[Message]:
        assert timeout >= 0
        found: list[Message] = []
        while self.coming and len(found) < most:
            each = self.coming.pop(0)
            if isinstance(each, Message):
                found.append(each)
            else:
                each()
        return found

    def seek(self, to: TopicPartition) -> None:
        self.sought.append((to.partition, to.offset))


def reader(consumer: Consumer) -> Any:
    return RdReader(consumer, parse_kafka_url("kafka://b:1/requests"), Kafka(), Counter())  # type: ignore[arg-type]


def values(taken: tuple[list[Any], dict[int, int]]) -> list[bytes]:
    return [record.value for record in taken[0]]


@pytest.fixture
def readable(monkeypatch: pytest.MonkeyPatch) -> list[int | str]:
    """Where what follows damage can be read, one answer a time it is asked."""
    answers: list[int | str] = []

    def found(_: object, offset: int, *__: object) -> int:
        assert offset == 4, "the batch may begin before what is still to be read"
        answer = answers.pop(0)
        if isinstance(answer, str):
            raise UnreachableError(answer)
        return answer

    monkeypatch.setattr(rdkafka_reader, "readable_from", found)
    return answers


@pytest.mark.parametrize("kind", [UnicodeDecodeError, SystemError])
def test_a_header_that_cannot_be_read_costs_its_message_alone(kind: type[BaseException]) -> None:
    made = reader(Consumer(Message(1), Message(2, damage=kind), Message(3)))
    assert values(taken := made.take(0.1, 10)) == [b"0:1", b"0:3"]
    assert (taken[1], made._counts) == ({0: 4}, {"damaged": 1})


def test_damage_is_gone_past_and_what_was_made_of_it_since_is_dropped(readable: list[int | str]) -> None:
    damage = Message(2, code=KafkaError._BAD_MSG)
    consumer = Consumer(Message(3), damage, Message(0), Message(9, 1), Message(10**18, code=KafkaError._BAD_MSG))
    made, readable[:] = reader(consumer), [7]
    assert values(made.take(0.1, 10)) == [b"0:3"]
    assert (values(made.take(0.1, 10)), consumer.sought) == ([], [(0, 7)])
    assert values(made.take(0.1, 10)) == [b"1:9"]
    assert made._counts == {"damaged": 3}
    consumer.coming = [Message(7)]
    assert made.take(0.1, 10)[1] == {0: 8}


def test_what_is_read_again_after_damage_was_gone_past_is_not_handed_out_again(readable: list[int | str]) -> None:
    damage = Message(4, code=KafkaError._BAD_MSG)
    consumer = Consumer(Message(3), damage)
    made, readable[:] = reader(consumer), [7]
    assert [values(made.take(0.1, 10)) for _ in range(2)] == [[b"0:3"], []]
    consumer.coming = [Message(0), Message(3), damage, Message(5)]
    assert [values(made.take(0.1, 10)) for _ in range(2)] == [[], []]
    assert consumer.sought == [(0, 7), (0, 7)]
    consumer.coming = [Message(7), Message(8)]
    assert made.take(0.1, 10)[1] == {0: 9}
    consumer.coming = [Message(0)]  # the topic was made anew
    assert values(made.take(0.1, 10)) == [b"0:0"]


def test_damage_behind_which_no_broker_answers_is_asked_for_again(readable: list[int | str]) -> None:
    consumer = Consumer(Message(4, code=KafkaError._BAD_MSG), Message(9, 1))
    made, readable[:] = reader(consumer), [AWAY, 5]
    with pytest.raises(UnreachableError, match=AWAY):
        made.take(0.1, 10)
    assert (values(made.take(0.1, 10)), consumer.sought) == ([], [(0, 5)])
    assert values(made.take(0.1, 10)) == [b"1:9"]


def test_damage_that_only_librdkafka_sees_is_read_once_more_and_then_said(readable: list[int | str]) -> None:
    damage = Message(4, code=KafkaError._BAD_MSG)
    consumer = Consumer(damage)
    made, readable[:] = reader(consumer), [4]
    assert (values(made.take(0.1, 10)), consumer.sought, made._counts) == ([], [(0, 4)], {})
    consumer.coming = [damage]
    with pytest.raises(errors.CorruptRecordError):
        made.take(0.1, 10)


@pytest.mark.parametrize("code", [KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError._NOT_IMPLEMENTED])
def test_what_is_for_good_is_raised_after_what_came_before_it(code: int) -> None:
    made = reader(Consumer(Message(1), Message(2, code=code), Message(3)))
    assert values(made.take(0.1, 10)) == [b"0:1"]
    with pytest.raises(errors.KafkaError):
        made.take(0.1, 10)
    assert values(made.take(0.1, 10)) == [b"0:3"]


def test_another_of_our_name_is_noticed_while_something_else_is_waited_for() -> None:
    made = reader(Consumer(Message(1), Message(0, code=KafkaError._FATAL)))
    made.hear(0)
    with pytest.raises(errors.KafkaError):
        made.hear(0)


def test_enough_is_taken_ahead_of_what_is_asked_for() -> None:
    made = reader(Consumer(*map(Message, range(2_000))))
    while not made.full:
        made.hear(0)
    found = [*values(made.take(0.1, 400)), *values(made.take(0.1, 5_000))]
    assert found == [b"0:%d" % number for number in range(rdkafka_reader._MOST_AHEAD)]


def test_what_was_taken_of_partitions_that_go_meanwhile_is_not_handed_out_or_not_known() -> None:
    consumer = Consumer(Message(1), Message(1, 1))
    made = reader(consumer)
    consumer.coming.append(lambda: made.forget([0]))
    consumer.coming.append(Message(2, 1))
    assert made.take(0.1, 10)[1] == {1: 3}
    consumer.coming = [Message(8), lambda: made.forget([0]), Message(3, 1)]
    made.hear(0)
    made.hear(0)
    assert values(made.take(0.1, 10)) == [b"1:3"]
    consumer.coming = [Message(9), lambda: made.forget([1])]  # the first is ours again
    made.hear(0)
    made.hear(0)
    assert values(made.take(0.1, 10)) == [b"0:9"]
    consumer.coming = [Message(10)]
    assert made.take(0.1, 10)[1] == {0: 11}


_EVENTS = st.lists(st.sampled_from(["0", "1", "again", "lost", "take", "hear"]), max_size=40)


@given(_EVENTS)
def test_each_record_is_handed_out_once_and_in_order_and_none_is_known_of_partitions_that_went(
    events: list[str],
) -> None:
    consumer, ends, seen, told = Consumer(), [0, 0], dict[int, list[int]](), dict[int, int]()
    made = reader(consumer)

    def take(most: int) -> None:
        records, upto = made.take(0, most)
        for record in records:
            part, at = map(int, record.value.split(b":"))
            seen.setdefault(part, []).append(at)
        told.update(upto)

    def lose() -> None:  # of partition 0, which is read by another, and comes back
        made.forget([0])
        seen.pop(0, None)
        told.pop(0, None)
        begins[0] = ends[0]

    begins = [0, 0]
    for event in events:
        match event:
            case "0" | "1":
                consumer.coming.append(Message(ends[int(event)], int(event)))
                ends[int(event)] += 1
            case "again":
                consumer.coming.append(Message(-1, 1, KafkaError._TRANSPORT))
            case "lost":
                consumer.coming = [
                    each for each in consumer.coming if not (isinstance(each, Message) and not each.part)
                ]
                lose()
            case "take":
                take(3)
            case "hear":
                made.hear(0)
    while consumer.coming or made._ahead:
        take(100)
    for part in (0, 1):
        assert seen.get(part, []) == list(range(begins[part], ends[part]))
    assert told.get(1, 0) == ends[1]
    assert told.get(0, 0) <= ends[0]
