"""Avazu's click log of the Kaggle challenge: ten days of mobile ads, one hour after another (train.csv or train.gz).

Columns: id, click, hour (YYMMDDHH, UTC), C1, banner_pos, site_*, app_*, device_*, C14 to C21. The log knows hours only:
the rows of an hour are spread over it evenly, in their order. Ads have no name: C14, the finest of the anonymous
columns, stands for the item. The user is the device where it has an id, else its address and model.
"""

from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from contracts.errors import ContractError
from nodes.imports.delimited import Layout, Rows, read_delimited
from nodes.imports.event_files import CLICKED
from nodes.imports.typed import refused, typed

COLUMNS = (
    "C1", "banner_pos", "site_id", "site_domain", "site_category", "app_id", "app_domain", "app_category", "device_id",
    "device_ip", "device_model", "device_type", "device_conn_type", "C14", "C15", "C16", "C17", "C18", "C19", "C20",
    "C21",
)  # fmt: skip
NO_DEVICE = "a99f214a"  # the hash of no device id: four rows of five have it
_HOUR_MS = 3_600_000
_SCHEMA = {"id": pl.String(), "click": pl.Boolean(), "hour": pl.String(), **dict.fromkeys(COLUMNS, pl.String())}
_REQUIRED = ("id", "click", "hour", "device_ip", "device_model", "C14")


def about_avazu(files: Sequence[Path]) -> dict[str, Any]:
    """What import.json says of the log."""
    return {
        "source": ", ".join(str(path) for path in files),
        "event_time": {"note": "The log knows hours only: the rows of an hour are spread over it evenly."},
        "ids": "user: device_id, or device_ip and device_model where it has none; item: C14",
    }


def avazu_rows(files: Sequence[Path]) -> Generator[Rows]:
    """The rows of the files, with the columns of the avazu app.

    Raises:
        ContractError: a file cannot be read, lacks a column, or goes back in time.
    """
    yield from _spread(_hours(files))


def _hours(files: Sequence[Path]) -> Generator[Rows]:
    newest = 0
    for path in files:
        for read in read_delimited(path, Layout(quote=""), stream="impressions", wanted=list(_SCHEMA)):
            rows = typed(read, _SCHEMA, stream="impressions", origin=path, required=_REQUIRED)
            hour = (rows.frame["hour"] + "00").str.to_datetime("%y%m%d%H%M", time_unit="ms", strict=False)
            why = "hour must be YYMMDDHH, such as 14102100"
            rows = refused(rows, hour.is_null(), "bad_time", why, stream="impressions", origin=path)
            frame = rows.frame.with_columns(hour_ms=hour.drop_nulls().dt.epoch("ms"))
            if frame.height:
                back = frame["hour_ms"] < frame["hour_ms"].cum_max().clip(newest)
                if back.any():
                    record = int(frame.filter(back)["_line"][0]) + 1
                    raise ContractError(
                        f"{path}, record {record}: its hour lies before that of an earlier row; give the log as it was "
                        "published, in order of time, or import it with `rocket import csv`, which sorts"
                    )
                newest = int(frame["hour_ms"][-1])
            yield Rows(frame, rows.dead)


def _spread(chunks: Iterable[Rows]) -> Generator[Rows]:
    """Times within each hour; the rows of the last hour wait until it is over."""
    waiting: list[pl.DataFrame] = []
    nothing = None
    for rows in chunks:
        nothing = rows.dead.clear()
        if rows.dead.height:
            yield Rows(pl.DataFrame(), rows.dead)
        if not rows.frame.height:
            continue
        last = rows.frame["hour_ms"][-1]
        if waiting and waiting[0]["hour_ms"][0] == last:
            waiting.append(rows.frame)
            continue
        hours = pl.concat([*waiting, rows.frame])
        over = hours["hour_ms"] < last
        waiting = [hours.filter(~over)]
        if over.any():
            yield Rows(_named(hours.filter(over)), nothing)
    if waiting and nothing is not None:
        yield Rows(_named(pl.concat(waiting)), nothing)


def _named(hours: pl.DataFrame) -> pl.DataFrame:
    """Rows of whole hours as impressions."""
    nth = pl.int_range(pl.len(), dtype=pl.Int64).over("hour_ms")
    device = pl.when(pl.col("device_id") != NO_DEVICE).then("device_id")
    return hours.select(
        impression_id="id",
        event_time_ms=pl.col("hour_ms") + nth * _HOUR_MS // pl.len().over("hour_ms"),
        user_id=device.fill_null(pl.concat_str("device_ip", "device_model", separator="-")),
        item_id="C14",
    ).hstack(hours.select(*(name for name in COLUMNS if name != "C14"), pl.col("click").alias(CLICKED)))
