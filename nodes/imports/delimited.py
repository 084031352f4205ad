"""Files of separated fields, plain or gzip, as frames of text; what is no record is a dead letter.

A block is a few megabytes that end where a record ends. pyarrow parses it; what has too few or too many fields is set
aside with its number. A field of bytes that are no UTF-8 costs its own record and no other one.
"""

import csv
import gzip
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.csv as pc

from contracts.errors import ContractError
from contracts.events import DEAD_LETTERS

BLOCK_BYTES = 4 << 20
_MOST_RECORD = 4 << 20  # bytes; a longer one is refused
_MOST_RAW = 65_536  # characters of a record that a dead letter keeps
_SURROGATES = re.compile("[\udc80-\udcff]+")
_NOT_UTF8 = "\ufdd0"  # stands where such bytes were: a code point that no text holds


class Layout(NamedTuple):
    """How the fields of a file lie."""

    separator: str = ","
    quote: str = '"'  #: around fields that hold separators or newlines; "": none
    names: tuple[str, ...] = ()  #: of the columns; (): the first record has them


class Rows(NamedTuple):
    """Some records that follow each other."""

    frame: pl.DataFrame  #: as text, and `_line`: number of the record in the file, from 0 (a header counts)
    dead: pl.DataFrame  #: DEAD_LETTERS columns


def read_delimited(
    path: Path,
    layout: Layout,
    *,
    stream: str,
    wanted: Sequence[str] | None = None,
    block_bytes: int | None = None,
) -> Iterator[Rows]:
    """The records of a file, in blocks.

    Args:
        path: plain or gzip, told by its first bytes.
        layout: separator, quotes, and names where the file has none.
        stream: for dead letters: what the records are.
        wanted: the columns to give; None: all of them.
        block_bytes: read at a time; None: a few megabytes.

    Raises:
        ContractError: the file is missing, empty, damaged, an archive, or lacks a wanted column.
    """
    names = layout.names or columns_of(path, layout)
    for name in wanted or ():
        if name not in names:
            raise ContractError(f"{path}: has no column '{name}'; its columns: {', '.join(names)}")
    first, read = 0, 0
    for block in _blocks(path, layout.quote.encode(), block_bytes or BLOCK_BYTES):
        rows = _parsed(block, path, layout, names, list(wanted or names), stream, first)
        first += rows.frame.height + rows.dead.height
        if read == 0 and not layout.names:
            rows = rows._replace(frame=rows.frame.slice(1))
        read += 1
        yield rows
    if not read:
        raise ContractError(f"{path}: is empty; download it again, or name the right file")


def columns_of(path: Path, layout: Layout) -> tuple[str, ...]:
    """The names in the first record of a file.

    Raises:
        ContractError: the file cannot be read, is empty, or names a column twice.
    """
    for block in _blocks(path, layout.quote.encode(), 1 << 16):
        text = block.decode("utf-8", "replace").removeprefix("\ufeff")
        lines = text.splitlines(keepends=True)
        if layout.quote:
            record = next(csv.reader(lines, delimiter=layout.separator, quotechar=layout.quote))
        else:
            record = lines[0].rstrip("\r\n").split(layout.separator)
        names = tuple(name.strip() for name in record)
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ContractError(f"{path}: has two columns '{twice[0]}'; rename one, or name the columns yourself")
        return names
    raise ContractError(f"{path}: is empty; download it again, or name the right file")


def dead_letters(rows: pl.DataFrame, stream: str, origin: Path) -> pl.DataFrame:
    """Records as dead letters.

    Args:
        rows: `line`, `reason`, `detail` and `raw` (text).
        stream: what the records are.
        origin: their file.
    """
    raw = pl.col("raw").fill_null("")
    return rows.select(
        stream=pl.lit(stream),
        origin=pl.lit(str(origin)),
        line="line",
        reason="reason",
        detail="detail",
        raw=raw.str.slice(0, _MOST_RAW).cast(pl.Binary),
        raw_bytes=raw.str.len_bytes(),
    ).select(pl.col(name).cast(dtype) for name, dtype in DEAD_LETTERS.items())


def _blocks(path: Path, quote: bytes, size: int) -> Iterator[bytes]:
    """Pieces of the file that end where a record ends."""
    left = b""
    try:
        with _opened(path) as file:
            while data := file.read(size):
                data = left + data
                end = _records_end(data, quote)
                if not end and len(data) > _MOST_RECORD:
                    why = "a quote is opened and never closed" if quote and quote in data else "a line never ends"
                    raise ContractError(
                        f"{path}: {why} within {len(data):,} bytes; is it text in the layout that it should have?"
                    )
                if end:
                    yield data[:end]
                left = data[end:]
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ContractError(f"{path}: the gzip file is cut off or damaged ({error}); download it again") from error
    except OSError as error:
        raise ContractError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    if left:
        yield left


def _opened(path: Path) -> BinaryIO:
    with path.open("rb") as file:
        magic = file.read(4)
    if magic == b"PK\x03\x04":
        raise ContractError(f"{path}: is a zip archive; unpack it first, and give the file in it")
    return cast(BinaryIO, gzip.open(path, "rb")) if magic[:2] == b"\x1f\x8b" else path.open("rb")


def _records_end(data: bytes, quote: bytes) -> int:
    r"""Where the last whole record ends: after the last newline that lies outside quotes.

    >>> _records_end(b'a,b\n1,"x\ny', b'"'), _records_end(b"a,b\n1,x", b"")
    (4, 4)
    """
    end = data.rfind(b"\n")
    if not quote:
        return end + 1
    quotes = data.count(quote, 0, max(end, 0))
    while end >= 0 and quotes % 2:
        before = data.rfind(b"\n", 0, end)
        quotes -= data.count(quote, max(before, 0), end)
        end = before
    return end + 1


def _parsed(
    block: bytes, path: Path, layout: Layout, names: Sequence[str], wanted: list[str], stream: str, first: int
) -> Rows:
    block, damaged = _as_utf8(block)
    ragged: list[tuple[int, str, str]] = []

    def set_aside(row: pc.InvalidRow) -> str:
        ragged.append((row.number - 1, f"{row.actual_columns} fields, not {row.expected_columns}", row.text))
        return "skip"

    try:
        table = pc.read_csv(
            pa.BufferReader(block),
            # rows have numbers where one thread reads them
            read_options=pc.ReadOptions(use_threads=False, column_names=list(names), block_size=len(block) + 1),
            parse_options=pc.ParseOptions(
                delimiter=layout.separator,
                quote_char=layout.quote or False,
                newlines_in_values=bool(layout.quote),
                ignore_empty_lines=False,
                invalid_row_handler=set_aside,
            ),
            convert_options=pc.ConvertOptions(
                check_utf8=False,
                column_types=dict.fromkeys(names, pa.string()),
                include_columns=wanted,
                strings_can_be_null=False,
            ),
        )
    except pa.ArrowInvalid as error:
        raise ContractError(f"{path}: cannot be read as separated fields ({error}); check its separator") from error
    frame = cast(pl.DataFrame, pl.from_arrow(table))
    aside = np.array([number for number, _, _ in ragged], np.int64)
    lines = first + np.delete(np.arange(frame.height + len(ragged)), aside)
    frame = frame.with_columns(_line=pl.Series(lines, dtype=pl.Int64))
    dead = pl.DataFrame(
        {
            "line": first + aside,
            "reason": ["ragged"] * len(ragged),
            "detail": [detail for _, detail, _ in ragged],
            "raw": [text.replace(_NOT_UTF8, "\ufffd") for _, _, text in ragged],
        },
        schema={"line": pl.Int64, "reason": pl.String, "detail": pl.String, "raw": pl.String},
    )
    if damaged:
        bad = pl.any_horizontal(pl.col(wanted).str.contains(_NOT_UTF8, literal=True))
        text = pl.concat_str(wanted, separator=layout.separator).str.replace_all(_NOT_UTF8, "\ufffd", literal=True)
        told = {"reason": pl.lit("not_utf8"), "detail": pl.lit("bytes that are not UTF-8; save the file as UTF-8")}
        dead = pl.concat([dead, frame.filter(bad).select(line="_line", **told, raw=text)]).sort("line")
        frame = frame.filter(~bad)
    return Rows(frame, dead_letters(dead, stream, path))


def _as_utf8(block: bytes) -> tuple[bytes, bool]:
    """The block with each run of bytes that is no UTF-8 as one mark, and whether there was one."""
    try:
        block.decode()
    except UnicodeDecodeError:
        return _SURROGATES.sub(_NOT_UTF8, block.decode("utf-8", "surrogateescape")).encode(), True
    return block, False
