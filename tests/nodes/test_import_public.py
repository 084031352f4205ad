"""The public logs: hand-written lines in their published layouts become the events that they tell of."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from contracts.app import App, load_app
from contracts.errors import ContractError
from deploy.commands.import_ import import_
from nodes.source import read_events
from tests.import_logs import AVAZU_HEADER, avazu_line, criteo_line, write_taobao


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def keeps_contracts(out: Path, app: App) -> None:
    """Ingest's own reader takes every event, in order, none late."""
    for stream in ("impressions", "clicks"):
        read = list(read_events(out / f"{stream}.ndjson", getattr(app, stream), app, stream))
        assert [part.dead.rows() for part in read if part.dead.height] == []
        assert not any(part.frame["_late"].any() for part in read)
        times = [row["event_time_ms"] for row in lines(out / f"{stream}.ndjson")]
        assert times == sorted(times)


def test_criteo_rows_keep_their_values_and_get_times_at_an_even_pace(tmp_path: Path) -> None:
    path = tmp_path / "train.txt"
    numbers = [None, -2, 5, *range(10)]
    path.write_text(criteo_line(1, numbers) + criteo_line(0, [0] * 13) + criteo_line(1, [None] * 13, [None] * 26))
    import_("criteo", [path], tmp_path / "out")
    shown = lines(tmp_path / "out" / "impressions.ndjson")
    app = load_app("criteo")
    assert [list(one) for one in shown] == [list(app.impressions.schema_)] * 3
    assert [shown[0][f"I{n}"] for n in range(1, 14)] == numbers
    assert [shown[0][f"C{n}"] for n in range(1, 27)] == [f"{n:08x}" for n in range(26)]
    assert {shown[2][f"C{n}"] for n in range(1, 27)} == {None}
    assert [one["event_time_ms"] - shown[0]["event_time_ms"] for one in shown] == [0, 13, 26]  # 6,548,659 a day
    clicks = lines(tmp_path / "out" / "clicks.ndjson")
    assert {one["impression_id"] for one in clicks} == {"train-0", "train-2"}
    keeps_contracts(tmp_path / "out", app)
    told = json.loads((tmp_path / "out" / "import.json").read_text())
    assert (told["impressions"], told["clicks"], told["requests"], told["dead_lettered"]) == (3, 2, 3, {})
    assert "made-up day" in told["event_time"]["note"]
    assert "drawn, not observed" in told["click_delay"]["note"]


def test_days_of_the_terabyte_log_follow_each_other_at_their_own_pace(tmp_path: Path) -> None:
    for day in (0, 1):
        text = "".join(criteo_line(n % 2, [n] * 13) for n in range(1000)).encode()
        (tmp_path / f"day_{day}.gz").write_bytes(gzip.compress(text))
    import_("criteo", [tmp_path / "day_0.gz", tmp_path / "day_1.gz"], tmp_path / "out", no_requests=True)
    shown = lines(tmp_path / "out" / "impressions.ndjson")
    assert [one["impression_id"] for one in shown[999:1001]] == ["day_0-999", "day_1-0"]
    start = shown[0]["event_time_ms"]
    wanted = [n * 86_400_000 // (4_373_472_329 // 24) for n in range(2000)]
    assert [one["event_time_ms"] - start for one in shown] == wanted
    assert not (tmp_path / "out" / "requests.ndjson").exists()


def test_bad_records_of_criteo_are_kept_with_their_reason(tmp_path: Path) -> None:
    path = tmp_path / "train.txt"
    good = criteo_line(1, [1] * 13)
    bad = ["0\t1\t2\n", good.replace("1", "2", 1), good.replace("\t1", "\tx", 1), good.replace("1", "", 1), "\n"]
    path.write_bytes((good + "".join(bad) + good).encode() + good.encode()[:-9] + b"\xff\n")
    import_("criteo", [path], tmp_path / "out")
    dead = pl.read_parquet(tmp_path / "out" / "dead_letters.parquet")
    assert dead.select("line", "reason").rows() == [
        (1, "ragged"), (2, "wrong_type"), (3, "wrong_type"), (4, "missing"), (5, "missing"), (7, "not_utf8"),
    ]  # fmt: skip
    assert dead["detail"][2] == "I1 must be a whole number"
    assert dead["raw"][0] == b"0\t1\t2"
    assert [one["impression_id"] for one in lines(tmp_path / "out" / "impressions.ndjson")] == ["train-0", "train-6"]
    told = json.loads((tmp_path / "out" / "import.json").read_text())
    assert told["dead_lettered"] == {"missing": 2, "not_utf8": 1, "ragged": 1, "wrong_type": 2}


def test_avazu_rows_are_spread_over_their_hour_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    rows = [avazu_line(0, 1, "14102100"), avazu_line(1, 0, "14102100", device_id="d1"), avazu_line(2, 0, "14102101")]
    path.write_text(AVAZU_HEADER + "".join(rows))
    import_("avazu", [path], tmp_path / "out")
    shown = lines(tmp_path / "out" / "impressions.ndjson")
    hour = 1_413_849_600_000  # 2014-10-21T00:00Z
    assert [one["event_time_ms"] for one in shown] == [hour, hour + 1_800_000, hour + 3_600_000]
    assert [one["user_id"] for one in shown] == ["ip-model", "d1", "ip-model"]
    assert [one["item_id"] for one in shown] == ["15706"] * 3
    assert [one["impression_id"] for one in shown] == ["1000", "1001", "1002"]
    assert "click" not in shown[0]
    assert [one["impression_id"] for one in lines(tmp_path / "out" / "clicks.ndjson")] == ["1000"]
    keeps_contracts(tmp_path / "out", load_app("avazu"))


def test_blocks_of_any_size_give_the_same_avazu_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "train.csv"
    hours = sorted(f"141021{n * n % 24:02d}" for n in range(60))
    path.write_text(AVAZU_HEADER + "".join(avazu_line(n, n % 3 == 0, hour) for n, hour in enumerate(hours)))
    import_("avazu", [path], tmp_path / "whole")
    for size in (500, 3000):
        monkeypatch.setattr("nodes.imports.delimited.BLOCK_BYTES", size)
        import_("avazu", [path], tmp_path / f"{size}")
        for name in ("impressions", "clicks", "requests"):
            made = (tmp_path / f"{size}" / f"{name}.ndjson").read_bytes()
            assert made == (tmp_path / "whole" / f"{name}.ndjson").read_bytes()


def test_an_avazu_log_that_goes_back_in_time_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text(AVAZU_HEADER + avazu_line(0, 0, "14102101") + avazu_line(1, 0, "14102100"))
    with pytest.raises(ContractError, match=r"record 3: its hour lies before"):
        import_("avazu", [path], tmp_path / "out")
    assert not list(tmp_path.glob("out/*"))


def test_taobao_rows_are_sorted_and_get_profile_ad_and_history(tmp_path: Path) -> None:
    write_taobao(tmp_path / "log")
    import_("taobao-ad", [tmp_path / "log"], tmp_path / "out")
    shown = lines(tmp_path / "out" / "impressions.ndjson")
    assert [one["impression_id"] for one in shown] == [
        "581738-1-1494137644-430548_1007", "914836-2-1494137700-430539_1007", "9-7-1494137702-430539_1007",
    ]  # fmt: skip
    assert shown[0] == {
        "impression_id": "581738-1-1494137644-430548_1007",
        "event_time_ms": 1_494_137_644_000,
        "user_id": "581738",
        "cms_segid": "0",
        "cms_group_id": "5",
        "gender": "2",
        "age_level": "5",
        "pvalue_level": None,
        "shopping_level": "3",
        "occupation": "0",
        "city_level": "3",
        "viewed_categories": ["6250", "4520"],
        "viewed_brands": ["91286"],
        "pid": "430548_1007",
        "item_id": "1",
        "cate_id": "6406",
        "campaign_id": "83237",
        "customer": "1",
        "brand": None,
        "price": 170.0,
    }
    assert (shown[2]["gender"], shown[2]["cate_id"], shown[2]["viewed_brands"]) == (None, None, None)
    assert [one["impression_id"] for one in lines(tmp_path / "out" / "clicks.ndjson")] == [shown[1]["impression_id"]]
    dead = pl.read_parquet(tmp_path / "out" / "dead_letters.parquet")
    assert sorted(dead.select("stream", "reason").rows()) == [
        ("ad_feature", "wrong_type"), ("raw_sample", "wrong_label"),
    ]  # fmt: skip
    keeps_contracts(tmp_path / "out", load_app("taobao-ad"))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        ["impressions.ndjson", "clicks.ndjson", "requests.ndjson", "import.json", "dead_letters.parquet"]
    )


def test_history_keeps_the_last_items_however_often_it_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_taobao(tmp_path / "log")
    behavior = [f"581738,{1493000000 + n * 37 % 100},pv,{n},{n}" for n in range(100)]
    (tmp_path / "log" / "behavior_log.csv").write_text("\n".join(["user,time_stamp,btag,cate,brand", *behavior]))
    wanted = [str(n) for n in sorted(range(100), key=lambda n: n * 37 % 100)[-20:]]
    for buffered in (8, 10**6):
        monkeypatch.setattr("nodes.imports.taobao_ad._BUFFERED", buffered)
        monkeypatch.setattr("nodes.imports.delimited.BLOCK_BYTES", 99)
        import_("taobao-ad", [tmp_path / "log"], tmp_path / f"{buffered}")
        assert lines(tmp_path / f"{buffered}" / "impressions.ndjson")[0]["viewed_categories"] == wanted


@pytest.mark.parametrize(
    ("log", "change", "complaint"),
    [
        (
            "criteo",
            lambda folder: (folder / "f").write_text("a,b,c\n" * 3),
            r"record 1: 1 fields, not 40, and none of 3",
        ),
        ("criteo", lambda folder: (folder / "f").write_text("a,b,c\n" * 5000), r"none of 5,000 records"),
        ("criteo", lambda folder: (folder / "f").write_bytes(b""), "is empty"),
        ("avazu", lambda folder: (folder / "f").write_text("id,click\n1,0\n"), "has no column 'hour'"),
        ("avazu", lambda folder: (folder / "f").write_text(AVAZU_HEADER), "no row to import"),
        ("taobao-ad", lambda folder: (folder / "f").write_text(""), "is none of raw_sample.csv"),
        ("kuairand", lambda folder: (folder / "f").write_text(""), "no such folder"),
    ],
)
def test_a_file_of_another_layout_is_one_sentence(
    tmp_path: Path, log: str, change: Callable[[Path], Any], complaint: str
) -> None:
    change(tmp_path)
    with pytest.raises(ContractError, match=complaint):
        import_(log, [tmp_path / "f"], tmp_path / "out")
    assert not list(tmp_path.glob("out/*"))


def test_taobao_needs_its_three_files_and_their_columns(tmp_path: Path) -> None:
    write_taobao(tmp_path / "log")
    (tmp_path / "log" / "ad_feature.csv").rename(tmp_path / "ads.csv")
    with pytest.raises(ContractError, match=r"ad_feature.csv is missing"):
        import_("taobao-ad", [tmp_path / "log"], tmp_path / "out")
    (tmp_path / "log" / "ad_feature.csv").write_text("adgroup_id,cate\n1,2\n")
    with pytest.raises(ContractError, match=r"ad_feature.csv: has no column 'cate_id'"):
        import_("taobao-ad", [tmp_path / "log"], tmp_path / "out")


def test_only_as_many_rows_as_were_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "train.txt"
    path.write_text("".join(criteo_line(n % 2, [n] * 13) for n in range(50)))
    import_("criteo", [path], tmp_path / "whole")
    import_("criteo", [path], tmp_path / "some", rows=20)
    whole = lines(tmp_path / "whole" / "impressions.ndjson")
    assert lines(tmp_path / "some" / "impressions.ndjson") == whole[:20]
    assert len(lines(tmp_path / "some" / "clicks.ndjson")) == 10


def test_clicks_come_in_order_of_their_times_however_the_log_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "train.txt"
    path.write_text("".join(criteo_line(n % 2, [n] * 13) for n in range(50)))  # 13 ms apart, clicked seconds later
    import_("criteo", [path], tmp_path / "whole")
    monkeypatch.setattr("nodes.imports.delimited.BLOCK_BYTES", 1000)
    import_("criteo", [path], tmp_path / "cut")
    times = [one["event_time_ms"] for one in lines(tmp_path / "cut" / "clicks.ndjson")]
    assert times == sorted(times)
    for name in ("impressions", "clicks", "requests"):
        made = [(tmp_path / out / f"{name}.ndjson").read_bytes() for out in ("whole", "cut")]
        assert made[0] == made[1]
