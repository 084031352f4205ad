"""Where examples lie, by its name: a folder, or a topic."""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from contracts.app import App
from contracts.sections import Kafka
from contracts.segments import FeatureBatch
from nodes.example_log import Complete, ExampleDirectory
from nodes.kafka_url import is_kafka_url


class OpenExampleLog(Protocol):
    """An example log that can be read and appended to, and is closed at the end."""

    @property
    def complete(self) -> Complete | None:
        """What the finished log holds; None while more may come."""
        ...

    def rows(self) -> int:
        """How many rows stand in it without a gap."""
        ...

    def read(self, first_row: int, schema_id: str | None = None) -> Iterator[FeatureBatch]:
        """Segments from the one that holds `first_row`, in order; the first is cut to begin there."""
        ...

    def append(self, batch: FeatureBatch) -> int:
        """Add what of a batch does not stand there yet; gives how many rows."""
        ...

    def close(self) -> None:
        """End its connections."""
        ...


class ExampleFolder:
    """An `ExampleDirectory` of one app.

    >>> import tempfile
    >>> import polars as pl
    >>> log = ExampleFolder(Path(tempfile.mkdtemp()), "adsim")
    >>> rows = pl.DataFrame({"example_id": pl.Series([7, 8], dtype=pl.UInt64)})
    >>> log.append(FeatureBatch(rows, 0, "s")), log.append(FeatureBatch(rows, 0, "s")), log.rows()
    (2, 0, 2)
    """

    def __init__(self, path: Path, app: str) -> None:
        self.directory, self._app = ExampleDirectory(path), app

    @property
    def complete(self) -> Complete | None:
        """What the finished log holds; None while ingest is at work."""
        return self.directory.complete

    def rows(self) -> int:
        """How many rows stand in it without a gap."""
        return self.directory.rows()

    def read(self, first_row: int, schema_id: str | None = None) -> Iterator[FeatureBatch]:
        """As `ExampleDirectory.read`."""
        return self.directory.read(first_row, schema_id)

    def append(self, batch: FeatureBatch) -> int:
        """As `ExampleDirectory.append`, for this app."""
        return self.directory.append(batch, self._app)

    def close(self) -> None:
        """Nothing is open between two calls."""


def open_examples(where: str | Path, app: App, kafka: Kafka | None = None) -> OpenExampleLog:
    """The example log at `where`; the caller closes it.

    Args:
        where: a folder, or kafka://host:port[,host:port]/topic.
        app: whose examples they are.
        kafka: how brokers are spoken to; by default as the app says.

    Raises:
        ContractError: the URL is none, or the topic has more than one partition.
        StoreError: no broker answers, or the topic is missing.
    """
    if is_kafka_url(where):
        from nodes.kafka_examples import KafkaExampleLog  # noqa: PLC0415  # folders need no Kafka client

        return KafkaExampleLog(str(where), app.name, app.config.kafka if kafka is None else kafka)
    return ExampleFolder(Path(where), app.name)
