"""A file of events is read without losing a line, and lateness is a property of the file alone."""

import dataclasses
import json
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts.app import App
from contracts.errors import ContractError
from contracts.events import DEAD_LETTERS, ORIGIN
from nodes.source import EventReader, Read, read_events

NOW = 1_700_000_000_000  # 14 November 2023
DISORDER_MS = 60_000


def _click(name: str, at_ms: object = NOW, **more: object) -> bytes:
    return json.dumps({"click_id": name, "impression_id": "i", "event_time_ms": at_ms} | more).encode()


def _with(app: App, **ingest: object) -> App:
    changed = app.config.ingest.model_copy(update=ingest)
    return dataclasses.replace(app, config=app.config.model_copy(update={"ingest": changed}))


def _read(path: Path, app: App) -> Read:
    parts = list(read_events(path, app.clicks, app, "clicks"))
    return Read(pl.concat(part.frame for part in parts), pl.concat(part.dead for part in parts))


def _judged(lines: list[bytes], app: App) -> Read:
    return EventReader(app.clicks, app, stream="clicks", origin="f").read(lines, first_line=0)


def test_a_file_is_read_in_chunks_of_contract_columns_and_origin(tmp_path: Path, adsim: App):
    path = tmp_path / "clicks.ndjson"
    path.write_bytes(b"\n".join(_click(f"c{n}", NOW + n) for n in range(5)))
    parts = list(read_events(path, adsim.clicks, _with(adsim, chunk_rows=2), "clicks"))
    assert [part.frame.height for part in parts] == [2, 2, 1]
    for part in parts:
        assert part.frame.schema == pl.Schema(adsim.clicks.schema_ | ORIGIN)
        assert part.dead.schema == pl.Schema(DEAD_LETTERS)
    frame = pl.concat(part.frame for part in parts)
    assert frame.select("click_id", "_origin", "_line", "_late").rows() == [
        (f"c{n}", str(path), n, False) for n in range(5)
    ]


@pytest.mark.parametrize(
    ("at_ms", "hint"),
    [
        (0, ""),
        (-1, ""),
        (4_070_908_800_000, ""),  # 2099
        (2**63 - 1, ""),
        (-(2**63), ""),
        (NOW * 1000, "; it looks like microseconds: divide by 1000"),
        (NOW * 1_000_000, "; it looks like nanoseconds: divide by 1000000"),
        (NOW // 1000, "; it looks like seconds: multiply by 1000"),
    ],
)
def test_an_implausible_time_is_a_dead_letter_that_moves_no_lateness(adsim: App, at_ms, hint):
    bad = _click("bad", at_ms)
    got = _judged([_click("a"), bad, _click("b", NOW - DISORDER_MS)], adsim)
    assert got.frame.select("click_id", "_late").rows() == [("a", False), ("b", False)]
    [letter] = got.dead.rows(named=True)
    assert letter == {
        "stream": "clicks",
        "origin": "f",
        "line": 1,
        "reason": "bad_time",
        "detail": f"event_time_ms must be epoch milliseconds from 2020-01-01 to 2039-12-31{hint}",
        "raw": bad,
        "raw_bytes": len(bad),
    }


def test_the_bounds_of_plausible_times_are_plausible(adsim: App):
    ingest = adsim.config.ingest
    edges = [round(ingest.event_time_min.timestamp() * 1000), round(ingest.event_time_max.timestamp() * 1000)]
    got = _judged([_click(f"c{at}", at) for edge in edges for at in (edge - 1, edge, edge + 1)], adsim)
    assert got.frame["_line"].to_list() == [1, 2, 3, 4]
    assert got.dead["line"].to_list() == [0, 5]


def test_an_event_is_late_only_when_further_behind_than_disorder(adsim: App):
    times = [NOW, NOW - DISORDER_MS, NOW - DISORDER_MS - 1, NOW + 5, NOW - DISORDER_MS + 4, NOW - DISORDER_MS + 5]
    got = _judged([_click(f"c{n}", at) for n, at in enumerate(times)], adsim)
    assert got.frame["_late"].to_list() == [False, False, True, False, True, False]


def test_a_row_that_breaks_another_rule_still_moves_the_newest_time(adsim: App):
    lines = [_click("a"), _click("x" * 65, NOW + 1 + DISORDER_MS), _click("b"), b"not json", _click("c", NOW + 1)]
    got = _judged(lines, adsim)
    assert got.frame.select("click_id", "_late").rows() == [("a", False), ("b", True), ("c", False)]
    assert got.dead.select("line", "reason").rows() == [(1, "too_long"), (3, "not_json")]


def test_a_dead_letter_is_not_late_too(adsim: App):
    lines = [_click("a"), _click("", NOW - 10 * DISORDER_MS)]
    got = _judged(lines, adsim)
    assert got.frame.height == 1
    assert got.dead.select("line", "reason", "detail").rows() == [
        (1, "too_short", "click_id must have at least 1 characters")
    ]
    assert got.dead["raw"].to_list() == [lines[1]]


def test_a_wrong_time_is_told_before_any_other_breach(adsim: App):
    assert _judged([_click("", NOW * 1000)], adsim).dead["reason"].to_list() == ["bad_time"]


def test_a_line_of_ten_megabytes_is_one_dead_letter_with_its_length(tmp_path: Path, adsim: App):
    path = tmp_path / "clicks.ndjson"
    big = _click("x" * 10_000_000)
    path.write_bytes(b"\n".join([_click("a"), big, _click("b")]))
    got = _read(path, adsim)
    assert got.frame["click_id"].to_list() == ["a", "b"]
    limit = adsim.config.ingest.max_event_bytes
    assert got.dead.select("line", "reason", "raw", "raw_bytes").rows() == [(1, "too_large", big[:limit], len(big))]


@pytest.mark.parametrize("content", [b"", b"\n", b"\n\n", b"{", b"\x00\xff\xfe\n\n{}", b"[]\r\n\r\n"])
def test_a_file_without_an_event_gives_one_dead_letter_a_line(tmp_path: Path, adsim: App, content):
    path = tmp_path / "clicks.ndjson"
    path.write_bytes(content)
    parts = list(read_events(path, adsim.clicks, adsim, "clicks"))
    lines = content.removesuffix(b"\n").split(b"\n") if content else []
    assert sum(part.frame.height for part in parts) == 0
    assert [raw for part in parts for raw in part.dead["raw"]] == lines


def test_windows_line_ends_and_a_missing_last_newline_are_fine(tmp_path: Path, adsim: App):
    path = tmp_path / "clicks.ndjson"
    path.write_bytes(_click("a") + b"\r\n" + _click("b"))
    assert _read(path, adsim).frame["click_id"].to_list() == ["a", "b"]


def test_a_missing_file_and_a_folder_are_contract_errors_before_the_first_read(tmp_path: Path, adsim: App):
    with pytest.raises(ContractError, match="no file of clicks there"):
        read_events(tmp_path / "none.ndjson", adsim.clicks, adsim, "clicks")
    with pytest.raises(ContractError, match="a folder, not a file of clicks"):
        read_events(tmp_path, adsim.clicks, adsim, "clicks")


def test_an_event_time_that_is_no_integer_is_a_contract_error(adsim: App):
    columns = tuple(
        column.model_copy(update={"physical": "double"}) if column.role == "event_time" else column
        for column in adsim.clicks.columns
    )
    with pytest.raises(ContractError, match="must be int64"):
        EventReader(adsim.clicks.model_copy(update={"columns": columns}), adsim, stream="clicks", origin="f")


_TIMES = st.integers(-200, 200).map(lambda seconds: NOW + seconds * 1000) | st.sampled_from([0, NOW * 1000])
_LINES = st.one_of(
    st.builds(_click, st.sampled_from(["a", "b", "x" * 65, ""]), _TIMES),
    st.builds(_click, st.just("a"), _TIMES),
    st.sampled_from([b"", b"{", b"\xff", b'{"click_id":"a"}']),
)


def _slow(lines: list[bytes]) -> tuple[list[tuple[int, bool]], list[int]]:
    """(line, late) of the good lines and the numbers of the dead ones, one line at a time."""
    newest, good, dead = None, [], []
    for number, line in enumerate(lines):
        try:
            event = json.loads(line)
            at, name = event["event_time_ms"], event["click_id"]
        except (ValueError, KeyError):
            dead.append(number)
            continue
        if not 1_577_836_800_000 <= at <= 2_208_902_400_000:
            dead.append(number)
            continue
        late = newest is not None and at < newest - DISORDER_MS
        newest = at if newest is None else max(newest, at)
        if 1 <= len(name) <= 64:
            good.append((number, late))
        else:
            dead.append(number)
    return good, dead


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(_LINES, max_size=25), chunk_rows=st.integers(1, 30))
def test_frame_and_dead_letters_partition_the_lines_and_no_cut_changes_lateness(
    tmp_path: Path, adsim: App, lines, chunk_rows
):
    path = tmp_path / "clicks.ndjson"
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    parts = list(read_events(path, adsim.clicks, _with(adsim, chunk_rows=chunk_rows), "clicks"))
    assert len(parts) == -(-len(lines) // chunk_rows)
    good, dead = _slow(lines)
    assert [row for part in parts for row in part.frame.select("_line", "_late").rows()] == good
    assert [line for part in parts for line in part.dead["line"]] == dead
    assert [raw for part in parts for raw in part.dead["raw"]] == [lines[number] for number in dead]
    for part in parts:
        assert part.frame["_line"].is_sorted()
        assert part.dead["line"].is_sorted()
