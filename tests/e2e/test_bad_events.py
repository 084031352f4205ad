"""Bad events at the level of the command: each is one counted dead letter, and the good ones live."""

import json
from pathlib import Path

import pytest

from contracts.app import App
from tests.bad_events import BAD_CLICKS, BAD_IMPRESSIONS, GOOD, Ingested
from tests.commands import refused, rocket, scaffold
from tests.flows.ingest_files import dead_letters, example_rows, fates, write_lines

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize(
    ("stream", "what"),
    [("impressions", what) for what in BAD_IMPRESSIONS] + [("clicks", what) for what in BAD_CLICKS],
)
def test_a_bad_event_is_one_dead_letter_with_reason_raw_bytes_and_origin(
    ingested: Ingested, stream: str, what: str
) -> None:
    given, reason, detail = (BAD_IMPRESSIONS if stream == "impressions" else BAD_CLICKS)[what]
    line = ingested.lines[stream, what]
    (letter,) = dead_letters(ingested.out).filter(stream=stream, line=line).rows(named=True)
    assert letter["reason"] == reason
    assert detail in letter["detail"]
    assert letter["origin"] == str(ingested.impressions if stream == "impressions" else ingested.clicks)
    assert (letter["raw"], letter["raw_bytes"]) == (given[: 1 << 20], len(given))
    (fate,) = fates(ingested.out).filter(stream=stream, line=line).rows(named=True)
    assert (fate["fate"], fate["reason"]) == ("dead_lettered", reason)


def test_every_good_event_among_the_bad_ones_lives_and_every_event_is_counted_once(
    ingested: Ingested, adsim: App
) -> None:
    figures = ingested.figures
    streams = figures["streams"]
    assert streams["impressions"] == {
        "read": GOOD + 2 + len(BAD_IMPRESSIONS), "accepted": GOOD, "duplicate": 2, "late": 0, "orphan": 0,
        "dead_lettered": len(BAD_IMPRESSIONS),
    }  # fmt: skip
    assert streams["clicks"] == {
        "read": GOOD // 10 + len(BAD_CLICKS), "accepted": GOOD // 10, "duplicate": 0, "late": 0, "orphan": 0,
        "dead_lettered": len(BAD_CLICKS),
    }  # fmt: skip
    assert (figures["examples"], figures["sampled_out"], figures["waiting"]) == (GOOD, 0, 0)
    rows = example_rows(ingested.out, adsim)
    assert rows.sort("event_time_ms")["impression_id"].to_list() == [f"i{number}" for number in range(GOOD)]
    assert rows["label"].sum() == GOOD // 10
    assert fates(ingested.out).height == figures["impressions_read"] + figures["clicks_read"]
    assert dead_letters(ingested.out).height == figures["dead_lettered"]


def test_the_same_id_with_another_payload_is_a_counted_duplicate(ingested: Ingested) -> None:
    same_id = fates(ingested.out).filter(stream="impressions", id=f"i{GOOD - 1}")
    assert sorted(same_id["fate"]) == ["accepted", "duplicate", "duplicate"]
    assert "other_payload" in same_id["reason"].to_list()


def test_check_names_the_same_bad_lines_and_exits_1(ingested: Ingested) -> None:
    said = rocket("check", "--impressions", ingested.impressions, "--clicks", ingested.clicks, "--json")
    found = json.loads(said.out.splitlines()[-1])["files"]
    assert (said.code, "Traceback" in said.err) == (1, False)
    for stream, bad in (("impressions", BAD_IMPRESSIONS), ("clicks", BAD_CLICKS)):
        assert found[stream]["lines"] - found[stream]["good"] == len(bad)


def test_an_empty_file_gives_no_example_and_no_error(tmp_path: Path, ingested: Ingested) -> None:
    empty = write_lines(tmp_path / "empty.ndjson", [])
    said = rocket("ingest", "--impressions", empty, "--clicks", empty, "--out", tmp_path / "out", "--json")
    figures = json.loads(said.out.splitlines()[-1])
    assert (said.code, figures["impressions_read"], figures["examples"]) == (0, 0, 0)
    assert "holds no examples" in refused(
        rocket("train", "--examples", tmp_path / "out/examples", "--checkpoints", tmp_path / "c")
    )
    for name in ("impressions", "clicks"):
        write_lines(tmp_path / "events" / f"{name}.ndjson", [])
    whole = rocket("demo", "--app", scaffold(tmp_path / "mine"), "--data", tmp_path / "events", "--out", tmp_path / "d")
    assert (whole.code, whole.err.splitlines()[-1].startswith("rocket: ")) == (1, True)
    assert "settled no example" in whole.err
