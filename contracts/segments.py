"""The example log's unit: a FeatureBatch, written as one Arrow IPC file or message.

Columns: `example_id` (u64), `impression_id`, `user_id`, `item_id`, `event_time_ms` (i64: the row's place in the log;
the impression's own time in `labels.mode = "wait"`, else when its label was known), `role` (u8: `Role`), `elapsed_s`
(f32: seconds from impression to click of a positive, seconds observed of a negative), `label` (u8), `weight` (f32),
`kept_rate` (f32: the rate at which its class was sampled), then one column a feature: `id` u32, `dense` f32, `ids`
list of u32; u64 and list of u64 where ids own their rows (`dynamic`). Metadata: `rocket.schema_id`, `rocket.first_row`
(row number in the log of the first row), `rocket.app`.
"""

import io
from dataclasses import dataclass
from enum import IntEnum

import polars as pl

from contracts.errors import CorruptError, SchemaMismatchError
from contracts.features import Feature, Output

_DTYPES: dict[Output, pl.DataType] = {"id": pl.UInt32(), "dense": pl.Float32(), "ids": pl.List(pl.UInt32())}
_WIDE: dict[Output, pl.DataType] = {"id": pl.UInt64(), "ids": pl.List(pl.UInt64())}
#: Rows stand in the log in the order of these columns.
ORDER = ("event_time_ms", "impression_id", "role")


class Role(IntEnum):
    """What a row of the log says of its impression; hashed with the impression's id it makes the `example_id`."""

    SETTLED = 0  #: nothing more can come: its label is final
    PROVISIONAL = 1  #: no click yet: a negative that a correction may still follow
    CORRECTION = 2  #: the click came after all: the same impression again, as a positive


#: What every example carries beside its features.
EXAMPLE = {
    "example_id": pl.UInt64(),
    "impression_id": pl.String(),
    "user_id": pl.String(),
    "item_id": pl.String(),
    "event_time_ms": pl.Int64(),
    "role": pl.UInt8(),
    "elapsed_s": pl.Float32(),
    "label": pl.UInt8(),
    "weight": pl.Float32(),
    "kept_rate": pl.Float32(),
}


def column_type(output: Output, *, dynamic: bool) -> pl.DataType:
    """Polars type of a feature's column.

    Args:
        output: what the feature gives.
        dynamic: whether its ids own their rows.

    >>> column_type("id", dynamic=False), column_type("ids", dynamic=True)
    (UInt32, List(UInt64))
    """
    return (_WIDE if dynamic else _DTYPES)[output]


def example_schema(features: tuple[Feature, ...]) -> dict[str, pl.DataType]:
    """Column name -> Polars type of an example row."""
    own = {feature.name for feature in features if feature.dynamic is not None}
    return EXAMPLE | {f.name: column_type(f.output, dynamic=f.name in own or f.of in own) for f in features}


@dataclass(frozen=True, slots=True)
class FeatureBatch:
    """Settled, ordered, featurised examples, at most 4096 a segment."""

    frame: pl.DataFrame  #: `example_schema` columns
    first_row: int  #: row number in the example log of the first row
    schema_id: str

    @property
    def next_row(self) -> int:
        """The row number after the last row."""
        return self.first_row + self.frame.height


def encode_segment(batch: FeatureBatch, app: str) -> bytes:
    """Arrow IPC file bytes; the same batch gives the same bytes."""
    from pyarrow import ipc  # noqa: PLC0415  # 40 MB that a scorer, which writes no examples, does without

    table = batch.frame.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
    table = table.replace_schema_metadata(
        {
            "rocket.schema_id": batch.schema_id,
            "rocket.first_row": str(batch.first_row),
            "rocket.app": app,
        }
    )
    sink = io.BytesIO()
    with ipc.new_file(sink, table.schema, options=ipc.IpcWriteOptions(compression="lz4")) as writer:
        writer.write_table(table)
    return sink.getvalue()


def decode_segment(data: bytes | memoryview, schema_id: str | None = None, where: str = "segment") -> FeatureBatch:
    """Read a segment back.

    Args:
        data: the bytes of `encode_segment`.
        schema_id: refuse another one; None takes any.
        where: names the segment in an error.

    Raises:
        CorruptError: not a whole segment.
        SchemaMismatchError: written for another feature table.
    """
    import pyarrow as pa  # noqa: PLC0415  # as above
    from pyarrow import ipc  # noqa: PLC0415

    try:
        table = ipc.open_file(pa.py_buffer(data)).read_all()
        meta = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}
        found, first_row = meta["rocket.schema_id"], int(meta["rocket.first_row"])
        frame = pl.DataFrame(table)
    except (pa.ArrowInvalid, pa.ArrowException, KeyError, ValueError, OSError) as error:
        raise CorruptError(f"{where}: not a whole example segment ({error})") from error
    if schema_id is not None and found != schema_id:
        raise SchemaMismatchError(
            f"{where}: written for schema_id {found}, but the app has {schema_id}; "
            "ingest the events again, or use the app that wrote it"
        )
    return FeatureBatch(frame, first_row, found)
