"""The example log as a topic: one order, one writer, whole segments, found by row number."""

import math
import random
import threading

import polars as pl
import pytest

from contracts.errors import ContractError, CorruptError, FencedError, SchemaMismatchError, StoreError
from contracts.sections import Kafka
from contracts.segments import FeatureBatch, encode_segment
from nodes.example_logs import ExampleFolder, open_examples
from nodes.kafka_client import producer
from nodes.kafka_examples import KafkaExampleLog
from nodes.kafka_segments import segment_headers

SETTINGS = Kafka(request_timeout_s=10)


def batch(first: int, rows: int = 4, schema_id: str = "s", ids: int = 0) -> FeatureBatch:
    return FeatureBatch(
        pl.DataFrame({"example_id": pl.Series(range(ids + first, ids + first + rows), dtype=pl.UInt64)}),
        first,
        schema_id,
    )


@pytest.fixture
def url(kafka) -> str:
    return kafka.url(kafka.create(retention_ms=-1))


@pytest.fixture
def open_log(url):
    """Opens the one log as often as asked, and closes all at the end."""
    opened: list[KafkaExampleLog] = []

    def open_again(settings: Kafka = SETTINGS, where: str = "") -> KafkaExampleLog:
        opened.append(KafkaExampleLog(where or url, "adsim", settings))
        return opened[-1]

    yield open_again
    for log in opened:
        log.close()


def ids_of(log: KafkaExampleLog, first: int = 0, schema_id: str | None = "s") -> list[int]:
    return [row for part in log.read(first, schema_id) for row in part.frame["example_id"]]


def test_an_empty_log_has_no_rows(open_log):
    log = open_log()
    assert (log.rows(), list(log.read(0)), log.complete) == (0, [], None)
    assert log.append(batch(0, rows=0)) == 0


def test_reading_begins_at_any_row_and_goes_on_where_it_stopped(open_log):
    writer, reader = open_log(), open_log()
    assert [writer.append(batch(first)) for first in (0, 4, 8)] == [4, 4, 4]
    for first in range(13):
        parts = list(reader.read(first, "s"))
        assert ids_of(reader, first) == list(range(first, 12))
        assert not parts or parts[0].first_row == first
    assert (writer.rows(), reader.rows()) == (12, 12)
    writer.append(batch(12))
    polls = reader.topic.polls
    assert ids_of(reader, 12) == [12, 13, 14, 15]
    assert reader.topic.polls - polls < 5


def test_any_cut_of_the_rows_that_stand_changes_nothing(open_log):
    log = open_log()
    log.append(batch(0, 10))
    assert log.append(batch(0, 10)) == 0
    assert log.append(batch(3, 4)) == 0
    assert log.append(batch(7, 8)) == 5
    assert log.append(batch(0, 20)) == 5
    assert ids_of(open_log()) == list(range(20))


def test_other_rows_where_rows_stand_are_refused_and_so_is_a_gap(open_log):
    log = open_log()
    log.append(batch(0, 10))
    with pytest.raises(ContractError, match="rows 5 to 9 are others"):
        log.append(batch(5, 10, ids=1))
    with pytest.raises(ContractError, match="holds 10 rows, but row 11 comes next"):
        log.append(batch(11))
    assert log.append(batch(10)) == 4


def test_an_older_writer_is_fenced(open_log):
    older = open_log()
    older.append(batch(0))
    newer = open_log()
    newer.append(batch(4))
    for _ in range(2):
        with pytest.raises(FencedError, match="another writer has taken over"):
            older.append(batch(4, ids=1))
    newer.append(batch(8))
    assert ids_of(open_log()) == list(range(12))


def test_what_a_writer_left_open_is_never_read(open_log, url):
    log = open_log()
    log.append(batch(0))
    log.close()
    crashed = producer(
        log.topic.url.brokers, SETTINGS, transactional_id=f"rocket-examples-{log.topic.url.topic}", linger_ms=0
    )
    crashed.init_transactions()
    crashed.begin_transaction()
    left = batch(4, ids=100)
    crashed.send(log.topic.url.topic, encode_segment(left, "adsim"), headers=segment_headers(left), partition=0)
    crashed.flush()
    assert ids_of(open_log()) == [0, 1, 2, 3]
    after = open_log()
    assert after.append(batch(2, 4)) == 2  # the cut differs after the crash
    assert ids_of(open_log()) == [0, 1, 2, 3, 4, 5]
    crashed.close(timeout=0)


def test_rows_are_counted_behind_transactions_that_were_given_up(open_log):
    log = open_log()
    log.append(batch(0))
    writer = producer(log.topic.url.brokers, SETTINGS, transactional_id=f"t-{log.topic.url.topic}", linger_ms=0)
    writer.init_transactions()
    for _ in range(5):
        writer.begin_transaction()
        writer.send(log.topic.url.topic, b"x", partition=0)
        writer.flush()
        writer.abort_transaction()
    writer.close()
    reader = open_log()
    assert reader.rows() == 4
    assert ids_of(reader) == [0, 1, 2, 3]


def plain(log: KafkaExampleLog, batches: list[FeatureBatch]) -> None:
    """Many segments without transactions, quickly."""
    with_retries = producer(log.topic.url.brokers, SETTINGS)
    for each in batches:
        with_retries.send(log.topic.url.topic, encode_segment(each, "adsim"), headers=segment_headers(each))
    with_retries.close()


def test_a_place_among_thousands_of_tiny_segments_is_found_with_few_polls(open_log):
    segments, rows = 3_000, 2
    log = open_log()
    plain(log, [batch(first, rows) for first in range(0, segments * rows, rows)])
    reader = open_log()
    assert reader.rows() == segments * rows
    before = reader.topic.polls
    first = next(reader.read(4_321))
    assert (first.first_row, first.frame["example_id"][0]) == (4_321, 4_321)
    assert reader.topic.polls - before <= 3 * math.ceil(math.log2(segments))


def test_rows_that_stand_twice_are_read_once(open_log):
    log = open_log()
    plain(log, [batch(0, 10), batch(5, 3), batch(8, 4), batch(0, 12), batch(11, 4)])
    for first in range(15):
        assert ids_of(open_log() if first % 5 == 0 else log, first) == list(range(first, 15))


def test_rows_that_are_gone_are_named(open_log, kafka):
    log = open_log()
    plain(log, [batch(0), batch(4), batch(12)])
    with pytest.raises(CorruptError, match="no rows 8 to 11"):
        ids_of(log)
    kafka.delete_records(log.topic.url.topic, {0: 1})
    with pytest.raises(CorruptError, match="no rows 0 to 3"):
        ids_of(open_log())
    assert next(open_log().read(4)).first_row == 4


def test_another_schema_is_refused_by_reader_and_writer(open_log):
    open_log().append(batch(0))
    with pytest.raises(SchemaMismatchError, match="written for schema_id s, but the app has other"):
        ids_of(open_log(), schema_id="other")
    with pytest.raises(SchemaMismatchError, match="written for schema_id s"):
        open_log().append(batch(4, schema_id="other"))


@pytest.mark.parametrize(
    ("value", "headers"),
    [(b"x", []), (None, []), (b"x", [("rocket.first_row", b"\xff")]), (b"x", segment_headers(batch(0)))],
)
def test_a_message_that_is_no_segment_is_called_by_its_offset(open_log, value, headers):
    log = open_log()
    writer = producer(log.topic.url.brokers, SETTINGS)
    writer.send(log.topic.url.topic, value, key=b"k", headers=headers)
    writer.close()
    with pytest.raises(CorruptError, match="offset 0: "):
        ids_of(log)


def bytes_that_do_not_shrink(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def test_a_batch_beyond_the_message_size_becomes_several_segments(open_log):
    rows = pl.DataFrame({"example_id": pl.int_range(2_000, dtype=pl.UInt64, eager=True)})
    rows = rows.with_columns(noise=pl.Series([bytes_that_do_not_shrink(row, 40) for row in range(2_000)]))
    log = open_log(Kafka(request_timeout_s=10, max_message_bytes=32_768))
    assert log.append(FeatureBatch(rows, 0, "s")) == 2_000
    parts = list(open_log().read(0, "s"))
    assert len(parts) > 2
    assert pl.concat([part.frame for part in parts]).equals(rows)


def test_a_row_that_no_message_can_hold_is_refused_and_blocks_no_reader(open_log):
    log = open_log(Kafka(request_timeout_s=10, max_message_bytes=4096))
    log.append(batch(0))
    huge = pl.DataFrame({"example_id": pl.Series([4], dtype=pl.UInt64), "noise": [bytes_that_do_not_shrink(1, 4_000)]})
    with pytest.raises(ContractError, match="a message is too large"):
        log.append(FeatureBatch(huge, 4, "s"))
    assert open_log().append(batch(4)) == 4


def test_a_topic_of_two_partitions_or_none_is_refused(open_log, kafka):
    with pytest.raises(ContractError, match="has 2 partitions, but an example log has one"):
        open_log(where=kafka.url(kafka.create(partitions=2)))
    with pytest.raises(StoreError, match="no such topic"):
        open_log(where=kafka.url(kafka.name()))


def test_a_log_is_opened_by_its_name(open_log, url, adsim, tmp_path):
    folder = open_examples(tmp_path / "examples", adsim)
    assert isinstance(folder, ExampleFolder)
    topic = open_examples(url, adsim, SETTINGS)
    for log in (folder, topic):
        assert log.append(batch(0)) == 4
        assert [part.next_row for part in log.read(0)] == [log.rows()] == [4]
        assert log.complete is None
        log.close()


@pytest.mark.slow
def test_a_writer_and_a_reader_outlive_a_broker_that_is_killed(own_kafka):
    broker = own_kafka()
    settings = Kafka(request_timeout_s=30)
    where = broker.url(broker.create(retention_ms=-1))
    with KafkaExampleLog(where, "adsim", settings) as log, KafkaExampleLog(where, "adsim", settings) as reader:
        log.append(batch(0))
        assert ids_of(reader) == [0, 1, 2, 3]
        broker.kill()
        back = threading.Timer(1, broker.start)
        back.start()
        assert log.append(batch(2, 6)) == 4
        assert ids_of(reader, 4) == [4, 5, 6, 7]
        back.join()
