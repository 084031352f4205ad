"""Kafka clients: what they are made with, what a topic holds, and one sentence for each thing that goes wrong."""

import collections
import gc
import socket
import ssl
import threading
import time

import pytest
from kafka import TopicPartition, errors

from contracts.errors import ContractError, FencedError, StoreError, UnreachableError
from contracts.sections import Kafka
from nodes import kafka_client
from nodes.kafka_client import begin_offsets, consumer, end_offsets, offsets_at, partitions_of, producer
from nodes.kafka_errors import as_sentence, speaking

SECURE = Kafka(
    security_protocol="SASL_SSL",
    sasl_mechanism="SCRAM-SHA-512",
    sasl_username="me",
    sasl_password="hidden",
    ca_file="ca.pem",
    cert_file="cert.pem",
    key_file="key.pem",
)


@pytest.fixture
def made(monkeypatch):
    """The options that reach kafka-python's constructors, by the client's name."""
    seen: dict[str, dict[str, object]] = {}
    for name in ("KafkaConsumer", "KafkaProducer", "KafkaAdminClient"):
        monkeypatch.setattr(kafka_client, name, lambda name=name, **options: seen.setdefault(name, options))
    monkeypatch.setattr(kafka_client, "ask_for_new_ids", lambda _: None)  # there is no producer to mend
    return seen


def test_security_settings_reach_every_client(made):
    for make in (consumer, producer, kafka_client.admin):
        make(("a:1", "b:2"), SECURE)
    assert set(made) == {"KafkaConsumer", "KafkaProducer", "KafkaAdminClient"}
    for options in made.values():
        assert options["bootstrap_servers"] == ["a:1", "b:2"]
        assert (options["security_protocol"], options["sasl_mechanism"]) == ("SASL_SSL", "SCRAM-SHA-512")
        assert (options["sasl_plain_username"], options["sasl_plain_password"]) == ("me", "hidden")
        assert [options[f"ssl_{name}file"] for name in ("ca", "cert", "key")] == ["ca.pem", "cert.pem", "key.pem"]
        assert options["ssl_check_hostname"] is True


def test_the_defaults_that_lose_or_double_events_are_changed(made):
    consumer("a:1", Kafka())
    producer("a:1", Kafka(max_message_bytes=5000))
    reading, writing = made["KafkaConsumer"], made["KafkaProducer"]
    assert (reading["enable_auto_commit"], reading["isolation_level"]) == (False, "read_committed")
    assert reading["auto_offset_reset"] == "none"
    assert reading["allow_auto_create_topics"] is writing["allow_auto_create_topics"] is False
    assert (writing["enable_idempotence"], writing["acks"], writing["max_request_size"]) == (True, "all", 5000)


def test_options_of_the_client_can_be_laid_over(made):
    consumer("a:1", Kafka(), group_id="g")
    assert made["KafkaConsumer"]["group_id"] == "g"


def test_a_topic_tells_its_partitions_and_offsets(kafka):
    topic = kafka.create(partitions=3, retention_ms=-1)
    settings = Kafka()
    writer = producer(kafka.brokers, settings)
    for number in range(10):
        writer.send(topic, b"v", partition=number % 2, timestamp_ms=1_000 + number)
    writer.close()
    kafka.delete_records(topic, {0: 2})
    assert partitions_of(kafka.brokers, topic, settings) == [0, 1, 2]
    assert begin_offsets(kafka.brokers, topic, settings) == {0: 2, 1: 0, 2: 0}
    assert end_offsets(kafka.brokers, topic, settings) == {0: 5, 1: 5, 2: 0}
    reader = consumer(kafka.brokers, settings)
    assert offsets_at(kafka.brokers, topic, settings, 1_005, using=reader) == {0: 3, 1: 2, 2: 0}
    assert offsets_at(kafka.brokers, topic, settings, 9_999, using=reader) == {0: 5, 1: 5, 2: 0}
    assert offsets_at(kafka.brokers, topic, settings, -1, using=reader) == {0: 2, 1: 0, 2: 0}
    part = TopicPartition(topic, 0)
    reader.assign([part])
    reader.seek(part, 1)  # what is gone is said, never jumped over
    with pytest.raises(StoreError, match=r'not hold what was asked for .*live.gone = "earliest"'), speaking("here"):
        collections.deque(iter(lambda: reader.poll(timeout_ms=100), "never"), maxlen=0)
    reader.close()


def test_a_missing_topic_is_one_sentence(kafka):
    with pytest.raises(StoreError, match=r"no-such: no such topic; create it with `rocket up`"):
        end_offsets(kafka.brokers, "no-such", Kafka())


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def test_a_broker_that_is_not_there_is_said_in_time_and_leaves_no_thread():
    before, began = threading.active_count(), time.monotonic()
    with pytest.raises(StoreError, match=r"no broker answers .*Connection refused.*start it with `rocket up`"):
        consumer(f"127.0.0.1:{free_port()}", Kafka(connect_timeout_s=0.5))
    assert time.monotonic() - began < 3
    assert threading.active_count() == before


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # the client leaves them to the garbage collector
def test_a_broker_without_tls_is_said(kafka):
    with pytest.raises(StoreError, match=r"TLS fails .*check kafka.ca_file"):
        consumer(kafka.brokers, Kafka(connect_timeout_s=0.5, security_protocol="SSL"))
    with pytest.raises(StoreError, match=r"TLS fails .*No such file"):
        consumer(kafka.brokers, Kafka(connect_timeout_s=0.5, security_protocol="SSL", ca_file="absent.pem"))
    gc.collect()


def test_a_port_that_speaks_no_kafka_is_said(kafka):
    wrong = Kafka(connect_timeout_s=0.5, security_protocol="SASL_PLAINTEXT", sasl_mechanism="PLAIN",
                  sasl_username="me", sasl_password="x")  # fmt: skip
    with pytest.raises(StoreError, match="nothing speaks Kafka with security_protocol SASL_PLAINTEXT"):
        producer(kafka.brokers, wrong)


def test_settings_that_do_not_go_together_are_said():
    with pytest.raises(ContractError, match=r"the settings in \[kafka\] do not go together"):
        consumer("127.0.0.1:1", Kafka(request_timeout_s=0.1))


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (errors.SaslAuthenticationFailedError("bad"), StoreError, "refuses the user or the password"),
        (errors.UnsupportedSaslMechanismError(), StoreError, "set kafka.sasl_mechanism"),
        (errors.GroupAuthorizationFailedError("g"), StoreError, "give it rights on the topic"),
        (errors.TopicDeletionDisabledError(), StoreError, "the broker refused"),
        (errors.MessageSizeTooLargeError(), ContractError, "raise kafka.max_message_bytes"),
        (errors.OffsetOutOfRangeError({}), StoreError, "does not hold what was asked for"),
        (errors.ProducerFencedError(), FencedError, "another writer has taken over"),
        (errors.FencedInstanceIdError(), FencedError, "another writer has taken over"),
        (errors.KafkaTimeoutError("slow"), UnreachableError, "no answer in time"),
        (errors.KafkaConnectionError("gone"), UnreachableError, "cannot be reached"),
        (errors.CorruptRecordError("crc"), StoreError, "is damaged"),
        (errors.UnsupportedVersionError(), StoreError, "too old"),
        (errors.PolicyViolationError("no"), StoreError, "the broker refused"),
        (ssl.SSLError("x"), UnreachableError, "cannot be reached"),
    ],
)
def test_each_error_of_the_client_has_its_sentence(error, kind, words):
    told = as_sentence("kafka://a:1/t", error)
    assert type(told) is kind
    assert str(told).startswith("kafka://a:1/t: ")
    assert words in str(told)
    assert "\n" not in str(told)


def test_other_errors_pass_through():
    with pytest.raises(KeyError), speaking("here"):
        raise KeyError("a bug is not a broker's fault")


def test_a_producer_whose_broker_never_tells_of_a_batch_is_closed_all_the_same(kafka):
    topic, before = kafka.create(), threading.active_count()
    writer = producer((kafka.brokers,), Kafka())
    sent = writer.send(topic, b"x")
    sent.get(10)
    writer._accumulator.await_flush_completion = stuck_once(writer._accumulator.await_flush_completion)
    kafka_client.close_producer(writer, 1)
    assert writer._closed
    assert threading.active_count() == before


def stuck_once(wait):
    raised = []

    def stuck(timeout=None):
        if not raised:
            raised.append(True)
            raise errors.KafkaTimeoutError("Timeout waiting for future")
        return wait(timeout)

    return stuck
