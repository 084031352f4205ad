"""The KuaiRand importer: every row becomes an event, no feedback becomes a column."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from contracts.app import App
from contracts.errors import ContractError
from nodes.import_kuairand import import_kuairand
from nodes.source import read_events

MIDNIGHT = 1_650_816_000_000  # 25 April 2022 in China
#: What the user did after the video was shown: never known when it is to be shown.
FEEDBACK = {
    "is_click", "is_like", "is_follow", "is_comment", "is_forward", "is_hate", "long_view", "play_time_ms",
    "profile_stay_time", "comment_stay_time", "is_profile_enter", "watch_ratio", "finish", "like", "long_watch",
    "is_positive",
}  # fmt: skip
LOG = "user_id video_id date hourmin time_ms is_click is_like is_follow is_comment is_forward is_hate long_view "
LOG += "play_time_ms duration_ms profile_stay_time comment_stay_time is_profile_enter is_rand tab"


def row(user: int, video: int, at: int, clicked: int, *, day: int = 25, liked: int = 0) -> dict[str, Any]:
    """A log row `at` ms after midnight of 25 April."""
    values = dict.fromkeys(LOG.split(), 1)
    date = 20220400 + day
    known = {"user_id": user, "video_id": video, "date": date, "time_ms": MIDNIGHT + at, "is_click": clicked}
    return values | known | {"is_like": liked, "long_view": liked, "duration_ms": 9000, "tab": 1}


ROWS = [
    row(1, 10, 5_000, 1),
    row(1, 10, 5_000, 0),  # a repeat that disagrees
    row(1, 11, 70_000, 0),
    row(2, 10, 6_000, 1),
    row(2, 10, 6_000, 1),  # a repeat, clicked again
    row(3, 12, 500_000, 1),  # a user and a video that nothing is known of
]
PAST = [
    row(1, 7, -3_000_000, 0, day=24),
    row(1, 8, -4_000_000, 1, day=24, liked=1),
    row(2, 9, -2_000_000, 1, day=24, liked=1),
]


def users() -> pl.DataFrame:
    one_hot = {f"onehot_feat{n}": [1.0, None] for n in range(18)}
    ranges = ["user_active_degree", "follow_user_num_range", "fans_user_num_range", "friend_user_num_range"]
    return pl.DataFrame(
        {"user_id": [1, 2], **{name: ["x", "y"] for name in [*ranges, "register_days_range"]}, **one_hot}
    )


def videos() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "video_id": [10, 11],
            "author_id": [100, 110],
            "video_type": ["NORMAL", "AD"],
            "upload_dt": ["2022-04-20", "2022-04-24"],
            "upload_type": ["Web", None],
            "music_type": [9.0, None],
            "tag": ["39,68", None],
        }
    )


@pytest.fixture
def parquet(tmp_path: Path) -> Path:
    folder = tmp_path / "parquet"
    folder.mkdir()
    pl.DataFrame(ROWS[3:]).write_parquet(folder / "log_0501_0504.parquet")
    pl.DataFrame(ROWS[:3]).write_parquet(folder / "log_0425_0430.parquet")
    users().write_parquet(folder / "user_features_pure.parquet")
    videos().write_parquet(folder / "video_features_basic_pure.parquet")
    pl.DataFrame(
        {
            "user_id": [1, 2],
            "history_len": [2, 1],
            "watch_seq": [[8, 7], [9]],
            "like_seq": [[8], [9]],
            "long_watch_seq": [[8], [9]],
        }
    ).write_parquet(folder / "user_sequences_before_0425.parquet")
    return folder


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    folder = tmp_path / "csv"
    folder.mkdir()
    pl.DataFrame(PAST).write_csv(folder / "log_standard_4_08_to_4_21_pure.csv")
    pl.DataFrame(ROWS).write_csv(folder / "log_standard_4_22_to_5_08_pure.csv")
    users().write_csv(folder / "user_features_pure.csv")
    videos().write_csv(folder / "video_features_basic_pure.csv")
    return folder


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_every_row_becomes_an_impression_and_every_clicked_row_a_click(parquet: Path, tmp_path: Path) -> None:
    made = import_kuairand(parquet, tmp_path / "out")
    shown, clicks = (lines(tmp_path / "out" / f"{name}.ndjson") for name in ("impressions", "clicks"))
    assert (made["impressions"], made["clicks"], made["requests"]) == (6, 4, 4)
    assert [one["impression_id"] for one in shown] == [
        *[f"1-10-{MIDNIGHT + 5_000}"] * 2,
        *[f"2-10-{MIDNIGHT + 6_000}"] * 2,
        f"1-11-{MIDNIGHT + 70_000}",
        f"3-12-{MIDNIGHT + 500_000}",
    ]
    assert sorted(one["click_id"] for one in clicks) == [
        f"1-10-{MIDNIGHT + 5_000}-c1",
        f"2-10-{MIDNIGHT + 6_000}-c1",
        f"2-10-{MIDNIGHT + 6_000}-c2",
        f"3-12-{MIDNIGHT + 500_000}-c1",
    ]
    assert [one["event_time_ms"] for one in clicks] == sorted(one["event_time_ms"] for one in clicks)
    times = {one["impression_id"]: one["event_time_ms"] for one in shown}
    assert all(one["event_time_ms"] > times[one["impression_id"]] for one in clicks)
    assert shown[4] | {"watched": None} == {
        "impression_id": f"1-11-{MIDNIGHT + 70_000}",
        "event_time_ms": MIDNIGHT + 70_000,
        "user_id": "1",
        "user_active_degree": "x",
        "follow_user_num_range": "x",
        "fans_user_num_range": "x",
        "friend_user_num_range": "x",
        "register_days_range": "x",
        **{f"onehot_feat{n}": "1" for n in range(12)},
        "watched": None,
        "liked": ["8"],
        "long_watched": ["8"],
        "history_len": 2.0,
        "long_watch_share": 3 / 7,
        "like_share": 1.1 / 7,
        "tab": "1",
        "item_id": "11",
        "author_id": "110",
        "tag": None,
        "duration_ms": 9000.0,
        "freshness_days": 1.0,
        "video_type": "AD",
        "upload_type": None,
        "music_type": None,
    }
    assert shown[4]["watched"] == ["8", "7"]
    assert (shown[5]["watched"], shown[5]["author_id"], shown[5]["user_active_degree"]) == (None, None, None)


def test_csvs_give_the_events_that_the_parquet_files_give(parquet: Path, csv: Path, tmp_path: Path) -> None:
    import_kuairand(parquet, tmp_path / "a")
    import_kuairand(csv, tmp_path / "b")
    for name in ("impressions.ndjson", "clicks.ndjson", "requests.ndjson"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_history_of_the_csvs_ends_before_the_first_event(csv: Path, tmp_path: Path) -> None:
    beyond = row(1, 99, 5_000, 1, day=24, liked=1)  # dated 24 April, but after the first event
    pl.DataFrame([*PAST, beyond]).write_csv(csv / "log_standard_4_08_to_4_21_pure.csv")
    import_kuairand(csv, tmp_path / "out")
    assert all("99" not in (one["watched"] or []) for one in lines(tmp_path / "out" / "impressions.ndjson"))


def test_no_feedback_reaches_an_impression_and_the_contract_refuses_it(
    parquet: Path, tmp_path: Path, kuairand: App
) -> None:
    import_kuairand(parquet, tmp_path / "out")
    path = tmp_path / "out" / "impressions.ndjson"
    shown = lines(path)
    assert all(list(one) == list(kuairand.impressions.schema_) for one in shown)
    assert not FEEDBACK & set(shown[0])
    path.write_text("".join(json.dumps(shown[0] | {name: 1}) + "\n" for name in sorted(FEEDBACK)))
    dead = pl.concat([read.dead for read in read_events(path, kuairand.impressions, kuairand, "impressions")])
    assert dead["reason"].to_list() == ["unknown_column"] * len(FEEDBACK)


def test_events_keep_their_contracts(parquet: Path, tmp_path: Path, kuairand: App) -> None:
    import_kuairand(parquet, tmp_path / "out")
    for stream, contract, rows in (("impressions", kuairand.impressions, 6), ("clicks", kuairand.clicks, 4)):
        read = list(read_events(tmp_path / "out" / f"{stream}.ndjson", contract, kuairand, stream))
        assert sum(part.dead.height for part in read) == 0
        assert sum(part.frame.height for part in read) == rows
        assert not any(part.frame["_late"].any() for part in read)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_delays(parquet: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        import_kuairand(parquet, tmp_path / name, seed=seed)
    a, b, c = ((tmp_path / name / "clicks.ndjson").read_bytes() for name in "abc")
    assert a == b != c
    assert (tmp_path / "a" / "impressions.ndjson").read_bytes() == (tmp_path / "c" / "impressions.ndjson").read_bytes()
    told = json.loads((tmp_path / "c" / "import.json").read_text())
    assert told["seed"] == 2
    assert "drawn, not observed" in told["click_delay"]["note"]


def test_requests_are_not_cut_where_chunks_are(parquet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import_kuairand(parquet, tmp_path / "a")
    monkeypatch.setattr("nodes.import_kuairand._CHUNK_ROWS", 1)
    import_kuairand(parquet, tmp_path / "b")
    for name in ("impressions.ndjson", "requests.ndjson"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("log_standard_4_08_to_4_21_pure.csv", None, r"4_21_pure.csv: is missing"),
        ("user_features_pure.csv", None, r"user_features_pure.csv: is missing"),
        ("video_features_basic_pure.csv", b"video_id,author\n1,2\n", r"no column 'author_id'"),
        ("log_standard_4_22_to_5_08_pure.csv", b"", r"is not as in KuaiRand-Pure"),
        ("log_standard_4_22_to_5_08_pure.csv", b"\x00\xff\xfe garbage", r"no column|is not as in KuaiRand-Pure"),
        ("user_features_pure.csv", b"user_id\nseven\n", r"no column|is not as in KuaiRand-Pure"),
    ],
)
def test_missing_and_broken_files_are_named(
    csv: Path, tmp_path: Path, name: str, content: bytes | None, complaint: str
) -> None:
    (csv / name).unlink()
    if content is not None:
        (csv / name).write_bytes(content)
    with pytest.raises(ContractError, match=complaint):
        import_kuairand(csv, tmp_path / "out")
    assert not list(tmp_path.glob("out/*.ndjson"))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"time_ms": "soon"}, "is not as in KuaiRand-Pure"),
        ({"is_click": 2}, "is_click is neither 0 nor 1"),
        ({"user_id": None}, "log rows have no user_id"),
    ],
)
def test_broken_values_are_refused(csv: Path, tmp_path: Path, change: dict[str, Any], complaint: str) -> None:
    rows = [ROWS[0], ROWS[1] | change]
    pl.DataFrame(rows, strict=False, infer_schema_length=None).with_columns(
        **{name: pl.Series([rows[0][name], value], strict=False, dtype=pl.String) for name, value in change.items()}
    ).write_csv(csv / "log_standard_4_22_to_5_08_pure.csv")
    with pytest.raises(ContractError, match=complaint):
        import_kuairand(csv, tmp_path / "out")


def test_a_truncated_parquet_file_is_named(parquet: Path, tmp_path: Path) -> None:
    path = parquet / "log_0425_0430.parquet"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ContractError, match=r"log_0425_0430.parquet: is not as in KuaiRand-Pure"):
        import_kuairand(parquet, tmp_path / "out")


def test_a_folder_without_a_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="no such folder"):
        import_kuairand(tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(ContractError, match="holds neither"):
        import_kuairand(tmp_path, tmp_path / "out")


def test_a_log_of_the_past_alone_is_refused(csv: Path, tmp_path: Path) -> None:
    pl.DataFrame(PAST).write_csv(csv / "log_standard_4_22_to_5_08_pure.csv")
    with pytest.raises(ContractError, match="no row from 25 April 2022 on"):
        import_kuairand(csv, tmp_path / "out")


def test_the_real_log_gives_an_event_for_every_row(kuairand_dir: Path, tmp_path: Path) -> None:
    made = import_kuairand(kuairand_dir, tmp_path)
    shown = pl.scan_ndjson(tmp_path / "impressions.ndjson", infer_schema_length=1000)
    ids = shown.select("impression_id", "event_time_ms").collect()
    assert (ids.height, ids["impression_id"].n_unique()) == (171_671, 166_932)
    assert ids["event_time_ms"].is_sorted()
    clicks = pl.read_ndjson(tmp_path / "clicks.ndjson")
    assert clicks.height == made["clicks"] == 76_099
    assert clicks["click_id"].is_unique().all()
    delay = clicks["event_time_ms"] - clicks["impression_id"].str.split("-").list.get(2).cast(pl.Int64)
    assert delay.min() >= 1
    assert (delay <= 600_000).mean() > 0.999
    with (tmp_path / "requests.ndjson").open("rb") as requests:
        assert sum(1 for _ in requests) == made["requests"]


def test_the_command_says_what_it_wrote(parquet: Path, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from deploy.commands.import_ import app

    told = CliRunner().invoke(app, ["kuairand", str(parquet), "--out", str(tmp_path / "out"), "--seed", "3", "--json"])
    assert told.exit_code == 0
    assert json.loads(told.stdout.splitlines()[-1])["seed"] == 3
    assert "6 impressions, 4 clicks (delays drawn, not observed) and 4 requests" in told.stderr


def test_an_unknown_log_is_refused_with_a_suggestion(tmp_path: Path) -> None:
    from deploy.commands.import_ import import_

    with pytest.raises(ContractError, match=r"no importer for 'kuairandom'; did you mean 'kuairand'\?"):
        import_("kuairandom", [tmp_path], tmp_path / "out")
