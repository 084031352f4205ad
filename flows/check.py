"""Files against their contracts: what ingest or the scorer would refuse, and what Great Expectations says of it.

    lines ──► decode ──► Polars check (every row) ──► breaches
                 └─────► Great Expectations (a sample of rows) ──► breaches, and do both say the same of each row?

Importing this takes seconds: it is the flow that needs Great Expectations.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from contracts.app import App
from contracts.buckets import hash_expr
from contracts.columns import DataContract
from contracts.errors import ContractError
from contracts.expectations import validate
from contracts.rowcheck import reasons
from flows.progress import Progress, Silent
from nodes.check_rows import Rows, event_rows, request_rows

STREAMS = ("impressions", "clicks", "requests")
GX_ROWS = 100_000


@dataclass
class Found:
    """Rows that break one rule."""

    rows: int = 0
    detail: str = ""  #: of the first of them; never a value of the file
    lines: list[int] = field(default_factory=list)  #: the first of them, from 1

    def add(self, rows: int, lines: list[int], detail: str, limit: int) -> None:
        """Count more rows; keep the first `limit` line numbers and the first detail."""
        self.rows += rows
        self.lines = sorted({*self.lines, *lines})[:limit]
        self.detail = self.detail or detail


def run(
    app: App,
    files: Mapping[str, Path],
    *,
    gx_rows: int = GX_ROWS,
    limit: int = 5,
    strict: bool = False,
    on_progress: Progress | None = None,
) -> dict[str, Any]:
    """Check files of an app.

    Args:
        app: its contracts and its `ingest` bounds.
        files: stream ("impressions", "clicks" or "requests") -> file of JSON lines.
        gx_rows: Great Expectations sees at most so many rows of a file, picked by a hash of their line number.
        limit: how many line numbers to give for each breach.
        strict: an id that stands twice is a breach, not a note.
        on_progress: told of files and lines.

    Returns:
        `ok` and, per stream, `path`, `lines`, `good`, `breaches` (each `by`, `rule`, `column`, `rows`, `share`,
        `first_lines`, `detail`), `notes`, `gx_rows`, `gx_expectations`, `disagreements`.

    Raises:
        ContractError: a file is missing, or a contract cannot be compiled.
    """
    progress = on_progress or Silent()
    checked: dict[str, Any] = {}
    for stream, path in files.items():
        if not path.is_file():
            raise ContractError(f"{path}: no such file of {stream}; check the path")
        progress.stage(f"check {stream}")
        rows = request_rows(path, app) if stream == "requests" else event_rows(path, app, stream)
        checked[stream] = _FileCheck(stream, gx_rows, limit, strict=strict).run(path, rows, progress)
    return {"app": app.name, "ok": all(not one["breaches"] for one in checked.values()), "files": checked}


class _FileCheck:
    """Counts what is wrong with one file while its rows pass by."""

    def __init__(self, stream: str, gx_rows: int, limit: int, *, strict: bool) -> None:
        self._stream, self._gx_rows, self._limit, self._strict = stream, gx_rows, limit, strict
        self._found: dict[tuple[str, str, str], Found] = {}
        self._samples: dict[str, tuple[DataContract, pl.DataFrame]] = {}
        self._ids: list[pl.DataFrame] = []
        self._lines = self._bad = self._late = 0

    def run(self, path: Path, chunks: Iterator[Rows], progress: Progress) -> dict[str, Any]:
        for rows in chunks:
            self._lines += rows.lines
            self._bad += rows.refused["line"].n_unique()
            self._late += rows.late
            self._count_refused(rows)
            for name, (contract, frame) in rows.frames.items():
                self._sample(name, contract, frame)
            if rows.ids is not None:
                self._ids.append(rows.ids)
            progress.advance(self._lines)
        if self._lines == 0:
            self._note_breach("read", "no_rows", "", 1, [], "the file is empty; a check of nothing says nothing")
        notes = self._repeated()
        if self._late:
            notes.append(f"{self._late:,} rows are late (further behind than ingest.disorder_s); ingest drops them")
        expectations, seen, disagreements = self._great_expectations()
        return {
            "path": str(path),
            "lines": self._lines,
            "good": self._lines - self._bad,
            "breaches": [
                {
                    "by": by,
                    "rule": rule,
                    "column": column or None,
                    "rows": found.rows,
                    "share": round(found.rows / max(self._lines, 1), 6),
                    "first_lines": found.lines,
                    "detail": found.detail,
                }
                for (by, rule, column), found in self._found.items()
            ],
            "notes": notes,
            "gx_rows": seen,
            "gx_expectations": expectations,
            "disagreements": disagreements,
        }

    def _note_breach(self, by: str, rule: str, column: str, rows: int, lines: list[int], detail: str) -> None:
        self._found.setdefault((by, rule, column), Found()).add(rows, lines, detail, self._limit)

    def _count_refused(self, rows: Rows) -> None:
        grouped = rows.refused.group_by("by", "reason", "column", maintain_order=True).agg(
            pl.len(), pl.col("line").head(self._limit), pl.col("detail").first()
        )
        for by, reason, column, count, lines, detail in grouped.rows():
            self._note_breach(by, reason, column, count, [line + 1 for line in lines], detail)

    def _sample(self, name: str, contract: DataContract, frame: pl.DataFrame) -> None:
        """The rows whose line numbers have the smallest hashes: the same ones however the file is cut."""
        picked = frame.with_columns(_pick=hash_expr(pl.col("_line").cast(pl.String)))
        if name in self._samples:
            picked = pl.concat([self._samples[name][1], picked])
        if picked.height > self._gx_rows:
            picked = picked.bottom_k(self._gx_rows, by="_pick")
        self._samples[name] = (contract, picked)

    def _repeated(self) -> list[str]:
        if not self._ids:
            return []
        repeats = pl.concat(self._ids).filter(~pl.col("id").is_first_distinct())
        if not repeats.height:
            return []
        detail = "ids stand twice or more in the file"
        if self._strict:
            lines = [line + 1 for line in repeats["line"].head(self._limit)]
            self._note_breach("read", "repeated_id", "", repeats.height, lines, detail)
            return []
        return [f"{repeats.height:,} rows repeat an id; ingest drops them as duplicates (--strict makes them breaches)"]

    def _great_expectations(self) -> tuple[int, int, int]:
        """Expectations evaluated, rows seen, and rows on which the two checkers differ."""
        expectations = seen = disagreements = 0
        for contract, picked in self._samples.values():
            frame = picked.sort("_line", maintain_order=True)
            said = validate(frame, contract, unique=self._strict)
            expectations, seen = expectations + said.expectations, seen + frame.height
            lines = frame["_line"].to_list()
            for breach in said.breaches:
                where = [lines[row] + 1 for row in breach.rows[: self._limit]]
                rows = len(breach.rows) or 1  # of the whole frame: no row to name
                self._note_breach("gx", breach.expectation, breach.column or "", rows, where, breach.code)
            by_row = {row for b in said.breaches if b.code != "not_unique" for row in b.rows}
            good = frame.with_columns(_good=reasons(contract).is_null())["_good"].to_list()
            differ = [row for row, fine in enumerate(good) if fine == (row in by_row)]
            disagreements += len(differ)
            if differ:
                where = [lines[row] + 1 for row in differ[: self._limit]]
                detail = "the Polars check and Great Expectations differ: a bug of Rocket, please report it"
                self._note_breach("both", "checkers_disagree", "", len(differ), where, detail)
        return expectations, seen, disagreements
