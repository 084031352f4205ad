"""The ledger: what became of every event read, through to whether its example was trained."""

from pathlib import Path

import polars as pl

from contracts.app import App
from contracts.events import FATES, Fate
from contracts.sections import Labels
from nodes.delayed import first_rows
from nodes.example_log import ExampleDirectory
from nodes.files import write_whole_frame
from nodes.source import read_events


def read_fates(folder: Path) -> pl.DataFrame:
    """The fate of each event of a `fates` folder; an empty one gives no rows.

    Where live ingest was killed and went on, parts tell some events twice: the same, but where a restart knew less (the
    bytes of an earlier impression) or more (that a partition which had been silent was to be waited for).
    """
    parts = sorted(folder.glob("*.parquet"))
    if not parts:
        return pl.DataFrame(schema=FATES)
    unsure = pl.col("reason").is_in(["payload_unknown", "behind_watermark"]).fill_null(value=False)
    told = pl.read_parquet(parts).sort(unsure, maintain_order=True)
    return told.unique(["stream", "origin", "line"], keep="first", maintain_order=True)


def accepted_impressions(app: App, impressions: Path, fates: Path, from_ms: int) -> pl.DataFrame:
    """The contract's columns of the impressions that became examples at or after event time `from_ms`.

    They are read again from the file, because the example log keeps features, not columns.

    Args:
        app: whose contract the file keeps.
        impressions: the NDJSON file that ingest read.
        fates: the `fates` folder that ingest wrote.
        from_ms: epoch milliseconds of event time.
    """
    wanted = read_fates(fates).filter(
        (pl.col("stream") == "impressions")
        & (pl.col("outcome") == "example")
        & (pl.col("event_time_ms") >= from_ms)
        & (pl.col("origin") == str(impressions))
    )
    lines = wanted.select(_line="line")
    columns = list(app.impressions.schema_)
    parts = [
        read.frame.filter(pl.col("event_time_ms") >= from_ms).join(lines, on="_line", how="semi").select(columns)
        for read in read_events(impressions, app.impressions, app, "impressions")
    ]
    empty = pl.DataFrame(schema=app.impressions.schema_)
    return pl.concat([empty, *parts]).sort("event_time_ms", app.impressions.role("impression_id"))


def write_ledger(
    fates: Path,
    examples: Path,
    next_row: int,
    cut_ms: int,
    out: Path,
    labels: Labels = Labels(),  # noqa: B008 (frozen)
) -> dict[str, int]:
    """Write the ledger: the fates, and for each example its `use`: trained, pending or held_out.

    Args:
        fates: the `fates` folder that ingest wrote.
        examples: the example log.
        next_row: the trainer's position: rows before it are trained.
        cut_ms: examples from this event time on are held out.
        out: the Parquet file.
        labels: of the app that wrote the log; of an impression that was told more than once the first row counts.

    Returns:
        How many rows it has, by fate and by use.
    """
    empty = pl.DataFrame(
        schema={"id": pl.String(), "event_time_ms": pl.Int64(), "place": pl.Int64(), "row": pl.Int64()}
    )
    rows = [
        first_rows(
            batch.frame.with_columns(place="event_time_ms", row=pl.int_range(batch.first_row, batch.next_row)), labels
        ).select(id="impression_id", event_time_ms="event_time_ms", place="place", row="row")
        for batch in ExampleDirectory(examples).read(0)
    ]
    use = pl.concat([empty, *rows]).with_columns(
        use=pl.when(pl.col("place") >= cut_ms)
        .then(pl.lit("held_out"))
        .when(pl.col("row") < next_row)
        .then(pl.lit("trained"))
        .otherwise(pl.lit("pending")),
        outcome=pl.lit("example"),
        stream=pl.lit("impressions"),
        fate=pl.lit(Fate.ACCEPTED.value),
    )
    ledger = read_fates(fates).join(
        use.drop("row", "place"),
        on=["stream", "id", "event_time_ms", "fate", "outcome"],
        how="left",
        maintain_order="left",
    )
    write_whole_frame(out, ledger)
    counts = {str(fate): int(n) for fate, n in ledger.group_by("fate").len().sort("fate").iter_rows()}
    used = ledger.filter(pl.col("use").is_not_null()).group_by("use").len().sort("use")
    return counts | {str(name): int(n) for name, n in used.iter_rows()}
