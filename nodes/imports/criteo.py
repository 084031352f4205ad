"""Criteo's display advertising logs: a label, 13 counts and 26 hashed categories a row, tab separated, in time order.

The files of the Kaggle challenge (train.txt: 7 days, 45,840,617 rows) and of the Terabyte click logs (day_0 to day_23)
have no header, and an empty field where a value is missing. They name neither user nor ad, and no time: the number of
the record stands for user and ad, which no feature reads, and the rows follow each other at an even pace.
"""

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from nodes.imports.delimited import Layout, Rows, read_delimited
from nodes.imports.event_files import CLICKED
from nodes.imports.typed import typed

NUMBERS = tuple(f"I{n}" for n in range(1, 14))
IDS = tuple(f"C{n}" for n in range(1, 27))
START_MS = 1_388_534_400_000  # 2014-01-01T00:00Z: made up
#: Rows a day: what the challenge and the Terabyte logs hold, over their days.
KAGGLE_DAY, TERABYTE_DAY = 45_840_617 // 7, 4_373_472_329 // 24
_DAY_MS = 86_400_000
_LAYOUT = Layout("\t", "", ("label", *NUMBERS, *IDS))
_SCHEMA = {
    "label": pl.Boolean(),
    **dict.fromkeys(NUMBERS, pl.Int64()),
    **dict.fromkeys(IDS, pl.String()),
}


def about_criteo(files: Sequence[Path]) -> dict[str, Any]:
    """What import.json says of the log."""
    return {
        "source": ", ".join(str(path) for path in files),
        "event_time": {
            "note": "The log has no times: rows follow each other at an even pace from a made-up day on.",
            "start_ms": START_MS,
            "rows_a_day": _rows_a_day(files),
        },
        "ids": "The log names neither user nor ad: the number of the record stands for both.",
    }


def criteo_rows(files: Sequence[Path]) -> Generator[Rows]:
    """The rows of the files, one file after another, with the columns of the criteo app.

    Raises:
        ContractError: a file cannot be read.
    """
    before, pace = 0, _rows_a_day(files)
    for path in files:
        named = path.name.split(".")[0][:40]
        for read in read_delimited(path, _LAYOUT, stream="impressions"):
            rows = typed(read, _SCHEMA, stream="impressions", origin=path, required=("label",))
            number = pl.int_range(before, before + pl.len(), dtype=pl.Int64)
            before += rows.frame.height
            key = pl.concat_str(pl.lit(f"{named}-"), pl.col("_line").cast(pl.String))
            frame = rows.frame.select(
                impression_id=key,
                event_time_ms=START_MS + number * _DAY_MS // pace,
                user_id=key,
                item_id=key,
            )
            yield Rows(frame.hstack(rows.frame.select(*NUMBERS, *IDS, pl.col("label").alias(CLICKED))), rows.dead)


def _rows_a_day(files: Sequence[Path]) -> int:
    return TERABYTE_DAY if files[0].name.startswith("day_") else KAGGLE_DAY
