"""Ad requests made from impressions: what would have been asked for them to be shown."""

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from contracts.app import App
from contracts.buckets import hash_expr
from contracts.columns import Part
from contracts.errors import ContractError, did_you_mean
from nodes.files import write_whole

_MINUTE_MS = 60_000


@dataclass(frozen=True, slots=True)
class Requests:
    """Requests made from impressions, and where each impression went."""

    lines: pl.Series  #: one request a line, JSON, in order of event time
    asked: pl.DataFrame  #: impression_id, event_time_ms, request_id, candidate (its place in the request, from 0)


def requests_from(frame: pl.DataFrame, app: App) -> Requests:
    """The ad requests that would have led to these impressions.

    One request for the impressions of one user and minute whose user and context columns are equal; its candidates
    are the items shown then, at most `serving.max_candidates`, and its time is that of the first. So a request made
    from impressions gives each of them the features that it had. Columns that the requests contract does not have
    are left out; of rows with one impression id and time the first counts.

    Args:
        frame: impressions, with the columns of their contract.
        app: its requests contract says which columns a request carries, and in which part.

    Raises:
        ContractError: the frame lacks a column that a request needs.
    """
    size = app.config.serving.max_candidates
    grouped = (
        _in_parts(frame, app)
        .with_columns(part=pl.int_range(pl.len()).over("user", "context", "minute") // size)
        .group_by("user", "context", "minute", "part", maintain_order=True)
        .agg(pl.col("at_ms").min(), pl.col("candidates"), pl.col("impression_id"), event_time_ms="at_ms")
        .with_columns(request_id=_request_id())
        .sort("at_ms", "request_id")
    )
    line = pl.concat_str(
        *(pl.lit('{"id":"'), "request_id", pl.lit('","event_time_ms":'), "at_ms"),
        *(pl.lit(',"user":'), "user", pl.lit(',"context":'), "context"),
        *(pl.lit(',"candidates":['), pl.col("candidates").list.join(","), pl.lit("]}")),
    )
    asked = (
        grouped.select(
            *("request_id", "impression_id", "event_time_ms"),
            candidate=pl.int_ranges(pl.col("impression_id").list.len()),
        )
        .explode("impression_id", "event_time_ms", "candidate")
        .select("impression_id", "event_time_ms", "request_id", pl.col("candidate").cast(pl.Int64))
    )
    return Requests(grouped.select(line=line).to_series(), asked)


def write_requests(frame: pl.DataFrame, app: App, path: Path) -> pl.DataFrame:
    """Write the requests of these impressions as NDJSON; return `Requests.asked`.

    Raises:
        ContractError: as `requests_from`.
        StoreError: the file cannot be written.
    """
    made = requests_from(frame, app)
    write_whole(path, "".join(f"{line}\n" for line in made.lines).encode())
    return made.asked


def _in_parts(frame: pl.DataFrame, app: App) -> pl.DataFrame:
    """Each impression as the JSON of its user, its context and its candidate."""
    key, at = app.impressions.role("impression_id"), app.impressions.role("event_time")
    inside = [column for column in app.requests.columns if column.within is not None]
    for name in [key, at, *(column.name for column in inside if column.required)]:
        if name not in frame.columns:
            raise ContractError(
                f"requests need the column '{name}', which the impressions lack; "
                f"{did_you_mean(name, frame.columns or ['nothing'])}"
            )

    def json(part: Part) -> pl.Expr:
        names = [column.name for column in inside if column.within == part and column.name in frame.columns]
        return pl.struct(names).struct.json_encode() if names else pl.lit("{}")

    return frame.unique([key, at], keep="first", maintain_order=True).select(
        pl.col(key).alias("impression_id"),
        pl.col(at).alias("at_ms"),
        (pl.col(at) // _MINUTE_MS).alias("minute"),
        json("user").alias("user"),
        json("context").alias("context"),
        json("candidates").alias("candidates"),
    )


def _request_id() -> pl.Expr:
    """First event time and a hash of what makes the request one: the same on every run, at most 64 characters."""
    named = pl.concat_str("user", "context", "minute", "part", separator="\x1f")
    return pl.concat_str("at_ms", pl.lit("-"), hash_expr(named).cast(pl.String))
