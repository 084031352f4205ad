"""One log with every kind of bad event among good ones, and one run of `rocket ingest` over it."""

import json
from dataclasses import dataclass
from pathlib import Path

from tests.commands import rocket
from tests.flows.ingest_files import START_MS, click, impression, write_lines

GOOD = 400
BIG = 10 << 20


def shown(number: int, *leave_out: str, **columns: object) -> bytes:
    row = json.loads(impression(number, number / 10, **columns))
    return json.dumps({name: value for name, value in row.items() if name not in leave_out}).encode()


def raw(column: str, value: bytes) -> bytes:
    """An impression with those bytes for a value."""
    return shown(1, **{column: "@"}).replace(b'"@"', value)


def clicked(**columns: object) -> bytes:
    return click(1, 1, 1, **columns)


#: What is wrong -> the line, the dead letter's reason, a part of its detail.
BAD_IMPRESSIONS: dict[str, tuple[bytes, str, str]] = {
    "not UTF-8": (raw("site", b'"\xff\xfe"'), "not_utf8", "not UTF-8"),
    "truncated": (shown(1)[:-20], "not_json", "ends within"),
    "deeply nested list": (raw("history", b"[" * 50_000 + b"]" * 50_000), "wrong_type", "history"),
    "deeply nested in an unknown column": (raw("deep", b'{"a":' * 9000 + b"1" + b"}" * 9000), "unknown_column", "deep"),
    "deeply nested from the start": (b"[" * 50_000, "wrong_type", "JSON object"),
    "NaN": (raw("bid", b"NaN"), "not_finite", "NaN"),
    "Infinity": (raw("bid", b"-Infinity"), "not_finite", "Infinity"),
    "1e400": (raw("bid", b"1e400"), "out_of_range", "bid"),
    "an integer beyond 64 bits": (raw("position", b"9223372036854775808"), "out_of_range", "position"),
    "a time beyond 64 bits": (raw("event_time_ms", b"1" + b"0" * 30), "out_of_range", "event_time_ms"),
    "required null": (shown(1, user_id=None), "missing", "user_id"),
    "required missing": (shown(1, "item_id"), "missing", "item_id"),
    "wrong type": (shown(1, position="1"), "wrong_type", "position"),
    "a boolean for a number": (shown(1, bid=True), "wrong_type", "bid"),
    "unknown column": (shown(1, is_click=1), "unknown_column", "is_click"),
    "a 10 MB string": (shown(1, site="x" * BIG), "too_large", "1048576"),
    "1970": (shown(1, event_time_ms=0), "bad_time", "event_time_ms"),
    "2099": (shown(1, event_time_ms=4_070_908_800_000), "bad_time", "event_time_ms"),
    "microseconds": (shown(1, event_time_ms=START_MS * 1000), "bad_time", "divide by 1000"),
    "seconds": (shown(1, event_time_ms=START_MS // 1000), "bad_time", "multiply by 1000"),
    "an empty line": (b"", "empty", "empty"),
    "not an object": (b"7", "wrong_type", "JSON object"),
    "below its minimum": (shown(1, position=0), "below_minimum", "position"),
    "a value that is not allowed": (shown(1, device="toaster"), "not_allowed", "device"),
}  # fmt: skip
BAD_CLICKS: dict[str, tuple[bytes, str, str]] = {
    "not UTF-8": (b"\x80" + clicked(), "not_utf8", "byte 0"),
    "truncated": (clicked()[:10], "not_json", "ends within"),
    "required null": (clicked(impression_id=None), "missing", "impression_id"),
    "wrong type": (clicked(click_id=7), "wrong_type", "click_id"),
    "unknown column": (clicked(price=1), "unknown_column", "price"),
    "a 10 MB string": (clicked(click_id="x" * BIG), "too_large", "1048576"),
    "microseconds": (clicked(event_time_ms=START_MS * 1000), "bad_time", "divide by 1000"),
    "a fraction of a millisecond": (clicked(event_time_ms=START_MS + 0.5), "wrong_type", "event_time_ms"),
}


@dataclass(frozen=True)
class Ingested:
    """One run of `rocket ingest` over every bad line at once, each between good ones."""

    out: Path
    impressions: Path
    clicks: Path
    lines: dict[tuple[str, str], int]  #: (stream, what is wrong) -> line number
    figures: dict


def planted(good: list[bytes], bad: dict[str, tuple[bytes, str, str]]) -> tuple[list[bytes], dict[str, int]]:
    """The good lines with a bad one behind every third; and where each bad one stands."""
    lines, where = [], {}
    rest = iter(bad.items())
    for number, line in enumerate(good):
        lines.append(line)
        if number % 3 == 0 and (one := next(rest, None)) is not None:
            where[one[0]] = len(lines)
            lines.append(one[1][0])
    assert next(rest, None) is None
    return lines, where


def ingest_bad_events(folder: Path) -> Ingested:
    """Write the log into a folder and ingest it there."""
    good = [shown(number) for number in range(GOOD)]
    rival = [shown(GOOD - 1, site="elsewhere"), shown(GOOD - 1)]  # the same id: another payload, and the same again
    clicks = [click(number, number, number / 10 + 1) for number in range(0, GOOD, 10)]
    lines, where = planted(good, BAD_IMPRESSIONS)
    impressions = write_lines(folder / "impressions.ndjson", lines + rival)
    lines, where_clicks = planted(clicks, BAD_CLICKS)
    clicks_file = write_lines(folder / "clicks.ndjson", lines)
    said = rocket("ingest", "--impressions", impressions, "--clicks", clicks_file, "--out", folder / "out", "--json")
    assert (said.code, "Traceback" in said.err) == (0, False), said.err
    at = {("impressions", name): line for name, line in where.items()}
    at |= {("clicks", name): line for name, line in where_clicks.items()}
    return Ingested(folder / "out", impressions, clicks_file, at, json.loads(said.out.splitlines()[-1]))
