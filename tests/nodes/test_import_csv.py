"""Anyone's own log: a mapping says which column is which; what does not fit is told in one sentence, or kept aside."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from contracts.app import load_app
from contracts.errors import ContractError
from contracts.mapping import mapping_of
from deploy.commands.import_ import import_
from deploy.commands.init import write_app
from nodes.source import read_events
from tests.commands import refused, rocket

MAPPING = """label = "bought"
clicked = ["yes"]
not_clicked = ["no"]
click_time = "clicked at"
time_format = "%d.%m.%Y %H:%M:%S"
separator = ";"
null = ["", "n/a"]

[columns]
event_time_ms = "at"
user_id = "customer"
item_id = "sku"
price = "cost"
"""
HEADER = "customer;at;sku;device;cost;bought;clicked at\n"
GOOD = [
    "ann;02.01.2026 00:00:01;a1;tv;9.5;no;\n",
    'bob;01.01.2026 10:00:00;"a;2";tv;n/a;yes;01.01.2026 10:00:05\n',
    "ann;01.01.2026 10:00:00;a1;tv;3;yes;\n",
]
MIDNIGHT = 1_767_225_600_000  # 2026-01-01T00:00Z


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    write_app(tmp_path / "shop")
    (tmp_path / "map.toml").write_text(MAPPING)
    return tmp_path


def run(shop: Path, text: str, *mapping: str, mapped: bool = True) -> list[dict[str, Any]]:
    (shop / "log.csv").write_text(text)
    files = [str(shop / "map.toml")] if mapped else []
    import_("csv", [shop / "log.csv"], shop / "out", app_name=str(shop / "shop"), mapping=[*files, *mapping])
    return [json.loads(line) for line in (shop / "out" / "impressions.ndjson").read_text().splitlines()]


def test_a_log_of_ones_own_becomes_events_in_time_order(shop: Path) -> None:
    shown = run(shop, HEADER + "".join(GOOD))
    assert shown == [
        {"impression_id": "log-2", "event_time_ms": MIDNIGHT + 36_000_000, "user_id": "bob", "device": "tv",
         "item_id": "a;2", "price": None},
        {"impression_id": "log-3", "event_time_ms": MIDNIGHT + 36_000_000, "user_id": "ann", "device": "tv",
         "item_id": "a1", "price": 3.0},
        {"impression_id": "log-1", "event_time_ms": MIDNIGHT + 86_401_000, "user_id": "ann", "device": "tv",
         "item_id": "a1", "price": 9.5},
    ]  # fmt: skip
    clicks = [json.loads(line) for line in (shop / "out" / "clicks.ndjson").read_text().splitlines()]
    assert {one["impression_id"] for one in clicks} == {"log-2", "log-3"}
    observed = {one["impression_id"]: one["event_time_ms"] for one in clicks}["log-2"]
    assert observed == MIDNIGHT + 36_005_000
    told = json.loads((shop / "out" / "import.json").read_text())
    assert told["click_delay"]["drawn"] == 1
    app = load_app(shop / "shop")
    for stream in ("impressions", "clicks"):
        read = list(read_events(shop / "out" / f"{stream}.ndjson", getattr(app, stream), app, stream))
        assert sum(part.dead.height for part in read) == 0


def test_records_that_are_none_are_kept_with_their_reason(shop: Path) -> None:
    bad = [
        "ann;02.01.2026;a1;tv;9.5;no;\n",
        "ann;02.01.2026 00:00:01;a1;tv;dear;no;\n",
        "ann;02.01.2026 00:00:01;a1;tv;9.5;perhaps;\n",
        "ann;02.01.2026 00:00:01;a1;tv;9.5;yes;soon\n",
        ";02.01.2026 00:00:01;a1;tv;9.5;no;\n",
        "ann;02.01.1999 00:00:01;a1;tv;9.5;no;\n",
        "ann;02.01.2026 00:00:01\n",
        "ann;02.01.2026 00:00:01;a1;tv;-1;no;\n",
    ]
    shown = run(shop, HEADER + GOOD[0] + "".join(bad))
    assert [one["impression_id"] for one in shown] == ["log-1"]
    dead = pl.read_parquet(shop / "out" / "dead_letters.parquet")
    assert dead.select("line", "reason").rows() == [
        (2, "wrong_type"), (3, "wrong_type"), (4, "wrong_label"), (5, "wrong_type"), (6, "missing"), (7, "bad_time"),
        (8, "ragged"), (9, "below_minimum"),
    ]  # fmt: skip
    assert "device" in dead["raw"][3].decode()


@pytest.mark.parametrize("in_order", ["true", "false"])
def test_columns_of_one_name_need_no_mapping_and_units_are_turned_into_milliseconds(shop: Path, in_order: str) -> None:
    text = f"impression_id,event_time_ms,user_id,item_id,device,label\nx1,{MIDNIGHT // 1000},u,i,tv,1\n"
    shown = run(shop, text, "time_unit=s", f"in_order={in_order}", mapped=False)
    assert [(one["impression_id"], one["event_time_ms"]) for one in shown] == [("x1", MIDNIGHT)]
    with pytest.raises(ContractError, match=r"record 2: event_time_ms must lie from .*does time_unit fit\?"):
        run(shop, text, mapped=False)


def test_a_file_without_a_header_takes_names_from_the_mapping(shop: Path) -> None:
    text = f"u\t{MIDNIGHT}\ti\ttv\t0\n"
    names = "names=user_id,event_time_ms,item_id,device,label"
    assert [one["item_id"] for one in run(shop, text, names, r"separator=\t", mapped=False)] == ["i"]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["user=uid"], r"--map user=uid: 'user' is no column of the app and no setting; did you mean 'user_id'\?"),
        (["user_id=kunde"], r"has no column 'kunde' for user_id; known: .*customer"),
        (["label=buoght"], r"has no column 'buoght', which the mapping's label names; did you mean 'bought'\?"),
        (["separator=::"], r"--map separator=::: .*at most 1 character"),
        (["time_unit=days"], r"--map time_unit=days: .*give time_unit=VALUE"),
        (["nowhere.toml"], "nowhere.toml: cannot be read"),
    ],
)
def test_a_mapping_that_does_not_fit_is_one_sentence(shop: Path, options: list[str], complaint: str) -> None:
    with pytest.raises(ContractError, match=complaint):
        run(shop, HEADER + GOOD[0], *options)
    assert not list(shop.glob("out/*"))


def test_a_mapping_file_is_refused_by_line(shop: Path) -> None:
    (shop / "map.toml").write_text('label = "bought"\nseperator = ";"\n')
    with pytest.raises(ContractError, match=r"map.toml, line 2, key seperator: unknown key; did you mean 'separator'"):
        run(shop, HEADER + GOOD[0])
    (shop / "map.toml").write_text(MAPPING.replace("user_id", "userid"))
    with pytest.raises(ContractError, match=r"names 'userid', but .* has no such column; did you mean 'user_id'\?"):
        run(shop, HEADER + GOOD[0])


def test_a_required_column_that_nothing_gives_is_named(shop: Path) -> None:
    with pytest.raises(ContractError, match=r"nothing gives the required column 'device'; map it: --map device=COLUMN"):
        run(shop, HEADER.replace("device", "screen") + GOOD[0])


def test_later_options_win() -> None:
    made = mapping_of(["user_id=a", "user_id=b", "item_id=c", "label=x", "label=y"], ["user_id", "item_id"])
    assert (made.columns, made.label) == ({"user_id": "b", "item_id": "c"}, "y")


def test_the_command_needs_an_app_for_csv_and_no_mapping_for_others(shop: Path) -> None:
    (shop / "log.csv").write_text(HEADER)
    said = rocket("import", "csv", shop / "log.csv", "--out", shop / "out")
    assert "import csv needs the app" in refused(said)
    said = rocket("import", "criteo", shop / "log.csv", "--out", shop / "out", "--map", "a=b")
    assert "--map is for csv" in refused(said)
