"""Kafka URLs are read strictly, and never hold a secret."""

import pytest

from contracts.errors import ContractError
from nodes.kafka_url import parse_brokers, parse_kafka_url


@pytest.mark.parametrize(
    "text", ["kafka://a:9092/t", "kafka://a.b-c:1,[::1]:65535/ctr.dead-letters.v1", f"kafka://a:9092/{'t' * 249}"]
)
def test_a_url_reads_as_it_is_written(text):
    assert str(parse_kafka_url(text)) == text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("redis://a:1/t", "is no Kafka URL"),
        ("kafka://a/t", "'a' is no host:port"),
        ("kafka:///t", "'' is no host:port"),
        ("kafka://a:0/t", "'a:0' is no host:port"),
        ("kafka://a:65536/t", "is no host:port"),
        ("kafka://a:1,/t", "'' is no host:port"),
        ("kafka://a:1", "no topic"),
        ("kafka://a:1/", "no topic"),
        ("kafka://a:1/x/y", "'x/y' is no name of a topic"),
        ("kafka://a:1/..", "is no name of a topic"),
        (f"kafka://a:1/{'t' * 250}", "is no name of a topic"),
        ("kafka://a:1/t?x=1", "is no name of a topic"),
    ],
)
def test_another_form_is_refused_by_what_is_wrong(text, why):
    with pytest.raises(ContractError, match="kafka://") as told:
        parse_kafka_url(text)
    assert why in str(told.value)


def test_a_password_in_a_url_is_refused_and_not_repeated():
    with pytest.raises(ContractError, match="a URL holds no secrets") as told:
        parse_kafka_url("kafka://me:secret@a:1/t")
    assert "secret@" not in str(told.value)


def test_brokers_alone_take_no_topic():
    with pytest.raises(ContractError, match="names a topic where only brokers belong"):
        parse_brokers("kafka://a:1/t")
