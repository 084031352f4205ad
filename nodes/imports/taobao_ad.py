"""Alibaba's display ad log of Taobao: raw_sample.csv, ad_feature.csv, user_profile.csv and, if given, behavior_log.csv.

26 million impressions of eight days in May 2017, in no order of time: they are sorted on disk first. What users did in
the shop (723 million rows) gives the last categories and brands that each looked at before the first impression; a
look-up by time would need them all in memory.
"""

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from contracts.errors import ContractError
from nodes.imports.delimited import Layout, Rows, columns_of, read_delimited
from nodes.imports.event_files import CLICKED
from nodes.imports.time_order import in_time_order
from nodes.imports.typed import refused, typed

HISTORY_ITEMS = 20  #: of each list: the last ones
_BUFFERED = 8_000_000  # rows of behaviour between two cuts to the last ones
_NULL = ("", "NULL")
_SAMPLE: dict[str, pl.DataType] = {
    "user": pl.String(),
    "time_stamp": pl.Int64(),
    "adgroup_id": pl.String(),
    "pid": pl.String(),
    "nonclk": pl.Boolean(),
    "clk": pl.Boolean(),
}
_ADS: dict[str, pl.DataType] = {
    "adgroup_id": pl.String(),
    "cate_id": pl.String(),
    "campaign_id": pl.String(),
    "customer": pl.String(),
    "brand": pl.String(),
    "price": pl.Float64(),
}
_USERS: dict[str, pl.DataType] = {
    "userid": pl.String(),
    "cms_segid": pl.String(),
    "cms_group_id": pl.String(),
    "final_gender_code": pl.String(),
    "age_level": pl.String(),
    "pvalue_level": pl.String(),
    "shopping_level": pl.String(),
    "occupation": pl.String(),
    "new_user_class_level": pl.String(),
}
_BEHAVIOR: dict[str, pl.DataType] = {
    "user": pl.String(),
    "time_stamp": pl.Int64(),
    "cate": pl.String(),
    "brand": pl.String(),
}
#: file -> its columns that are read, and those that a row must have
FILES: dict[str, tuple[dict[str, pl.DataType], tuple[str, ...]]] = {
    "raw_sample": (_SAMPLE, tuple(_SAMPLE)),
    "ad_feature": (_ADS, ("adgroup_id",)),
    "user_profile": (_USERS, ("userid",)),
    "behavior_log": (_BEHAVIOR, ("user", "time_stamp")),
}


def about_taobao_ad(files: Sequence[Path]) -> dict[str, Any]:
    """What import.json says of the log."""
    found = _told_apart(files)
    return {
        "source": ", ".join(str(path) for path in files),
        "history": f"the last {HISTORY_ITEMS} before the first impression" if "behavior_log" in found else "not given",
    }


def taobao_ad_rows(files: Sequence[Path], scratch: Path) -> Generator[Rows]:
    """The rows of the log in time order, with the columns of the taobao-ad app.

    Args:
        files: by their usual names, or a folder that holds them.
        scratch: an empty folder, for sorting.

    Raises:
        ContractError: a file is missing, twice, cannot be read, or lacks a column.
    """
    found = _told_apart(files)
    shown = in_time_order(_shown(found["raw_sample"]), scratch)
    ads, dead_ads = _table(found["ad_feature"], "ad_feature")
    users, dead_users = _table(found["user_profile"], "user_profile")
    yield Rows(pl.DataFrame(), pl.concat([dead_ads, dead_users]))
    viewed: pl.DataFrame | None = None
    for rows in shown:
        if not rows.frame.height:
            yield rows
            continue
        if viewed is None:
            viewed = _no_history()
            if "behavior_log" in found:
                for part in _viewed(found["behavior_log"], int(rows.frame["event_time_ms"][0]) // 1000):
                    viewed = part.frame if part.frame.height else viewed
                    yield Rows(pl.DataFrame(), part.dead)
        joined = (
            rows.frame.join(users, left_on="user", right_on="userid", how="left", maintain_order="left")
            .join(viewed, on="user", how="left", maintain_order="left")
            .join(ads, on="adgroup_id", how="left", maintain_order="left")
        )
        yield Rows(joined.select(*_impression()), rows.dead)


def _impression() -> list[pl.Expr]:
    renamed = {"final_gender_code": "gender", "new_user_class_level": "city_level"}
    return [
        pl.format("{}-{}-{}-{}", "user", "adgroup_id", pl.col("event_time_ms") // 1000, "pid").alias("impression_id"),
        pl.col("event_time_ms"),
        pl.col("user").alias("user_id"),
        pl.col("adgroup_id").alias("item_id"),
        pl.col("pid"),
        *(pl.col(name).alias(renamed.get(name, name)) for name in _USERS if name != "userid"),
        pl.col("viewed_categories"),
        pl.col("viewed_brands"),
        *(pl.col(name) for name in _ADS if name != "adgroup_id"),
        pl.col(CLICKED),
    ]


def _told_apart(files: Sequence[Path]) -> dict[str, Path]:
    """The files by what they hold, told by their names."""
    every = [inner for path in files for inner in (sorted(path.iterdir()) if path.is_dir() else [path])]
    found: dict[str, Path] = {}
    for path in every:
        stem = path.name.split(".")[0]
        if stem in FILES and path.name.removesuffix(".gz") == f"{stem}.csv":
            if stem in found:
                raise ContractError(f"{path}: {found[stem]} holds the same; give one of them")
            found[stem] = path
        elif path in files:
            raise ContractError(f"{path}: is none of {', '.join(f'{name}.csv' for name in FILES)} (plain or .gz)")
    for name in ("raw_sample", "ad_feature", "user_profile"):
        if name not in found:
            raise ContractError(f"{name}.csv is missing; give raw_sample.csv, ad_feature.csv and user_profile.csv")
    return found


def _read(path: Path, name: str) -> Generator[Rows]:
    schema, required = FILES[name]
    columns = columns_of(path, Layout(quote=""))
    for column in schema:
        if column not in columns:
            raise ContractError(f"{path}: has no column '{column}'; its columns: {', '.join(columns)}")
    for rows in read_delimited(path, Layout(quote=""), stream=name, wanted=list(schema)):
        yield typed(rows, schema, stream=name, origin=path, null=_NULL, required=required)


def _shown(path: Path) -> Generator[Rows]:
    for read in _read(path, "raw_sample"):
        same = read.frame["clk"] == read.frame["nonclk"]
        rows = refused(read, same, "wrong_label", "clk and nonclk say the same", stream="raw_sample", origin=path)
        yield Rows(
            rows.frame.select(
                "user",
                "adgroup_id",
                "pid",
                event_time_ms=pl.col("time_stamp") * 1000,
                **{CLICKED: "clk"},
            ),
            rows.dead,
        )


def _table(path: Path, name: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """A whole file, the first row of each key."""
    parts = list(_read(path, name))
    key = next(iter(FILES[name][0]))
    frame = pl.concat([part.frame for part in parts]).drop("_line")
    return frame.unique(key, keep="first", maintain_order=True), pl.concat([part.dead for part in parts])


def _no_history() -> pl.DataFrame:
    kinds = {"user": pl.String(), "viewed_categories": pl.List(pl.String()), "viewed_brands": pl.List(pl.String())}
    return pl.DataFrame(schema=kinds)


def _viewed(path: Path, before_s: int) -> Generator[Rows]:
    """Dead letters as they come, and at last each user's categories and brands before that time, oldest first."""
    kept: list[pl.DataFrame] = []
    rows = 0
    for read in _read(path, "behavior_log"):
        if read.dead.height:
            yield Rows(pl.DataFrame(), read.dead)
        kept.append(read.frame.filter(pl.col("time_stamp") < before_s).drop("_line"))
        rows += kept[-1].height
        if rows >= _BUFFERED:
            kept, rows = [_last(pl.concat(kept))], 0
    lists = (
        _last(pl.concat(kept))
        .group_by("user", maintain_order=True)
        .agg(viewed_categories=pl.col("cate").drop_nulls(), viewed_brands=pl.col("brand").drop_nulls())
    )
    yield Rows(lists, read.dead.clear())


def _last(behavior: pl.DataFrame) -> pl.DataFrame:
    """The last rows of each user, by user and time."""
    ordered = behavior.sort("user", "time_stamp", maintain_order=True)
    return ordered.filter(pl.int_range(pl.len(), 0, -1).over("user") <= HISTORY_ITEMS)
