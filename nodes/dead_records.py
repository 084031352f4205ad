"""Dead letters as records of a topic: the bytes as they came, and in headers where from and why.

kafka_dlt-original-topic, -partition, -offset    as Spring's dead letter recoverer writes them (numbers big-endian)
kafka_dlt-exception-message                      one sentence: which column, what was expected
ctr_reason, ctr_stage, ctr_schema_id             the code of it, the step that refused it, and by which contracts
ctr_raw_bytes                                    the length as it came, where the value is cut
"""

import struct
from collections.abc import Iterator

import polars as pl

from contracts.stores import Record

_INT, _LONG = struct.Struct(">i"), struct.Struct(">q")


def dead_records(dead: pl.DataFrame, schema_id: str) -> Iterator[Record]:
    """One record a dead letter; its key is its origin, so those of a partition stay in order.

    Args:
        dead: DEAD_LETTERS rows, whose origins are topic:partition.
        schema_id: of the app that refused them.

    >>> row = {
    ...     "stream": "clicks",
    ...     "origin": "ctr.clicks.v1:3",
    ...     "line": 7,
    ...     "reason": "not_json",
    ...     "detail": "cut",
    ...     "raw": b"{",
    ...     "raw_bytes": 1,
    ... }
    >>> (made,) = dead_records(pl.DataFrame([row]), "s1")
    >>> made.key, made.value, dict(made.headers)["kafka_dlt-original-offset"][-1], dict(made.headers)["ctr_reason"]
    (b'ctr.clicks.v1:3', b'{', 7, b'not_json')
    """
    for row in dead.iter_rows(named=True):
        topic, _, partition = row["origin"].rpartition(":")
        headers = [
            ("kafka_dlt-original-topic", topic.encode()),
            ("kafka_dlt-original-partition", _INT.pack(int(partition))),
            ("kafka_dlt-original-offset", _LONG.pack(row["line"])),
            ("kafka_dlt-exception-message", (row["detail"] or "").encode()),
            ("ctr_reason", row["reason"].encode()),
            ("ctr_stage", b"read"),
            ("ctr_schema_id", schema_id.encode()),
        ]
        if row["raw_bytes"] > len(row["raw"]):
            headers.append(("ctr_raw_bytes", str(row["raw_bytes"]).encode()))
        yield Record(row["origin"].encode(), row["raw"], tuple(headers))
