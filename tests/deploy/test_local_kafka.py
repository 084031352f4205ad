"""A real broker of one's own: up, killed and back with its data, found again, and never mistaken for another."""

from collections.abc import Callable

from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from tests.kafka_broker import KafkaBroker


def _write(brokers: str, topic: str, *values: bytes) -> None:
    producer = KafkaProducer(bootstrap_servers=brokers, acks="all")
    for value in values:
        producer.send(topic, value, partition=0)
    producer.flush(30)
    producer.close()


def _read(brokers: str, topic: str, count: int) -> list[bytes]:
    consumer = KafkaConsumer(bootstrap_servers=brokers, enable_auto_commit=False)
    consumer.assign([TopicPartition(topic, 0)])
    consumer.seek_to_beginning()
    found: list[bytes] = []
    for _ in range(100):
        found += [record.value for batch in consumer.poll(200).values() for record in batch]
        if len(found) >= count:
            break
    consumer.close()
    return found


def test_the_session_broker_takes_and_gives_records(kafka: KafkaBroker) -> None:
    topic = kafka.create(partitions=2, retention_ms=-1)
    _write(kafka.brokers, topic, b"a", b"b")
    kafka.delete_records(topic, {0: 1})
    assert _read(kafka.brokers, topic, 1) == [b"b"]
    assert kafka.url(topic) == f"kafka://{kafka.brokers}/{topic}"


def test_a_killed_broker_comes_back_on_its_port_with_what_it_acknowledged(
    own_kafka: Callable[[], KafkaBroker],
) -> None:
    broker = own_kafka()
    topic, brokers = broker.create(), broker.brokers
    _write(brokers, topic, b"kept")
    broker.kill()
    assert broker.server.pid is None
    broker.start()
    assert broker.brokers == brokers
    assert _read(brokers, topic, 1) == [b"kept"]
