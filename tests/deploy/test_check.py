"""`rocket check`: exit 0 on a good file, 1 and a table on a bad one, and no value of a file in what it says."""

import json
from pathlib import Path

import jsonschema
import polars as pl
import pytest
import yaml
from typer.testing import CliRunner

from contracts.app import App, load_app
from contracts.asyncapi import asyncapi
from contracts.errors import ContractError
from deploy.commands import check
from flows import check as flow

_DATA = Path(__file__).parents[1] / "data"
_STREAMS = ("impressions", "clicks", "requests")


def _run(*options: str, app: str = "adsim"):
    return CliRunner().invoke(check.app, ["--app", app, "--json", *options])


def _said(done) -> dict:
    return json.loads(done.stdout.splitlines()[-1])


def _files(app: str, kind: str) -> list[str]:
    return [word for stream in _STREAMS for word in (f"--{stream}", str(_DATA / app / f"{kind}.{stream}.ndjson"))]


@pytest.mark.parametrize("app", ["adsim", "kuairand"])
def test_the_good_files_pass(app: str) -> None:
    done = _run(*_files(app, "good"), app=app)
    assert done.exit_code == 0, done.output
    said = _said(done)
    assert said["ok"]
    for stream in _STREAMS:
        found = said["files"][stream]
        assert (found["lines"], found["good"], found["breaches"], found["disagreements"]) == (20, 20, [], 0)
        assert found["gx_rows"] >= 20
        assert found["gx_expectations"] >= 7


def _lines(found: dict, by: set[str]) -> dict:
    return {(one["rule"], one["column"]): one["first_lines"] for one in found["breaches"] if one["by"] in by}


#: (rule, column) -> lines, as planted by hand in the bad files
_PLANTED = {
    "impressions": {
        ("missing", "user_id"): [3], ("bad_time", "event_time_ms"): [6], ("too_short", "user_id"): [7],
        ("too_long", "item_id"): [8], ("wrong_type", "user_id"): [10], ("not_json", None): [12],
        ("unknown_column", None): [13], ("not_finite", None): [14], ("not_utf8", None): [15],
    },
    "clicks": {
        ("missing", "impression_id"): [2], ("too_short", "click_id"): [4], ("wrong_type", "event_time_ms"): [5],
        ("bad_time", "event_time_ms"): [7], ("too_long", "impression_id"): [9], ("empty", None): [11],
        ("unknown_column", None): [12], ("out_of_range", "event_time_ms"): [14], ("missing", "click_id"): [15],
    },
    "requests": {
        ("too_short", "item_id"): [3], ("no_candidates", None): [4], ("below_minimum", "tmax"): [5],
        ("below_minimum", "event_time_ms"): [6], ("not_json", None): [10], ("too_long", "id"): [12],
        ("too_long", "user_id"): [13],
    },
}  # fmt: skip
_OWN = {
    "adsim": {
        ("below_minimum", "position"): [4], ("not_allowed", "device"): [5, 18], ("above_maximum", "bid"): [9],
        ("too_long", "history"): [11], ("missing", "category"): [16],
    },
    "kuairand": {
        ("below_minimum", "duration_ms"): [4], ("too_long", "tab"): [5, 18], ("above_maximum", "freshness_days"): [9],
        ("too_long", "watched"): [11], ("missing", "tab"): [16],
    },
}  # fmt: skip


@pytest.mark.parametrize("app", ["adsim", "kuairand"])
def test_every_breach_planted_in_the_bad_files_is_found_on_its_line(app: str) -> None:
    done = _run(*_files(app, "bad"), app=app)
    assert done.exit_code == 1
    said = _said(done)
    assert not said["ok"]
    for stream in _STREAMS:
        found = said["files"][stream]
        lines = {
            (b["rule"], b["column"]): b["first_lines"] for b in found["breaches"] if b["by"] in {"decode", "polars"}
        }
        expected = _PLANTED[stream] | (_OWN[app] if stream == "impressions" else {})
        assert {key: lines.get(key) for key in expected} == expected
        assert found["disagreements"] == 0
        assert found["good"] < 20
    by_gx = {
        (b["rule"], b["column"]): b["first_lines"] for b in said["files"]["impressions"]["breaches"] if b["by"] == "gx"
    }
    assert by_gx["expect_column_values_to_be_between", "event_time_ms"] == [6]
    assert by_gx["expect_column_value_lengths_to_be_between", "item_id"] == [8]


@pytest.mark.parametrize("stream", _STREAMS)
def test_each_bad_file_alone_is_enough_to_fail(stream: str) -> None:
    assert _run(f"--{stream}", str(_DATA / "adsim" / f"bad.{stream}.ndjson")).exit_code == 1


def test_the_table_names_rules_and_lines_but_quotes_no_value(tmp_path: Path) -> None:
    event = {"click_id": "canary" * 20, "impression_id": "canary", "event_time_ms": 1_700_000_000_000}
    (tmp_path / "clicks.ndjson").write_text(json.dumps(event) + "\n" + json.dumps(event | {"click_id": 7}) + "\n")
    done = CliRunner().invoke(check.app, ["--clicks", str(tmp_path / "clicks.ndjson")], env={"COLUMNS": "200"})
    assert done.exit_code == 1
    assert "too_long" in done.stdout
    assert "click_id must be string, not int" in done.stdout
    assert "expect_column_value_lengths_to_be_between" in done.stdout
    assert "canary" not in done.output


def test_a_repeated_id_is_a_note_and_with_strict_a_breach() -> None:
    path = str(_DATA / "adsim" / "bad.clicks.ndjson")
    assert any("repeat an id" in note for note in _said(_run("--clicks", path))["files"]["clicks"]["notes"])
    strict = _said(_run("--clicks", path, "--strict"))["files"]["clicks"]
    rules = {breach["rule"]: breach for breach in strict["breaches"]}
    assert rules["repeated_id"]["first_lines"] == [16]
    assert "expect_column_values_to_be_unique" in rules
    assert strict["disagreements"] == 0


def test_an_empty_file_does_not_pass_and_a_missing_one_is_told(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    for stream in _STREAMS:
        done = _run(f"--{stream}", str(tmp_path / "empty"))
        assert done.exit_code == 1
        assert "no_rows" in {breach["rule"] for breach in _said(done)["files"][stream]["breaches"]}
        missing = _run(f"--{stream}", str(tmp_path / "none"))
        assert isinstance(missing.exception, ContractError)
        assert f"no such file of {stream}" in str(missing.exception)


def test_great_expectations_sees_a_sample_and_the_polars_check_every_row(tmp_path: Path, adsim: App) -> None:
    event = {"click_id": "c", "impression_id": "i", "event_time_ms": 1_700_000_000_000}
    lines = [json.dumps(event | {"click_id": f"c{n}" if n != 777 else ""}) for n in range(1000)]
    path = tmp_path / "clicks.ndjson"
    path.write_text("\n".join(lines))
    small = load_app("adsim", {"ingest": {"chunk_rows": 64}})
    said = [flow.run(app, {"clicks": path}, gx_rows=100)["files"]["clicks"] for app in (adsim, small)]
    assert said[0] == said[1]  # the same sample however the file is cut
    assert (said[0]["gx_rows"], said[0]["lines"], said[0]["good"]) == (100, 1000, 999)
    assert _lines(said[0], {"polars"}) == {("too_short", "click_id"): [778]}


def test_checkers_that_disagree_fail_the_check(monkeypatch: pytest.MonkeyPatch, adsim: App) -> None:
    monkeypatch.setattr(flow, "reasons", lambda contract: pl.lit("broken", pl.String))
    said = flow.run(adsim, {"clicks": _DATA / "adsim" / "good.clicks.ndjson"})
    assert not said["ok"]
    assert said["files"]["clicks"]["disagreements"] == 20
    assert said["files"]["clicks"]["breaches"][0]["rule"] == "checkers_disagree"


def test_without_files_the_app_itself_is_checked(tmp_path: Path) -> None:
    done = _run()
    assert done.exit_code == 0
    assert _said(done)["schema_id"] == load_app("adsim").schema_id
    shown = CliRunner().invoke(check.app, ["--app", "kuairand"], env={"COLUMNS": "160"})
    assert "watched_videos" in shown.stdout
    assert isinstance(_run("--set", "train.sed=1").exception, ContractError)


def test_docs_are_written_from_the_contracts(tmp_path: Path) -> None:
    done = _run("--write-docs", str(tmp_path / "docs"))
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in (tmp_path / "docs").iterdir()) == [
        "asyncapi.yaml", "clicks.schema.json", "impressions.schema.json", "requests.schema.json",
    ]  # fmt: skip
    assert yaml.safe_load((tmp_path / "docs" / "asyncapi.yaml").read_text()) == asyncapi(load_app("adsim"))
    jsonschema.Draft202012Validator.check_schema(json.loads((tmp_path / "docs" / "requests.schema.json").read_text()))
