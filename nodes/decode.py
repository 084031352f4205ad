"""Raw lines of JSON become a chunk, or dead letters: strict, each line judged by itself.

msgspec decodes each line into a struct made from the contract (about 1.5 us a row of 15 columns), and its columns are
built whole. Polars' and Arrow's own NDJSON readers are no faster here and lenient: they cast, skip unknown columns, or
lose the whole block to one malformed line.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Annotated, Any

import msgspec
import numpy as np
import polars as pl
import polars_hash as plh
import pyarrow as pa
from msgspec.structs import astuple

from contracts.buckets import SEED
from contracts.events import DEAD_LETTERS
from contracts.odcs import Column, DataContract
from nodes.refuse import refusal

_BLOCK = 1024  # lines at a time: their Python objects stay in the processor's cache (a third faster than 16,384)
_Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_TYPES: dict[str, Any] = {
    "string": str,
    "int64": _Int64,
    "double": float,
    "boolean": bool,
    "list<string>": list[str],
}


@dataclass(frozen=True, slots=True)
class Decoded:
    """What became of some lines: each is a row of one of the two frames."""

    frame: pl.DataFrame  #: contract columns, then `_origin`, `_line`, `_hash`; in line order
    dead: pl.DataFrame  #: DEAD_LETTERS columns; in line order


def decode(
    lines: Sequence[bytes],
    contract: DataContract,
    *,
    stream: str,
    origin: str,
    first_line: int,
    max_event_bytes: int,
    whole_bytes: Mapping[int, int] | None = None,
) -> Decoded:
    """Decode one JSON object a line into the contract's columns; what does not fit exactly is a dead letter.

    Nothing is cast: "1" is not 1, true is not 1, 1.0 is not an int64 (but 1 is a double). Refused with a code:
    too_large, empty, not_utf8, not_json (truncated, two values on a line, lone surrogate), not_finite (NaN, Infinity),
    out_of_range (an integer beyond 64 bits, 1e400), wrong_type, missing (absent or null), unknown_column. A key that
    stands twice is allowed: the last one counts. Ranges and patterns are `contracts.rowcheck`'s.

    Args:
        lines: raw bytes, without the newline.
        contract: what an event must look like.
        stream: "impressions" or "clicks", for the dead letters.
        origin: the file or topic:partition.
        first_line: number of the first of the lines in its origin.
        max_event_bytes: a longer line is refused unread, and kept cut to that length.
        whole_bytes: index in `lines` -> whole length, of lines that the reader has cut already.

    >>> from contracts.app import load_app
    >>> lines = [b'{"click_id":"c","impression_id":"i","event_time_ms":1700000000000}', b'{"click_id":7}']
    >>> clicks = load_app("adsim").clicks
    >>> got = decode(lines, clicks, stream="clicks", origin="f", first_line=0, max_event_bytes=1000)
    >>> got.frame["click_id"].to_list(), got.dead.select("line", "reason", "detail").rows()
    (['c'], [(1, 'wrong_type', 'click_id must be string, not int')])
    """
    parse = _decoder(contract).decode
    blocks: list[pl.DataFrame] = []
    dead: dict[int, tuple[str, str]] = {}
    for start in range(0, max(len(lines), 1), _BLOCK):  # an empty chunk has one empty block: the schema
        block = lines[start : start + _BLOCK]
        events, refused = _parse(block, parse, max_event_bytes)
        good = [index for index in range(len(block)) if index not in refused] if refused else range(len(block))
        numbers = pl.Series("_line", np.asarray(good, dtype=np.int64) + (first_line + start))
        raw = pl.Series("_hash", [block[index] for index in good] if refused else block, pl.Binary)
        blocks.append(pl.DataFrame([*_columns(contract, events), numbers, raw]))
        dead.update((start + index, why) for index, why in refused.items())
    frame = pl.concat(blocks, rechunk=True).select(
        *(column.name for column in contract.columns),
        pl.lit(origin, pl.String).alias("_origin"),
        "_line",
        plh.col("_hash").nchash.xxhash64(seed=SEED),
    )
    return Decoded(frame, _dead_letters(lines, dead, stream, origin, first_line, max_event_bytes, whole_bytes or {}))


@lru_cache(maxsize=64)
def _decoder(contract: DataContract) -> msgspec.json.Decoder[Any]:
    """The contract compiled to a struct whose fields have names of their own, as a column may be named anything."""
    names = {f"f{index}": column for index, column in enumerate(contract.columns)}
    fields: list[Any] = [
        (field, _TYPES[column.physical]) if column.required else (field, _TYPES[column.physical] | None, None)
        for field, column in names.items()
    ]
    struct = msgspec.defstruct(
        "Event",
        fields,
        rename={field: column.name for field, column in names.items()},
        forbid_unknown_fields=True,
        kw_only=True,
        gc=False,
    )
    return msgspec.json.Decoder(struct)


def _parse(
    lines: Sequence[bytes], parse: Callable[[bytes], Any], max_event_bytes: int
) -> tuple[list[Any], dict[int, tuple[str, str]]]:
    """The events of the good lines in order, and index -> (code, detail) of the lines refused."""
    events: list[Any] = []
    dead: dict[int, tuple[str, str]] = {}
    if max(map(len, lines), default=0) <= max_event_bytes:
        rest = iter(lines)
    else:
        rest = iter([line if len(line) <= max_event_bytes else b"" for line in lines])  # refused without being parsed
    while len(events) + len(dead) < len(lines):
        try:
            events.extend(map(parse, rest))  # keeps what came before a bad line; `rest` stands behind it
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            index = len(events) + len(dead)
            if len(lines[index]) > max_event_bytes:
                dead[index] = "too_large", f"an event may have at most {max_event_bytes} bytes"
            else:
                dead[index] = refusal(lines[index], error)
    return events, dead


def _columns(contract: DataContract, events: list[Any]) -> list[pl.Series]:
    columns = zip(*map(astuple, events), strict=True) if events else [()] * len(contract.columns)
    return [_column(column, values) for column, values in zip(contract.columns, columns, strict=True)]


def _column(column: Column, values: Sequence[Any]) -> pl.Series:
    if column.physical != "list<string>":
        return pl.Series(column.name, values, column.dtype)
    # Polars builds a list column row by row (20 times slower), and pa.array would import pandas.
    valid = [items is not None for items in values]
    filled = values if all(valid) else [items or () for items in values]
    offsets = np.zeros(len(values) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, filled), np.int64, len(values)), out=offsets[1:])
    flat = pl.Series(list(chain.from_iterable(filled)), dtype=pl.String).to_arrow(compat_level=pl.CompatLevel.newest())
    bits = np.packbits(np.array(valid, np.bool_), bitorder="little")
    array = pa.Array.from_buffers(
        pa.large_list(flat.type), len(values), [pa.py_buffer(bits), pa.py_buffer(offsets)], children=[flat]
    )
    return pl.Series(column.name, array, column.dtype)


def _dead_letters(
    lines: Sequence[bytes],
    dead: Mapping[int, tuple[str, str]],
    stream: str,
    origin: str,
    first_line: int,
    max_event_bytes: int,
    whole_bytes: Mapping[int, int],
) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "stream": [stream] * len(dead),
            "origin": [origin] * len(dead),
            "line": [first_line + index for index in dead],
            "reason": [code for code, _ in dead.values()],
            "detail": [detail for _, detail in dead.values()],
            "raw": [lines[index][:max_event_bytes] for index in dead],
            "raw_bytes": [whole_bytes.get(index, len(lines[index])) for index in dead],
        },
        schema=DEAD_LETTERS,
    )
