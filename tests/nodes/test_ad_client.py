"""Who asks: answers are found by correlation id, and what gets none is named once, in time."""

import time
from collections.abc import Iterator

import pytest

from contracts.errors import StoreError
from contracts.sections import Kafka
from contracts.stores import Record
from nodes.ad_client import AdClient
from nodes.kafka_log import KafkaLog
from nodes.reply_headers import reply_headers
from tests.kafka_broker import KafkaBroker

SETTINGS = Kafka(request_timeout_s=10)


class Echo:
    """Answers what it polls with the same bytes, when it is told to."""

    def __init__(self, kafka: KafkaBroker) -> None:
        self.requests, self.responses = kafka.url(kafka.create()), kafka.url(kafka.create(partitions=2))
        self.log = KafkaLog(self.requests, self.responses, kafka.name("g"), SETTINGS)

    def echo(self, count: int) -> list[Record]:
        found: list[Record] = []
        until_s = time.monotonic() + 20
        while len(found) < count and time.monotonic() < until_s:
            found += self.log.poll(100, 100)
        back = [Record(each.key, each.value, reply_headers(each, app="a", at_ms=0)) for each in found]
        self.log.append(list(reversed(back)))
        return found


@pytest.fixture
def echo(kafka: KafkaBroker) -> Iterator[Echo]:
    made = Echo(kafka)
    with made.log:
        yield made


def test_answers_are_found_by_their_id_in_whatever_order_they_come(echo: Echo) -> None:
    with AdClient(echo.requests, echo.responses, SETTINGS) as client, AdClient(echo.requests, echo.responses,
                                                                               SETTINGS) as other:  # fmt: skip
        ids = client.send([b"a", b"b", b"c"])
        others = other.send([b"x"], ids=[b"mine"], keys=[b"k"], at_ms=7, safe=False)
        other.flush()
        assert (others, client.waiting, other.waiting) == ([b"mine"], 3, 1)
        asked = echo.echo(4)
        assert (asked[-1].key, asked[-1].timestamp_ms) == (b"k", 7)
        came: dict[bytes | None, bytes] = {}
        until_s = time.monotonic() + 20
        while len(came) < 4 and time.monotonic() < until_s:
            came |= {found: answer.value for found, answer in client.answers(0.2)}
        assert came == dict(zip([*ids, b"mine"], [b"a", b"b", b"c", b"x"], strict=True))
        assert (client.waiting, client.overdue()) == (0, [])


def test_what_gets_no_answer_is_given_up_when_its_time_is_up_and_named_once(echo: Echo) -> None:
    with AdClient(echo.requests, echo.responses, SETTINGS, timeout_s=60) as client:
        (hasty,) = client.send([b"a"], timeout_s=0.05)
        (patient,) = client.send([b"b"])
        assert list(client.answers(0.1)) == []
        assert (client.overdue(), client.overdue(), client.waiting) == ([hasty], [], 1)
        with pytest.raises(StoreError, match=r"no answer on kafka://.* within 0.1 s; is a scorer running"):
            client.ask(b"c", timeout_s=0.1)
        assert client.waiting == 1
        echo.echo(3)
        late: list[bytes | None] = []
        until_s = time.monotonic() + 20
        while len(late) < 3 and time.monotonic() < until_s:
            late += [found for found, _ in client.answers(0.2)]
        assert {hasty, patient} < set(late), "a late answer still comes"
        assert client.waiting == 0


def test_an_answer_asked_for_elsewhere_keeps_its_topic(echo: Echo) -> None:
    with AdClient(echo.requests, echo.responses, SETTINGS) as client:
        client.send([b"a"], headers=(("kafka_replyTopic", b"there"), ("traceparent", b"t")))
        (asked,) = echo.echo(1)
        names = [name for name, _ in asked.headers]
        assert sorted(names) == ["kafka_correlationId", "kafka_replyTopic", "traceparent"]
        assert dict(asked.headers)["kafka_replyTopic"] == b"there"
