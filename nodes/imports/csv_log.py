"""Anyone's own log, one row an impression, by a mapping of its columns."""

from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from contracts.app import App
from contracts.errors import ContractError, did_you_mean
from contracts.mapping import LogMapping
from contracts.rowcheck import reasons
from nodes.imports.delimited import Layout, Rows, columns_of, dead_letters, read_delimited
from nodes.imports.event_files import CLICKED, CLICKED_MS
from nodes.imports.time_order import in_time_order
from nodes.imports.typed import refused, typed

_PER_MS = {"s": (1000, 1), "ms": (1, 1), "us": (1, 1000), "ns": (1, 1_000_000)}
_STREAM = "impressions"


def about_csv(files: Sequence[Path], mapping: LogMapping) -> dict[str, Any]:
    """What import.json says of the log."""
    return {"source": ", ".join(str(path) for path in files), "mapping": mapping.model_dump(exclude_defaults=True)}


def csv_rows(files: Sequence[Path], app: App, mapping: LogMapping, scratch: Path) -> Generator[Rows]:
    """The rows of the files in time order, with the columns of the app.

    Args:
        files: one layout, one mapping.
        app: its impressions contract says what a row must hold; one that breaks it is a dead letter.
        mapping: where each column comes from.
        scratch: an empty folder, for sorting.

    Raises:
        ContractError: the mapping does not fit the app or a file, or a file cannot be read.
    """
    layout = Layout(mapping.separator, mapping.quote, mapping.names)
    found = {path: _sources(path, layout, app, mapping) for path in files}
    rows = (part for path in files for part in _rows(path, layout, app, mapping, found[path]))
    at = app.impressions.role("event_time")
    yield from rows if mapping.in_order else in_time_order(rows, scratch, at=at)


def _sources(path: Path, layout: Layout, app: App, mapping: LogMapping) -> dict[str, str]:
    """Column of the contract -> column of the file."""
    contract = app.impressions
    columns = layout.names or columns_of(path, layout)
    for name, source in mapping.columns.items():
        if name not in contract.schema_:
            raise ContractError(
                f"the mapping names '{name}', but {contract.path} has no such column; "
                f"{did_you_mean(name, contract.schema_)}"
            )
        if source not in columns:
            raise ContractError(f"{path}: has no column '{source}' for {name}; {did_you_mean(source, columns)}")
    for what in (mapping.label, *([mapping.click_time] if mapping.click_time else [])):
        if what not in columns:
            setting = "label" if what == mapping.label else "click_time"
            raise ContractError(
                f"{path}: has no column '{what}', which the mapping's {setting} names; {did_you_mean(what, columns)}"
            )
    found = {name: mapping.columns.get(name, name) for name in contract.schema_}
    found = {name: source for name, source in found.items() if source in columns}
    key = contract.role("impression_id")
    for column in contract.columns:
        if column.required and column.name not in found and column.name != key:
            raise ContractError(
                f"{path}: nothing gives the required column '{column.name}'; map it: --map {column.name}=COLUMN "
                f"(columns of the file: {', '.join(columns)})"
            )
    return found


def _rows(path: Path, layout: Layout, app: App, mapping: LogMapping, found: Mapping[str, str]) -> Generator[Rows]:
    contract = app.impressions
    key, at = contract.role("impression_id"), contract.role("event_time")
    schema = {name: contract.schema_[name] for name in found} | {at: pl.String()}
    broken = reasons(contract)
    wanted = list(dict.fromkeys([*found.values(), mapping.label, *filter(None, [mapping.click_time])]))
    for read in read_delimited(path, layout, stream=_STREAM, wanted=wanted):
        # every column under its own name, however many are made of one of the file
        text = read.frame.select(
            "_line",
            *(pl.col(source).alias(name) for name, source in found.items()),
            pl.col(mapping.label).alias(CLICKED),
            (pl.col(mapping.click_time) if mapping.click_time else pl.lit(None, pl.String)).alias(CLICKED_MS),
        )
        rows = typed(
            Rows(text, read.dead),
            schema | {CLICKED: pl.String(), CLICKED_MS: pl.String()},
            stream=_STREAM,
            origin=path,
            null=mapping.null,
            list_separator=mapping.list_separator,
        )
        rows = _labelled(rows, mapping, path)
        rows = _timed(_timed(rows, at, mapping, path), CLICKED_MS, mapping, path)
        rows = _kept(rows, app, key, path)
        reason = rows.frame.select(reason=broken)["reason"]
        if reason.null_count() < reason.len():
            rows = _breaches(rows, reason, path)
        yield Rows(rows.frame.drop("_line"), rows.dead)


def _labelled(rows: Rows, mapping: LogMapping, path: Path) -> Rows:
    told = pl.col(CLICKED).is_in(list(mapping.clicked))
    label = rows.frame.select(told=told, known=told | pl.col(CLICKED).is_in(list(mapping.not_clicked)))
    unknown = ~label["known"].fill_null(value=False)
    why = f"{mapping.label} must be one of {', '.join((*mapping.clicked, *mapping.not_clicked))}"
    marked = Rows(rows.frame.with_columns(label["told"].alias(CLICKED)), rows.dead)
    return refused(marked, unknown, "wrong_label", why, stream=_STREAM, origin=path)


def _timed(rows: Rows, name: str, mapping: LogMapping, path: Path) -> Rows:
    """The column as epoch milliseconds; a text that is no time makes its row a dead letter."""
    if mapping.time_format is not None:
        time = pl.col(name).str.to_datetime(mapping.time_format, time_unit="ms", strict=False, time_zone="UTC")
        value, what = time.dt.epoch("ms"), f"a time such as {mapping.time_format}"
    else:
        times, over = _PER_MS[mapping.time_unit]
        value, what = pl.col(name).cast(pl.Int64, strict=False) * times // over, f"a whole number ({mapping.time_unit})"
    made = rows.frame.select(value.alias(name))[name]
    wrong = made.is_null() & rows.frame[name].is_not_null()
    done = Rows(rows.frame.with_columns(made), rows.dead)
    return refused(done, wrong, "wrong_type", f"{name} must be {what}", stream=_STREAM, origin=path)


def _kept(rows: Rows, app: App, key: str, path: Path) -> Rows:
    """All columns of the contract, and only times that the app takes."""
    contract, at = app.impressions, app.impressions.role("event_time")
    frame = rows.frame
    if key not in frame.columns:
        named = path.name.split(".")[0][:40]
        frame = frame.with_columns(pl.concat_str(pl.lit(f"{named}-"), pl.col("_line").cast(pl.String)).alias(key))
    nothing = [pl.lit(None, kind).alias(name) for name, kind in contract.schema_.items() if name not in frame.columns]
    frame = frame.with_columns(nothing).select(*contract.schema_, CLICKED, CLICKED_MS, "_line")
    low, high = app.config.ingest.event_times_ms
    ingest = app.config.ingest
    why = (
        f"{at} must lie from {ingest.event_time_min:%Y-%m-%d} to {ingest.event_time_max:%Y-%m-%d}, as the app says; "
        "does time_unit fit?"
    )
    outside = ~frame[at].is_between(low, high).fill_null(value=True)
    return refused(Rows(frame, rows.dead), outside, "bad_time", why, stream=_STREAM, origin=path)


def _breaches(rows: Rows, reason: pl.Series, path: Path) -> Rows:
    """Rows that break a rule of the contract are dead letters, as ingest would make them."""
    bad = rows.frame.with_columns(_reason=reason).filter(reason.is_not_null())
    parts = pl.col("_reason").str.splitn(": ", 2).struct
    raw = pl.struct(pl.exclude("_line", "_reason")).struct.json_encode()
    gone = bad.select(line="_line", reason=parts.field("field_0"), detail=parts.field("field_1"), raw=raw)
    return Rows(
        rows.frame.filter(reason.is_null()), pl.concat([rows.dead, dead_letters(gone, _STREAM, path)]).sort("line")
    )
