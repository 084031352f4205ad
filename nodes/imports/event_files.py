"""Rows of a log, in time order, become impressions.ndjson, clicks.ndjson, requests.ndjson and import.json."""

import json
from collections import Counter
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from contracts.app import App
from contracts.errors import ContractError, StoreError
from nodes.files import PARTIAL, sync_folder, write_whole
from nodes.imports.delimited import Rows
from nodes.imports.drawn_delays import NOTE, drawn_delays_ms
from nodes.requests import requests_from

#: Beside the contract's columns: whether it was clicked, and when (null where that is not known: drawn).
CLICKED, CLICKED_MS = "_clicked", "_clicked_ms"
DEAD = "dead_letters.parquet"
_TRIED = 1000  # so many records, and no good one among them: it is another layout
_PART_ROWS = 32_768
_MINUTE_MS = 60_000


class _Events:
    """The files while they are written; clicks wait until no earlier one can come, requests for their whole minute."""

    def __init__(self, out: Path, app: App, seed: int, *, requests: bool) -> None:
        names = ["impressions", "clicks", *(["requests"] if requests else [])]
        self._partial = {name: out / f".{name}.ndjson{PARTIAL}" for name in names}
        self._dead_path, self._out = out / f".{DEAD}{PARTIAL}", out
        self._app, self._rng = app, np.random.default_rng(seed)
        self._columns = list(app.impressions.schema_)
        self._id, self._at = (app.impressions.role(role) for role in ("impression_id", "event_time"))
        self._click = [app.clicks.role(role) for role in ("click_id", "impression_id", "event_time")]
        self._sinks: dict[str, BinaryIO] = {}
        self._dead: pq.ParquetWriter | None = None
        self._stack = ExitStack()
        self._clicks, self._shown = pl.DataFrame(), pl.DataFrame()
        self.counts = dict.fromkeys(names, 0)
        self.drawn = 0
        self.dead: Counter[str] = Counter()
        self.first_dead: dict[str, Any] | None = None
        self.span: tuple[int, ...] = ()  #: first and last event time

    def __enter__(self) -> "_Events":
        self._sinks = {name: self._stack.enter_context(path.open("wb")) for name, path in self._partial.items()}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        for path in (*self._partial.values(), self._dead_path):
            path.unlink(missing_ok=True)

    def add(self, rows: pl.DataFrame) -> None:
        """Rows no earlier than all before them."""
        shown = rows.select(self._columns)
        shown.write_ndjson(self._sinks["impressions"])
        last = int(shown[self._at][-1])
        self.span = (self.span[0] if self.span else int(shown[self._at][0]), last)
        self.counts["impressions"] += shown.height
        self._add_clicks(rows, last)
        if "requests" in self._sinks:
            waiting = pl.concat([self._shown, shown]) if self._shown.height else shown
            whole = waiting[self._at] // _MINUTE_MS < last // _MINUTE_MS
            self._ask(waiting.filter(whole))
            self._shown = waiting.filter(~whole)

    def refuse(self, dead: pl.DataFrame) -> None:
        """Keep dead letters."""
        self.first_dead = self.first_dead or dead.row(0, named=True)
        table = dead.to_arrow()
        if self._dead is None:
            self._dead = self._stack.enter_context(closing(pq.ParquetWriter(self._dead_path, table.schema)))
        self._dead.write_table(table)
        self.dead.update(dict(dead["reason"].value_counts().iter_rows()))

    def finish(self) -> None:
        """Write what waits, and give all files their names."""
        self._write_clicks(self._clicks)
        if self._shown.height:
            self._ask(self._shown)
        self._stack.close()
        for name, path in self._partial.items():
            path.replace(self._out / f"{name}.ndjson")
        (self._out / DEAD).unlink(missing_ok=True)
        if self._dead is not None:
            self._dead_path.replace(self._out / DEAD)
        sync_folder(self._out)

    def _add_clicks(self, rows: pl.DataFrame, until_ms: int) -> None:
        """One click a clicked row; written are those that no later row's click can precede."""
        clicked = rows.filter(CLICKED)
        if CLICKED_MS not in clicked.columns:
            clicked = clicked.with_columns(pl.lit(None, pl.Int64).alias(CLICKED_MS))
        self.drawn += clicked[CLICKED_MS].null_count()
        delay_ms = drawn_delays_ms(self._rng, clicked.height)
        key, of, at = self._click
        made = clicked.select(
            pl.concat_str(self._id, pl.lit("-c")).alias(key),
            pl.col(self._id).alias(of),
            pl.col(CLICKED_MS).fill_null(pl.col(self._at) + delay_ms).alias(at),
        )
        waiting = pl.concat([self._clicks, made]) if self._clicks.height else made
        now = waiting[at] <= until_ms
        self._write_clicks(waiting.filter(now))
        self._clicks = waiting.filter(~now)

    def _write_clicks(self, clicks: pl.DataFrame) -> None:
        if clicks.height:
            key, _, at = self._click
            clicks.sort(at, key).write_ndjson(self._sinks["clicks"])
            self.counts["clicks"] += clicks.height

    def _ask(self, shown: pl.DataFrame) -> None:
        if shown.height:
            lines = requests_from(shown, self._app).lines
            self._sinks["requests"].write("".join(f"{line}\n" for line in lines).encode())
            self.counts["requests"] += lines.len()


def write_events(
    chunks: Generator[Rows],
    out: Path,
    app: App,
    *,
    about: Mapping[str, Any],
    seed: int = 1,
    most: int | None = None,
    requests: bool = True,
    on_progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Write the events and requests of a log.

    Args:
        chunks: rows in ascending event time, each with the columns of the impressions contract and `CLICKED`
            (`CLICKED_MS` too where the log knows it), and dead letters.
        out: gets impressions.ndjson, clicks.ndjson, requests.ndjson (one per user and minute), import.json and, where
            there are any, dead_letters.parquet.
        app: whose contracts the events keep.
        about: what else import.json shall say of the log; `source` names it.
        seed: of the click delays that the log does not have.
        most: stop after so many impressions.
        requests: write them.
        on_progress: told of impressions written, chunk by chunk.

    Returns:
        What import.json holds.

    Raises:
        ContractError: no record of the log is one, or a source says that it cannot be read.
        StoreError: `out` cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack, _Events(out, app, seed, requests=requests) as events:
            for rows in stack.enter_context(closing(chunks)):
                if rows.dead.height:
                    events.refuse(rows.dead)
                if events.dead.total() >= _TRIED and not (events.counts["impressions"] or rows.frame.height):
                    break
                room = rows.frame.height if most is None else most - events.counts["impressions"]
                for part in rows.frame.head(room).iter_slices(_PART_ROWS):
                    events.add(part)
                    if on_progress:
                        on_progress(part.height)
                if most is not None and events.counts["impressions"] >= most:
                    break
            if not events.counts["impressions"]:
                raise _no_good_one(events, about)
            events.finish()
        figures = {
            **about,
            "seed": seed,
            **events.counts,
            "dead_lettered": dict(sorted(events.dead.items())),
            "first_ms": events.span[0],
            "last_ms": events.span[1],
            "click_delay": {**NOTE, "drawn": events.drawn} if events.drawn else {"note": "as in the log"},
        }
    except OSError as error:
        raise StoreError(
            f"{out}: cannot be written ({error}); free the space, or give a folder that you own"
        ) from error
    write_whole(out / "import.json", json.dumps(figures, indent=2).encode())
    return figures


def _no_good_one(events: _Events, about: Mapping[str, Any]) -> ContractError:
    if events.first_dead is None:
        return ContractError(f"{about['source']}: no row to import; name the files with the log's rows")
    one = events.first_dead
    return ContractError(
        f"{one['origin']}, record {one['line'] + 1}: {one['detail']}, and none of {events.dead.total():,} records is "
        "any better; is it the right file, in the layout that this import reads?"
    )
