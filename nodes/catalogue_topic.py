"""Items from a compacted Kafka topic: a message is one item as JSON under its id as key, without a value it is gone."""

import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec
import polars as pl
from kafka import TopicPartition, errors

from contracts.app import App
from contracts.errors import StoreError
from contracts.rowcheck import reasons
from contracts.serving import UNREADABLE
from nodes.catalogue import Catalogue, CatalogueSource, item_contract, load_catalogue
from nodes.kafka_client import begin_offsets, consumer, end_offsets
from nodes.kafka_errors import speaking
from nodes.kafka_url import is_kafka_url, parse_kafka_url
from nodes.request_types import problem_of, struct_of

_READ_TO_END_S = 120.0  # the whole topic, at the start
_POLL_MS = 50  # a look waits that long for news
_MAX_RECORDS = 5_000  # of one poll


class CatalogueTopic:
    """Reads the topic to its end once, and then whatever came since, whenever it is asked.

    An item that cannot be read or breaks the contract is refused alone and counted; what was known of it stays.

    Args:
        app: its requests contract says which columns an item has; `kafka` says how brokers are spoken to.
        url: kafka://host:port/topic; compacted, so that it holds each item at least once.

    Raises:
        StoreError: no broker, no such topic, or its end is not reached within two minutes.
    """

    def __init__(self, app: App, url: str) -> None:
        where = parse_kafka_url(url)
        self._app, self._url, self._contract = app, url, item_contract(app)
        self._item_id = app.requests.role("item_id")
        part = struct_of("item", self._contract.columns)
        self._decode: Any = msgspec.json.Decoder(part.struct).decode
        self._values = part.get
        self._reason = reasons(self._contract).alias("reason")
        self.refused: Counter[str] = Counter()  #: code -> items
        self.last_refusal: str | None = None
        self._lock = threading.Lock()
        kafka = app.config.kafka
        begin = begin_offsets(where.brokers, where.topic, kafka)
        self._end = end_offsets(where.brokers, where.topic, kafka)
        self._reader = consumer(where.brokers, kafka, auto_offset_reset="earliest")
        try:
            parts = {number: TopicPartition(where.topic, number) for number in begin}
            self._reader.assign(list(parts.values()))
            for number, offset in begin.items():
                self._reader.seek(parts[number], offset)
            self._catalogue = Catalogue(app, pl.DataFrame(schema=self._contract.schema_), url)
            self._read_to_end(list(parts.values()))
        except BaseException:
            self._reader.close()
            raise

    def latest(self) -> Catalogue:
        """The items as the topic tells them now; those known before while no broker answers."""
        with self._lock:
            try:
                while found := self._poll(_POLL_MS):
                    self._apply(found)
            except StoreError as error:
                self.last_refusal = str(error)
            return self._catalogue

    def close(self) -> None:
        """Leave the brokers."""
        with self._lock:
            self._reader.close()

    def __enter__(self) -> "CatalogueTopic":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read_to_end(self, parts: Sequence[TopicPartition]) -> None:
        deadline_s = time.monotonic() + _READ_TO_END_S
        with speaking(self._url):
            while any(self._reader.position(part) < self._end[part.partition] for part in parts):
                self._apply(self._poll(_POLL_MS))
                if time.monotonic() > deadline_s:
                    raise StoreError(
                        f"{self._url}: its end was not reached within {_READ_TO_END_S:g} s; compact the topic, or look "
                        "why its brokers are slow"
                    )

    def _poll(self, wait_ms: int) -> list[Any]:
        """Messages in the order of their partitions."""
        with speaking(self._url):
            try:
                found = self._reader.poll(timeout_ms=wait_ms, max_records=_MAX_RECORDS)
            except errors.KafkaError as error:
                if not error.retriable:
                    raise
                return []
        return [message for messages in found.values() for message in messages]

    def _apply(self, messages: Sequence[Any]) -> None:
        """Put messages into the catalogue; of an item that comes twice the last good one counts."""
        last: dict[str, int | None] = {}  # item -> its row below, None: it is gone
        rows: list[tuple[Any, ...]] = []
        told: list[tuple[str, int | None]] = []
        for message in messages:
            key = (message.key or b"").decode(errors="replace")
            values = self._read(key, message.value) if message.value else None
            if values is not None:
                told.append((key, len(rows)))
                rows.append(values)
            elif not message.value:
                told.append((key, None))
        items = pl.DataFrame(rows, schema=self._contract.schema_, orient="row")
        wrong = items.select(self._reason)["reason"].to_list()
        for key, row in told:
            if row is None or wrong[row] is None:
                last[key] = row
            else:
                self._refuse(key, *wrong[row].split(": ", 1))
        if last:
            good = items[[row for row in last.values() if row is not None]]
            self._catalogue = self._catalogue.changed(good, [key for key, row in last.items() if row is None])

    def _read(self, key: str, value: bytes) -> tuple[Any, ...] | None:
        """The columns of one item; None where it is refused."""
        try:
            values = self._values(self._decode(value))
        except UNREADABLE as error:
            problem = problem_of(error)
            self._refuse(key, problem.code, problem.detail)
            return None
        said = values[[column.name for column in self._contract.columns].index(self._item_id)]
        if said != key:
            self._refuse(key, "wrong_key", f"the item says it is '{said[:80]}'")
            return None
        return values

    def _refuse(self, key: str, code: str, detail: str) -> None:
        self.refused[code] += 1
        self.last_refusal = f"{self._url}: item '{key[:80]}': {code}: {detail}"


@contextmanager
def open_catalogue(app: App, where: str | None) -> Iterator[CatalogueSource | None]:
    """The items in a file, or in a topic that is followed; None where nothing is given.

    Args:
        app: whose items they are.
        where: a .parquet or .ndjson file, or kafka://host:port/topic.

    Raises:
        ContractError: the file is not there, or holds what no candidate could. StoreError: as `CatalogueTopic`.
    """
    if where is not None and is_kafka_url(where):
        with CatalogueTopic(app, where) as source:
            yield source
    else:
        yield None if where is None else load_catalogue(app, Path(where))
