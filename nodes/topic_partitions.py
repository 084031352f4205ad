"""Partitions of topics: what is asked of a client, what a look at them gives, and when offsets are gone."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import polars as pl
from kafka import TopicPartition

from contracts.errors import ContractError
from contracts.events import Mark

_log = logging.getLogger(__name__)


class Consumer(Protocol):
    """What is used of `kafka.KafkaConsumer`."""

    def assign(self, partitions: Iterable[TopicPartition]) -> None: ...
    def seek(self, partition: TopicPartition, offset: int) -> None: ...
    def poll(self, timeout_ms: int, max_records: int) -> Mapping[TopicPartition, Sequence[Any]]: ...
    def position(self, partition: TopicPartition, timeout_ms: int) -> int | None: ...
    def highwater(self, partition: TopicPartition) -> int | None: ...
    def beginning_offsets(self, partitions: Sequence[TopicPartition], timeout_ms: int) -> dict[TopicPartition, int]: ...
    def end_offsets(self, partitions: Sequence[TopicPartition], timeout_ms: int) -> dict[TopicPartition, int]: ...
    def partitions_for_topic(self, topic: str) -> set[int] | None: ...
    def pause(self, *partitions: TopicPartition) -> None: ...
    def resume(self, *partitions: TopicPartition) -> None: ...
    def close(self) -> None: ...


class Partition(NamedTuple):
    """One partition to read."""

    stream: str  #: impressions | clicks
    topic: str
    number: int
    end: int | None = None  #: read up to that offset; None: for ever
    known: int = 0  #: how many its topic had when reading began; 0: not to be compared

    @property
    def origin(self) -> str:
        """Its name in events, marks and messages.

        >>> Partition("clicks", "ctr.clicks.v1", 3).origin
        'ctr.clicks.v1:3'
        """
        return f"{self.topic}:{self.number}"


@dataclass(frozen=True, slots=True)
class TopicChunk:
    """What one look at a stream's partitions gave."""

    stream: str  #: impressions | clicks
    frame: pl.DataFrame  #: contract columns, then the ORIGIN columns; by partition, in offset order
    dead: pl.DataFrame  #: DEAD_LETTERS columns
    marks: tuple[Mark, ...]  #: where each of the partitions read stands now
    at_ms: int | None  #: smallest event time of the rows that are not late; None where there is none
    gone: int = 0  #: offsets skipped because the topic has them no longer


def refuse_grown(partition: Partition, found: set[int] | None) -> None:
    """Stop where a topic that is followed has more partitions than when reading began: nobody reads the new ones.

    Raises:
        ContractError: names the topic and both numbers.

    >>> refuse_grown(Partition("clicks", "c", 0, known=4), {0, 1, 2, 3, 4})
    Traceback (most recent call last):
    contracts.errors.ContractError: c: has 5 partitions, but 4 when reading began; ...
    """
    if partition.end is None and partition.known and found and len(found) > partition.known:
        raise ContractError(
            f"{partition.topic}: has {len(found)} partitions, but {partition.known} when reading began; events that "
            "changed partition would be judged anew: give another folder and ingest the topics again"
        )


def refuse_gone(origin: str, wanted: int, begin: int, end: int, gone: str) -> None:
    """Stop where an offset to read from is not in its topic, unless the setting is to go on from the earliest.

    Args:
        origin: topic:partition.
        wanted: offset to read from.
        begin: the earliest that the topic has.
        end: after its latest.
        gone: the `live.gone` setting.

    Raises:
        ContractError: names the partition, what was wanted and what there is.

    >>> refuse_gone("t:0", 3, 10, 20, "stop")
    Traceback (most recent call last):
    contracts.errors.ContractError: t:0: offset 3 is gone, the topic holds 10 to 20; ...
    """
    if wanted > end:
        raise ContractError(
            f"{origin}: was read up to offset {wanted}, but the topic ends at {end}: it was deleted and made anew; "
            "give another folder for its events"
        )
    if gone == "stop":
        raise ContractError(
            f"{origin}: offset {wanted} is gone, the topic holds {begin} to {end}; keep events longer (retention.ms), "
            f"or go on without the {begin - wanted} lost ones with --set live.gone=earliest"
        )
    _log.warning("%s: offsets %d to %d are gone; going on from the earliest", origin, wanted, begin - 1)
