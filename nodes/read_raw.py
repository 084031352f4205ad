"""Records as they lie in a topic or a file, with no check and no decoding: for whoever counts again."""

import contextlib
import time
from pathlib import Path

from kafka import TopicPartition

from contracts.errors import ContractError, StoreError
from contracts.sections import Kafka
from nodes.audit import Raw
from nodes.kafka_client import begin_offsets, consumer, end_offsets
from nodes.kafka_errors import speaking
from nodes.kafka_url import is_kafka_url, parse_kafka_url

_POLL_MS = 200


def read_raw(source: str | Path, kafka: Kafka) -> dict[str, list[Raw]]:
    """Every record that the source holds now, by origin (a file, or topic:partition), in order of offset.

    Args:
        source: `kafka://host:port/topic`, or a file of JSON lines.
        kafka: how brokers are spoken to.

    Raises:
        ContractError: there is no such file.
        StoreError: there is no such topic, or the broker does not answer.
    """
    return _topic(str(source), kafka) if is_kafka_url(source) else {str(source): _file(Path(source))}


def _file(path: Path) -> list[Raw]:
    try:
        return [Raw(line, value) for line, value in enumerate(path.read_bytes().splitlines())]
    except OSError as error:
        raise ContractError(f"{path}: cannot be read ({error.strerror}); check the path") from error


def _topic(url: str, kafka: Kafka) -> dict[str, list[Raw]]:
    place = parse_kafka_url(url)
    with contextlib.closing(consumer(place.brokers, kafka)) as reader:
        begins = begin_offsets(place.brokers, place.topic, kafka, using=reader)
        ends = end_offsets(place.brokers, place.topic, kafka, using=reader)
        found: dict[str, list[Raw]] = {f"{place.topic}:{number}": [] for number in ends}
        left = {TopicPartition(place.topic, number): end for number, end in ends.items() if begins[number] < end}
        with speaking(url):
            reader.assign(list(left))
            for tp in left:
                reader.seek(tp, begins[tp.partition])
            until_s = time.monotonic() + kafka.request_timeout_s
            while left:
                for tp, records in reader.poll(timeout_ms=_POLL_MS, max_records=50_000).items():
                    origin = f"{tp.topic}:{tp.partition}"
                    found[origin] += [Raw(r.offset, r.value) for r in records if r.offset < ends[tp.partition]]
                    until_s = time.monotonic() + kafka.request_timeout_s
                left = {tp: end for tp, end in left.items() if reader.position(tp) < end}
                if time.monotonic() > until_s:
                    raise StoreError(f"{url}: sent nothing for {kafka.request_timeout_s:g} s; check the broker")
    return found
