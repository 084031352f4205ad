"""Requests made from impressions."""

import json
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from contracts.app import App
from contracts.errors import ContractError
from contracts.rowcheck import reasons
from nodes.requests import requests_from, write_requests
from tests.random_rows import random_impressions

MINUTE = 1_651_000_020_000


def shown(app: App, *rows: tuple[str, int, str, str, str]) -> pl.DataFrame:
    """Impressions of the kuairand app: id, ms within the minute, user, tab, item."""
    given = pl.DataFrame(rows, ["impression_id", "event_time_ms", "user_id", "tab", "item_id"], orient="row")
    rest = [pl.lit(None, c.dtype).alias(c.name) for c in app.impressions.columns if c.name not in given.columns]
    return given.with_columns(pl.col("event_time_ms") + MINUTE, *rest).select(list(app.impressions.schema_))


def items(line: str) -> list[str]:
    return [candidate["item_id"] for candidate in json.loads(line)["candidates"]]


def test_one_request_holds_what_one_user_saw_in_one_minute_and_context(kuairand: App) -> None:
    made = requests_from(
        shown(
            kuairand,
            ("i1", 5, "u1", "1", "a"),
            ("i2", 10, "u2", "1", "b"),
            ("i3", 59_999, "u1", "1", "c"),
            ("i4", 20, "u1", "2", "d"),
            ("i5", 60_000, "u1", "1", "e"),
        ),
        kuairand,
    )
    assert [items(line) for line in made.lines] == [["a", "c"], ["b"], ["d"], ["e"]]
    first = json.loads(made.lines[0])
    assert first["event_time_ms"] == MINUTE + 5
    assert (first["user"], first["context"]) == ({"user_id": "u1"}, {"tab": "1"})
    where = {row["impression_id"]: (row["request_id"], row["candidate"]) for row in made.asked.to_dicts()}
    assert where["i1"] == (first["id"], 0)
    assert where["i3"] == (first["id"], 1)
    assert len({request for request, _ in where.values()}) == 4


def test_the_same_impressions_give_the_same_requests_in_any_order_of_other_users(kuairand: App) -> None:
    rows = [("i1", 5, "u1", "1", "a"), ("i2", 10, "u2", "1", "b"), ("i3", 11, "u1", "1", "c")]
    one, other = (requests_from(shown(kuairand, *order), kuairand) for order in (rows, [rows[1], rows[0], rows[2]]))
    assert one.lines.to_list() == other.lines.to_list()


def test_a_repeated_impression_is_asked_for_once(kuairand: App) -> None:
    made = requests_from(shown(kuairand, ("i1", 5, "u1", "1", "a"), ("i1", 5, "u1", "1", "a")), kuairand)
    assert [items(line) for line in made.lines] == [["a"]]
    assert made.asked.height == 1


def test_an_id_that_comes_again_at_another_time_is_another_impression(kuairand: App) -> None:
    made = requests_from(shown(kuairand, ("i1", 5, "u1", "1", "a"), ("i1", 120_000, "u1", "1", "b")), kuairand)
    assert [items(line) for line in made.lines] == [["a"], ["b"]]
    assert made.asked.select("impression_id", "event_time_ms").rows() == [("i1", MINUTE + 5), ("i1", MINUTE + 120_000)]


def test_a_request_holds_no_more_candidates_than_are_served(kuairand: App) -> None:
    serving = kuairand.config.serving.model_copy(update={"max_candidates": 2})
    small = replace(kuairand, config=kuairand.config.model_copy(update={"serving": serving}))
    made = requests_from(shown(kuairand, *((f"i{n}", n, "u1", "1", f"v{n}") for n in range(5))), small)
    assert [items(line) for line in made.lines] == [["v0", "v1"], ["v2", "v3"], ["v4"]]
    assert made.asked["candidate"].to_list() == [0, 1, 0, 1, 0]
    assert made.lines.str.json_path_match("$.id").n_unique() == 3


def test_only_columns_of_the_requests_contract_are_carried(kuairand: App, adsim: App) -> None:
    for app in (kuairand, adsim):
        frame = random_impressions(app, 50, seed=1).with_columns(secret=pl.lit("x"))
        for line in requests_from(frame, app).lines:
            request = json.loads(line)
            assert set(request) == {"id", "event_time_ms", "user", "context", "candidates"}
            for part, objects in (("user", [request["user"]]), ("candidates", request["candidates"])):
                names = [column.name for column in app.requests.columns if column.within == part]
                assert all(list(one) == names for one in objects)


def test_requests_keep_their_contract(adsim: App, kuairand: App) -> None:
    for app in (adsim, kuairand):
        made = requests_from(random_impressions(app, 500, seed=2), app)
        rows = []
        for line in made.lines:
            request = json.loads(line)
            rows += [
                {"id": request["id"], "event_time_ms": request["event_time_ms"]}
                | request["user"]
                | request["context"]
                | candidate
                for candidate in request["candidates"]
            ]
        flat = pl.DataFrame(rows, schema=app.requests.schema_)
        assert flat.select(reason=reasons(app.requests))["reason"].drop_nulls().to_list() == []
        assert flat.height == 500


def test_a_missing_column_is_named(kuairand: App) -> None:
    with pytest.raises(ContractError, match=r"need the column 'item_id'.*did you mean 'item'"):
        requests_from(shown(kuairand, ("i1", 5, "u1", "1", "a")).rename({"item_id": "item"}), kuairand)


def test_no_impressions_give_no_requests(kuairand: App, tmp_path: Path) -> None:
    asked = write_requests(shown(kuairand, ("i", 0, "u", "1", "a")).clear(), kuairand, tmp_path / "requests.ndjson")
    assert asked.height == 0
    assert (tmp_path / "requests.ndjson").read_bytes() == b""


def test_written_requests_are_one_a_line(kuairand: App, tmp_path: Path) -> None:
    frame = shown(kuairand, ("i1", 5, "u\n1\u2028", "1", 'a"\\'), ("i2", 5, "u2", "1", "b"))
    asked = write_requests(frame, kuairand, tmp_path / "requests.ndjson")
    lines = (tmp_path / "requests.ndjson").read_bytes().split(b"\n")
    assert len(lines) == 3
    assert {json.loads(line)["user"]["user_id"] for line in lines[:2]} == {"u\n1\u2028", "u2"}
    assert asked["impression_id"].sort().to_list() == ["i1", "i2"]
