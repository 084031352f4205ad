"""Where the KuaiRand-Pure log is read: parquet files with the history beside them, or the official CSVs."""

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from contracts.errors import ContractError, did_you_mean

HISTORY_ITEMS = 20  #: of each list in an impression: the last ones
_FIRST_DATE = 20220425  # in China, as the log has it; what came before is history
_CHINA_MS, _DAY_MS = 8 * 3_600_000, 86_400_000
_CSV_LOGS = ("log_standard_4_08_to_4_21_pure.csv", "log_standard_4_22_to_5_08_pure.csv")
_LOG: dict[str, pl.DataType] = {
    "user_id": pl.Int64(),
    "video_id": pl.Int64(),
    "date": pl.Int64(),
    "time_ms": pl.Int64(),
    "is_click": pl.Int64(),
    "duration_ms": pl.Float64(),
    "tab": pl.Int64(),
}
_NUMBERED = {f"onehot_feat{n}": pl.Float64() for n in range(12)}  # codes; the CSVs write some as 4.0
_FEEDBACK: dict[str, pl.DataType] = {"is_like": pl.Int64(), "long_view": pl.Int64()}  # of the days before, for history
_HISTORY = ("watched", "liked", "long_watched", "history_len", "long_watch_share", "like_share")
_USERS: dict[str, pl.DataType] = {
    "user_id": pl.Int64(),
    "user_active_degree": pl.String(),
    "follow_user_num_range": pl.String(),
    "fans_user_num_range": pl.String(),
    "friend_user_num_range": pl.String(),
    "register_days_range": pl.String(),
} | _NUMBERED
_VIDEOS: dict[str, pl.DataType] = {
    "video_id": pl.Int64(),
    "author_id": pl.Int64(),
    "tag": pl.String(),
    "upload_dt": pl.String(),
    "video_type": pl.String(),
    "upload_type": pl.String(),
    "music_type": pl.Float64(),
}
_SEQUENCES: dict[str, pl.DataType] = {
    "user_id": pl.Int64(),
    "history_len": pl.Int64(),
    "watch_seq": pl.List(pl.Int64()),
    "like_seq": pl.List(pl.Int64()),
    "long_watch_seq": pl.List(pl.Int64()),
}
_SHARE_ROWS = 5.0  # videos that the prior of a share is worth


@dataclass(frozen=True, slots=True)
class Source:
    """The log's rows in time order, and what is known of users and videos."""

    kind: str  #: parquet | csv
    rows: pl.DataFrame  #: user_id, video_id, time_ms, is_click, duration_ms, tab, impression_id
    users: pl.DataFrame  #: user_id, profile, history
    videos: pl.DataFrame

    def impressions(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Some of `rows` as impressions: every column of the contract, and no feedback."""
        day = (pl.col("time_ms") + _CHINA_MS) // _DAY_MS
        uploaded = pl.col("upload_dt").str.to_date("%Y-%m-%d", strict=False).cast(pl.Int32)
        code = [pl.col(name).cast(pl.Int64).cast(pl.String) for name in _NUMBERED]
        return (
            rows.join(self.users, on="user_id", how="left", maintain_order="left")
            .join(self.videos, on="video_id", how="left", maintain_order="left")
            .select(
                "impression_id",
                pl.col("time_ms").alias("event_time_ms"),
                pl.col("user_id").cast(pl.String),
                *(name for name in _USERS if name != "user_id" and name not in _NUMBERED),
                *code,
                *_HISTORY,
                pl.col("tab").cast(pl.String),
                pl.col("video_id").cast(pl.String).alias("item_id"),
                pl.col("author_id").cast(pl.String),
                "tag",
                pl.when(pl.col("duration_ms") > 0).then("duration_ms"),  # the log writes 0 for unknown
                (day - uploaded).cast(pl.Float64).alias("freshness_days"),
                "video_type",
                "upload_type",
                pl.col("music_type").cast(pl.Int64).cast(pl.String),
            )
        )


def open_source(folder: Path) -> Source:
    """Read the log of a folder, whichever of the two forms it has.

    Raises:
        ContractError: no log is there, a file is missing, or a column is missing or not of its type.
    """
    if not folder.is_dir():
        raise ContractError(f"{folder}: no such folder; give one with the KuaiRand-Pure log (see kuairand.com)")
    logs = sorted(folder.glob("log_*.parquet"))
    kind = "parquet" if logs else "csv"
    if not logs and not list(folder.glob("log_standard_*.csv")):
        raise ContractError(
            f"{folder}: holds neither log_*.parquet nor log_standard_*_pure.csv; "
            "give the folder of the KuaiRand-Pure log (see kuairand.com)"
        )
    users = _read(folder / f"user_features_pure.{kind}", _USERS)
    videos = _read(folder / f"video_features_basic_pure.{kind}", _VIDEOS)
    if kind == "parquet":
        rows = _checked(folder, pl.concat([_read(path, _LOG) for path in logs]))
        history = _kept(_read(folder / "user_sequences_before_0425.parquet", _SEQUENCES))
    else:
        every = pl.concat([_read(folder / name, _LOG | _FEEDBACK) for name in _CSV_LOGS])
        rows = _checked(folder, every.filter(pl.col("date") >= _FIRST_DATE))
        history = _history(every, rows)
    named = rows.select(
        *(name for name in _LOG if name != "date"),
        impression_id=pl.format("{}-{}-{}", "user_id", "video_id", "time_ms"),
    )
    return Source(
        kind,
        named.sort("time_ms", maintain_order=True),
        users.unique("user_id", keep="first").join(history, on="user_id", how="full", coalesce=True),
        videos.unique("video_id", keep="first"),
    )


def _history(every: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """Each user's videos before the first event, from the log itself."""
    before = every.filter(pl.col("date") < _FIRST_DATE, pl.col("time_ms") < rows["time_ms"].min())
    videos = pl.col("video_id")
    lists = (
        before.sort("time_ms", maintain_order=True)
        .group_by("user_id")
        .agg(
            history_len=pl.len(),
            watch_seq=videos,
            like_seq=videos.filter(pl.col("is_like") == 1),
            long_watch_seq=videos.filter(pl.col("long_view") == 1),
        )
    )
    return _kept(lists)


def _kept(lists: pl.DataFrame) -> pl.DataFrame:
    """The lists as an impression carries them."""

    def last(name: str) -> pl.Expr:
        return pl.col(name).list.tail(HISTORY_ITEMS).cast(pl.List(pl.String))

    def share(name: str, prior: float) -> pl.Expr:
        """How many of the videos before are in the list, smoothed."""
        watched, mine = (pl.col(each).list.len().cast(pl.Float64).fill_null(0) for each in ("watch_seq", name))
        return (mine + prior * _SHARE_ROWS) / (watched + _SHARE_ROWS)

    return lists.unique("user_id", keep="first").select(
        "user_id",
        watched=last("watch_seq"),
        liked=last("like_seq"),
        long_watched=last("long_watch_seq"),
        history_len=pl.col("history_len").cast(pl.Float64),
        long_watch_share=share("long_watch_seq", 0.4),
        like_share=share("like_seq", 0.02),
    )


def _read(path: Path, columns: dict[str, pl.DataType]) -> pl.DataFrame:
    """These columns of a file, with these types."""
    if not path.is_file():
        raise ContractError(f"{path}: is missing; the KuaiRand-Pure data set has it")
    try:
        lazy = pl.scan_parquet(path) if path.suffix == ".parquet" else pl.scan_csv(path, infer_schema=False)
        found = lazy.collect_schema().names()
        for name in columns:
            if name not in found:
                raise ContractError(f"{path}: has no column '{name}'; {did_you_mean(name, found)}")
        return lazy.select(pl.col(name).cast(dtype) for name, dtype in columns.items()).collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise ContractError(
            f"{path}: is not as in KuaiRand-Pure ({' '.join(str(error).split())[:200]}); download it again"
        ) from error


def _checked(folder: Path, rows: pl.DataFrame) -> pl.DataFrame:
    """The rows, if they are what every event needs."""
    if not rows.height:
        raise ContractError(f"{folder}: the log has no row from 25 April 2022 on; give all files of KuaiRand-Pure")
    for name in ("user_id", "video_id", "time_ms", "is_click", "tab"):
        if rows[name].null_count():
            raise ContractError(f"{folder}: {rows[name].null_count()} log rows have no {name}; download the log again")
    if not rows["is_click"].is_between(0, 1).all():
        raise ContractError(f"{folder}: is_click is neither 0 nor 1 in some log rows; download the log again")
    return rows
