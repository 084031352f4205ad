"""What travels between nodes: chunks, and what became of each event.

A chunk is a `polars.DataFrame` of one stream: the contract's columns, then the bookkeeping columns below. Between Beam
nodes it travels as Arrow IPC (`nodes.coders`).
"""

from enum import StrEnum
from typing import NamedTuple

import polars as pl

#: Where an event came from; carried by every chunk between decode and join.
ORIGIN = {
    "_origin": pl.String(),  # file or topic:partition
    "_line": pl.Int64(),  # record number in it, from 0
    "_hash": pl.UInt64(),  # xxHash64 of the raw bytes: breaks ties between rivals
    "_late": pl.Boolean(),  # further behind its own origin than `disorder_s`
}


class Fate(StrEnum):
    """What became of an event (law 1): each event read has exactly one."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    LATE = "late"
    ORPHAN = "orphan"
    DEAD_LETTERED = "dead_lettered"


#: One row an event read: the ledger.
FATES = {
    "stream": pl.String(),  # impressions | clicks
    "origin": pl.String(),
    "line": pl.Int64(),
    "id": pl.String(),  # impression_id or click_id; null where it could not be read
    "event_time_ms": pl.Int64(),
    "fate": pl.String(),  # a Fate
    "reason": pl.String(),  # why, for all but the accepted
    "outcome": pl.String(),  # accepted impressions: example | sampled_out | waiting; else null
}

#: One row an event that could not be used.
DEAD_LETTERS = {
    "stream": pl.String(),
    "origin": pl.String(),
    "line": pl.Int64(),
    "reason": pl.String(),  # a code: not_utf8, not_json, wrong_type, missing, unknown_column, too_large, bad_time, ...
    "detail": pl.String(),  # one sentence: which column, what was expected
    "raw": pl.Binary(),  # the bytes as they came (at most the app's max_event_bytes)
    "raw_bytes": pl.Int64(),  # their whole length
}


class Mark(NamedTuple):
    """A place in a partition, and what lateness is judged by from there on."""

    origin: str  #: topic:partition
    offset: int  #: of the next record
    newest_ms: int  #: the largest plausible event time before it in its partition
