"""Rows of a file together with what is wrong with them, for `rocket check`.

Ingest and the scorer keep good rows only. To check a file, the rows that break a rule of the contract are wanted too,
so that another checker can judge them; the reading itself is theirs.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from contracts.app import App
from contracts.buckets import hash_expr
from contracts.columns import DataContract
from contracts.rowcheck import reasons
from nodes.asked import Asked
from nodes.decode import decode
from nodes.lines import read_lines
from nodes.read_requests import RequestReader
from nodes.source import Read, read_events

#: One row for each thing that is wrong.
REFUSED = {
    "by": pl.String(),  # decode: the line cannot be read; polars: it can, but breaks a rule
    "line": pl.Int64(),  # from 0
    "reason": pl.String(),
    "column": pl.String(),  # "" where it is not one column
    "detail": pl.String(),
}
_CHUNK = 16_384


@dataclass(frozen=True, slots=True)
class Rows:
    """Some lines of a file."""

    lines: int
    late: int  #: rows that ingest would call late
    frames: dict[str, tuple[DataContract, pl.DataFrame]]  #: every row that decodes, good or bad, with its `_line`
    refused: pl.DataFrame  #: REFUSED columns
    ids: pl.DataFrame | None  #: `id` (hash of the unique column) and `line`; None where no column is unique


def event_rows(path: Path, app: App, stream: str) -> Iterator[Rows]:
    """The rows of a file of events, read as ingest reads it.

    Args:
        path: JSON lines.
        app: its contract of the stream, and its `ingest` section.
        stream: "impressions" or "clicks".

    Raises:
        ContractError: there is no such file.
    """
    contract = app.impressions if stream == "impressions" else app.clicks
    for read in read_events(path, contract, app, stream):
        yield _of_events(read, contract, stream)


def _of_events(read: Read, contract: DataContract, stream: str) -> Rows:
    # What was cut for its size must not be read as if it were whole.
    raws = read.dead.select(pl.when(pl.col("reason") != "too_large").then("raw").otherwise(b""))["raw"].to_list()
    again = decode(raws, contract, stream=stream, origin="", first_line=0, max_event_bytes=1 << 62)
    decodes = again.frame["_line"].to_list()
    lines = read.dead["line"].gather(again.frame["_line"])
    names = [column.name for column in contract.columns]
    frame = pl.concat([read.frame.select(*names, "_line"), again.frame.select(names).with_columns(_line=lines)])
    detail = pl.col("detail")
    refused = read.dead.with_row_index("_at").select(
        pl.when(pl.col("_at").is_in(decodes)).then(pl.lit("polars")).otherwise(pl.lit("decode")).alias("by"),
        "line",
        "reason",
        _column_of(detail, names),
        "detail",
    )
    unique = [column.name for column in contract.columns if column.unique]
    ids = None
    if unique:
        ids = frame.select(hash_expr(pl.col(unique[0]).cast(pl.String)).alias("id"), pl.col("_line").alias("line"))
    return Rows(
        lines=read.frame.height + read.dead.height,
        late=int(read.frame["_late"].sum()),
        frames={stream: (contract, frame)},
        refused=refused,
        ids=ids,
    )


def _column_of(detail: pl.Expr, names: list[str]) -> pl.Expr:
    """The column that a detail begins with ("bid must be at most 100"), or ""."""
    first = detail.str.extract(r"^(\S+)", 1).fill_null("")
    plain = first.str.replace(r"\[.*$", "")  # of an item of a list
    return pl.when(plain.is_in(names)).then(plain).otherwise(pl.lit("")).alias("column")


def request_rows(path: Path, app: App) -> Iterator[Rows]:
    """The rows of a file of ad requests, read as the scorer reads them: one frame of requests, one of candidates.

    Args:
        path: JSON lines.
        app: its requests contract, and its `serving` section.

    Raises:
        ContractError: the file cannot be read.
    """
    reader = RequestReader(app)
    for block in read_lines(path, max_lines=_CHUNK, max_line_bytes=app.config.serving.max_request_bytes):
        yield _of_requests(reader.read(block.lines), reader, app, block.first_line, len(block.lines))


def _of_requests(asked: Asked, reader: RequestReader, app: App, first_line: int, lines: int) -> Rows:
    refused: list[tuple[str, int, str, str]] = []
    message_of = pl.Series(asked.message_of, dtype=pl.Int64)
    frames: dict[str, tuple[DataContract, pl.DataFrame]] = {}
    if asked.requests.height:
        whole = _part(app.requests, reader.request_columns, "requests")
        frames["requests"] = (whole, asked.requests.with_columns(_line=message_of + first_line))
        each = _part(app.requests, reader.candidate_columns, "candidates")
        of_line = message_of.gather(asked.request_of.tolist()) + first_line
        said = asked.candidates.with_columns(_reason=reasons(each))["_reason"].to_list()
        # A candidate that could not be read stands as a row of nulls: it says nothing of the columns.
        readable = [asked.refused.get(row) in {None, why} for row, why in enumerate(said)]
        frames["candidates"] = (each, asked.candidates.with_columns(_line=of_line).filter(pl.Series(readable)))
        for row, why in asked.refused.items():
            code, _, detail = why.partition(": ")
            refused.append(("polars" if readable[row] else "decode", of_line[row], code, detail))
    parsed = set(asked.message_of)
    for place, problem in enumerate(asked.problems):
        if problem is not None:
            by = "polars" if place in parsed else "decode"
            refused.append((by, first_line + place, problem.code, problem.detail))
    schema: dict[str, Any] = {name: REFUSED[name] for name in ("by", "line", "reason", "detail")}
    names = [column.name for column in app.requests.columns]
    frame = pl.DataFrame(refused, schema=schema, orient="row").sort("line", maintain_order=True)
    return Rows(lines, 0, frames, frame.with_columns(_column_of(pl.col("detail"), names)).select(*REFUSED), None)


def _part(contract: DataContract, columns: tuple[Any, ...], name: str) -> DataContract:
    return contract.model_copy(update={"columns": columns, "id": f"{contract.id}.{name}"})
