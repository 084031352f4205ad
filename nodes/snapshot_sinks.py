"""Where snapshots go: Parquet files in a folder, or Arrow IPC messages on a Kafka topic."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import polars as pl

from contracts.sections import Kafka
from nodes.files import write_whole_frame
from nodes.kafka_client import close_producer, partitions_of, producer
from nodes.kafka_errors import speaking
from nodes.kafka_url import parse_kafka_url
from nodes.snapshots import Sink

_MESSAGE_ROWS = 4096  # some 300 kB
_CLOSE_S = 5.0


@contextmanager
def open_snapshots(where: str, kafka: Kafka) -> Iterator[Sink]:
    """The sink of a name, until the end of the `with` block.

    Args:
        where: kafka://host:port/topic: messages of at most 4096 rows, each a whole Arrow IPC stream. Or a folder: a
            Parquet file a part, `snapshots-<writer>-<number>.parquet`; whole or absent, the writer new each time.
        kafka: how brokers are spoken to.

    Raises:
        ContractError: the URL is none.
        StoreError: no broker answers, or the topic is missing.
    """
    if "://" not in where:
        yield _folder(Path(where))
        return
    url = parse_kafka_url(where)
    partitions_of(url.brokers, url.topic, kafka)
    writer = producer(url.brokers, kafka)

    def send(part: pl.DataFrame) -> None:
        with speaking(str(url)):
            sent = [writer.send(url.topic, ipc_bytes(rows)) for rows in part.iter_slices(_MESSAGE_ROWS)]
            for each in sent:
                each.get(kafka.request_timeout_s)

    try:
        yield send
    finally:
        close_producer(writer, _CLOSE_S)


def ipc_bytes(frame: pl.DataFrame) -> bytes:
    """A frame as an Arrow IPC stream, as `polars.read_ipc_stream` or pyarrow read it."""
    out = io.BytesIO()
    frame.write_ipc_stream(out, compression="lz4")
    return out.getvalue()


def _folder(folder: Path) -> Sink:
    name, number = uuid4().hex[:12], iter(range(10**12))

    def write(part: pl.DataFrame) -> None:
        write_whole_frame(folder / f"snapshots-{name}-{next(number):06d}.parquet", part)

    return write
