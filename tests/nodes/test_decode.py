"""Decoding is strict, loses no line, and judges each line by itself."""

import json
import math
from itertools import pairwise

import polars as pl
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.app import App
from contracts.buckets import SEED
from contracts.events import DEAD_LETTERS
from contracts.odcs import Column, DataContract
from nodes.decode import Decoded, decode

#: Every type, required and not; names that are no Python names.
EVERY = DataContract(
    path="every.odcs.yaml",
    id="every",
    name="every",
    version="1",
    columns=(
        Column(name="opt-first", physical="string"),
        Column(name="class", physical="string", required=True),
        Column(name="n", physical="int64", required=True),
        Column(name="x", physical="double"),
        Column(name="flag", physical="boolean"),
        Column(name="tags", physical="list<string>"),
    ),
)
GOOD = b'{"class":"a","n":1}'
MAX = 200_000


def _decode(lines: list[bytes], contract: DataContract = EVERY, *, first_line: int = 0, limit: int = MAX) -> Decoded:
    return decode(lines, contract, stream="impressions", origin="f", first_line=first_line, max_event_bytes=limit)


def _line(**values: object) -> bytes:
    return json.dumps({"class": "a", "n": 1} | values).encode()


BAD = {
    "not UTF-8": (b'{"class":"\xff","n":1}', "not_utf8"),
    "a surrogate encoded as bytes": (b'{"class":"\xed\xa0\x80","n":1}', "not_utf8"),
    "not UTF-8 in a key": (b'{"class":"a","n":1,"\xff":1}', "not_utf8"),
    "a byte order mark": (b"\xef\xbb\xbf" + GOOD, "not_json"),
    "UTF-16": (GOOD.decode().encode("utf-16"), "not_utf8"),
    "truncated": (GOOD[:-1], "not_json"),
    "truncated in a string": (b'{"class":"a', "not_json"),
    "deeply nested arrays": (b"[" * 10_000, "wrong_type"),
    "deeply nested objects": (b'{"class":' * 10_000, "wrong_type"),
    "a deeply nested value": (b'{"class":"a","n":1,"tags":' + b"[" * 10_000 + b"]" * 10_000 + b"}", "wrong_type"),
    "a deeply nested unknown value": (b'{"class":"a","n":1,"z":' + b"[" * 10_000, "unknown_column"),
    "NaN": (b'{"class":"a","n":1,"x":NaN}', "not_finite"),
    "Infinity": (b'{"class":"a","n":1,"x":Infinity}', "not_finite"),
    "-Infinity": (b'{"class":"a","n":1,"x":-Infinity}', "not_finite"),
    "1e400": (b'{"class":"a","n":1,"x":1e400}', "out_of_range"),
    "-1e400": (b'{"class":"a","n":1,"x":-1e400}', "out_of_range"),
    "1e400 for an integer": (b'{"class":"a","n":1e400}', "out_of_range"),
    "2^63": (b'{"class":"a","n":9223372036854775808}', "out_of_range"),
    "-2^63 - 1": (b'{"class":"a","n":-9223372036854775809}', "out_of_range"),
    "2^64": (b'{"class":"a","n":18446744073709551616}', "out_of_range"),
    "an integer of 5000 digits": (b'{"class":"a","n":' + b"9" * 5000 + b"}", "out_of_range"),
    "a double of 5000 digits": (b'{"class":"a","n":1,"x":' + b"9" * 5000 + b"}", "out_of_range"),
    "required null": (_line(n=None), "missing"),
    "required absent": (b'{"class":"a"}', "missing"),
    "no column at all": (b"{}", "missing"),
    "string for integer": (_line(n="1"), "wrong_type"),
    "string for double": (_line(x="1.5"), "wrong_type"),
    "number for string": (b'{"class":1,"n":1}', "wrong_type"),
    "bool for integer": (_line(n=True), "wrong_type"),
    "bool for double": (_line(x=True), "wrong_type"),
    "integer for bool": (_line(flag=1), "wrong_type"),
    "string for bool": (_line(flag="true"), "wrong_type"),
    "1.0 for integer": (_line(n=1.0), "wrong_type"),
    "1e3 for integer": (b'{"class":"a","n":1e3}', "wrong_type"),
    "list for string": (b'{"class":["a"],"n":1}', "wrong_type"),
    "object for string": (b'{"class":{"a":1},"n":1}', "wrong_type"),
    "string for list": (_line(tags="a"), "wrong_type"),
    "null in a list": (_line(tags=["a", None]), "wrong_type"),
    "number in a list": (_line(tags=["a", 1]), "wrong_type"),
    "list in a list": (_line(tags=[["a"]]), "wrong_type"),
    "an unknown column": (_line(other=1), "unknown_column"),
    "an unknown null column": (_line(other=None), "unknown_column"),
    "another case": (_line(N=1), "unknown_column"),
    "too large": (_line(**{"class": "x" * MAX}), "too_large"),
    "an empty line": (b"", "empty"),
    "a line of blanks": (b" \t\r", "empty"),
    "an array": (b"[]", "wrong_type"),
    "an array of an event": (b"[" + GOOD + b"]", "wrong_type"),
    "a number": (b"123", "wrong_type"),
    "a string": (b'"x"', "wrong_type"),
    "null": (b"null", "wrong_type"),
    "two objects": (GOOD + GOOD, "not_json"),
    "two objects with a comma": (GOOD + b"," + GOOD, "not_json"),
    "two objects with a blank": (GOOD + b" " + GOOD, "not_json"),
    "a comma after": (GOOD + b",", "not_json"),
    "a NUL after": (GOOD + b"\x00", "not_json"),
    "a lone high surrogate": (b'{"class":"\\ud800","n":1}', "not_json"),
    "a lone low surrogate": (b'{"class":"\\udc00","n":1}', "not_json"),
    "surrogates the wrong way round": (b'{"class":"\\udc00\\ud800","n":1}', "not_json"),
    "a lone surrogate in a list": (b'{"class":"a","n":1,"tags":["\\ud800"]}', "not_json"),
    "a raw control character": (b'{"class":"a\tb","n":1}', "not_json"),
    "single quotes": (b"{'class':'a','n':1}", "not_json"),
    "a trailing comma": (b'{"class":"a","n":1,}', "not_json"),
    "a leading zero": (b'{"class":"a","n":01}', "not_json"),
    "a wrong type repeated right": (b'{"class":"a","n":"1","n":1}', "wrong_type"),
}


@pytest.mark.parametrize(("line", "reason"), BAD.values(), ids=BAD)
def test_a_bad_line_is_one_dead_letter_and_its_neighbours_live(line, reason):
    got = _decode([GOOD, line, b'{"class":"b","n":2}'], first_line=10)
    assert got.frame.select("class", "n", "_line").rows() == [("a", 1, 10), ("b", 2, 12)]
    assert got.dead.schema == pl.Schema(DEAD_LETTERS)
    [letter] = got.dead.rows(named=True)
    assert letter["reason"] == reason
    assert (letter["stream"], letter["origin"], letter["line"]) == ("impressions", "f", 11)
    assert (letter["raw"], letter["raw_bytes"]) == (line[:MAX], len(line))
    assert 0 < len(letter["detail"]) <= 200
    assert letter["detail"].isprintable()


def test_lines_that_would_be_json_together_are_bad_alone():
    lines = [b'{"class":"a",', b'"n":1}', GOOD, b"[", b"]", b'{"class":"a","n":1},{"class":"b"', b',"n":2}']
    got = _decode(lines)
    assert got.frame["_line"].to_list() == [2]
    assert got.dead["line"].to_list() == [0, 1, 3, 4, 5, 6]


def test_a_line_may_have_exactly_the_largest_size():
    assert _decode([GOOD], limit=len(GOOD)).frame.height == 1
    assert _decode([GOOD], limit=len(GOOD) - 1).dead["raw"].to_list() == [GOOD[:-1]]


def test_a_line_cut_by_its_reader_is_too_large_with_its_whole_length():
    got = decode(
        [GOOD, b"x" * 65], EVERY, stream="clicks", origin="f", first_line=0, max_event_bytes=64, whole_bytes={1: 10**7}
    )
    assert got.dead.select("reason", "raw_bytes").rows() == [("too_large", 10**7)]
    assert got.dead["raw"].to_list() == [b"x" * 64]


def test_the_detail_names_the_column_and_what_it_must_be():
    lines = [_line(n="1"), _line(tags=["a", None]), _line(n=None), _line(**{"y" * 5000: 1}), b"[]", _line(n=2**64)]
    assert _decode(lines).dead["detail"].to_list() == [
        "n must be int64, not str",
        "tags[1] must be string, not null",
        "n is required, but null",
        f"the contract has no column '{'y' * 64}'; do not send it",
        "an event must be a JSON object, not array",
        "n is a number that does not fit 64 bits",
    ]


def test_a_leaking_column_of_kuairand_is_refused(kuairand: App):
    line = b'{"impression_id":"i","event_time_ms":1650000000000,"user_id":"u","is_like":1}'
    got = _decode([line], kuairand.impressions)
    assert got.dead.select("reason", "detail").rows() == [
        ("unknown_column", "the contract has no column 'is_like'; do not send it")
    ]


def test_what_is_good_is_kept_to_the_last_bit():
    lines = [
        b'{"class":"a\\u0000b \\ud83d\\ude00 \xc3\xa9","n":-9223372036854775808,"x":1e-400,"flag":true,"tags":[]}',
        b' { "n" : 9223372036854775807 , "class" : "" , "x" : 3 , "tags" : null , "opt-first" : "o" } \r',
        b'{"class":"one","class":"two","n":1,"n":-0,"x":0.1,"flag":null,"tags":["p","q"]}',
    ]
    got = _decode(lines, first_line=5)
    assert got.dead.height == 0
    assert got.frame.select(column.name for column in EVERY.columns).rows() == [
        (None, "a\0b \U0001f600 é", -(2**63), 0.0, True, []),
        ("o", "", 2**63 - 1, 3.0, None, None),
        (None, "two", 0, 0.1, None, ["p", "q"]),
    ]


def test_the_frame_has_contract_columns_then_where_each_row_came_from():
    lines = [GOOD, b"", _line(n=2)]
    frame = _decode(lines, first_line=7).frame
    assert frame.schema == pl.Schema(
        {column.name: column.dtype for column in EVERY.columns}
        | {"_origin": pl.String(), "_line": pl.Int64(), "_hash": pl.UInt64()}
    )
    assert frame.select("_origin", "_line", "_hash").rows() == [
        ("f", 7, xxhash.xxh64_intdigest(lines[0], SEED)),
        ("f", 9, xxhash.xxh64_intdigest(lines[2], SEED)),
    ]


@pytest.mark.parametrize("lines", [[], [b""], [b"", b"x"]])
def test_nothing_good_gives_an_empty_frame_of_the_same_schema(lines):
    got = _decode(lines)
    assert got.frame.height == 0
    assert got.frame.schema == _decode([GOOD]).frame.schema
    assert got.dead.height == len(lines)


class _Nested:
    """Stands for an object anywhere in a line."""


def _refuse(token: str) -> None:
    raise ValueError(token)


def _number(text: str) -> float:
    if math.isinf(value := float(text)):
        raise ValueError(text)
    return value


_FITS = {
    "string": lambda value: isinstance(value, str),
    "int64": lambda value: type(value) is int and -(2**63) <= value < 2**63,
    "double": lambda value: type(value) in (int, float) and math.isfinite(float(value)),
    "boolean": lambda value: isinstance(value, bool),
    "list<string>": lambda value: isinstance(value, list) and all(isinstance(item, str) for item in value),
}


def _parse(line: bytes) -> dict[str, object]:
    """The event; ValueError, OverflowError or RecursionError where the line is bad."""
    pairs: list[tuple[str, object]] = []

    def top(found: list[tuple[str, object]]) -> _Nested:
        pairs[:] = found  # the outermost object closes last
        return _Nested()

    whole = json.loads(line.decode(), object_pairs_hook=top, parse_constant=_refuse, parse_float=_number)
    if not isinstance(whole, _Nested) or len(line) > MAX:
        raise ValueError("not an object, or too large")
    columns = {column.name: column for column in EVERY.columns}
    for name, value in pairs:
        if name not in columns:
            raise ValueError("unknown column")
        if value is None and columns[name].required:
            raise ValueError("missing")
        if value is not None and not _FITS[columns[name].physical](value):
            raise ValueError("wrong type")
        for text in value if isinstance(value, list) else [value]:
            str(text).encode()  # a lone surrogate cannot be written
    event = dict.fromkeys(columns) | dict(pairs)
    if any(event[column.name] is None for column in EVERY.columns if column.required):
        raise ValueError("missing")
    return event | {"x": None if event["x"] is None else float(event["x"])}


def _oracle(line: bytes) -> dict[str, object] | None:
    """The event, or None for a bad line: by the standard library's parser, one value at a time."""
    try:
        return _parse(line)
    except (ValueError, OverflowError, RecursionError):
        return None


_ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=5) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
_VALUES = {
    "class": st.text(max_size=6),
    "n": st.integers(-(2**63), 2**63 - 1),
    "x": st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(),
    "flag": st.none() | st.booleans(),
    "tags": st.none() | st.lists(st.text(max_size=3), max_size=3),
    "opt-first": st.none() | st.text(max_size=3),
}


@st.composite
def _lines(draw: st.DrawFn) -> bytes:
    """Mostly good lines, some with one thing wrong, some with bytes changed, some of noise."""
    event = {name: draw(values) for name, values in _VALUES.items()}
    how = draw(st.sampled_from(["good"] * 4 + ["value", "absent", "extra", "bytes", "twice", "json", "noise"]))
    if how == "value":
        event[draw(st.sampled_from(sorted(event)))] = draw(_ANY)
    elif how == "absent":
        del event[draw(st.sampled_from(sorted(event)))]
    elif how == "extra":
        event[draw(st.text(max_size=3))] = draw(_ANY)
    line = json.dumps(event, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")
    if how == "bytes":
        at = draw(st.integers(0, len(line)))
        line = line[:at] + draw(st.binary(max_size=3)) + line[at + draw(st.integers(0, 4)) :]
    elif how == "twice":
        line += draw(st.sampled_from([b"", b",", b" ", b"\r"])) + line
    elif how == "json":
        line = json.dumps(draw(_ANY)).encode()
    elif how == "noise":
        line = draw(st.binary(max_size=20))
    return line.replace(b"\n", b" ")


@settings(max_examples=150, deadline=None)
@given(lines=st.lists(_lines(), max_size=12), cuts=st.lists(st.integers(0, 12), max_size=3))
def test_every_line_is_accepted_or_dead_as_a_slow_parser_says_however_cut(lines, cuts):
    edges = sorted({0, len(lines), *(cut for cut in cuts if cut <= len(lines))})
    parts = [_decode(lines[a:b], first_line=a) for a, b in pairwise(edges)] or [_decode([])]
    frame, dead = pl.concat(part.frame for part in parts), pl.concat(part.dead for part in parts)
    wanted = [_oracle(line) for line in lines]
    assert frame["_line"].to_list() == [index for index, event in enumerate(wanted) if event is not None]
    assert dead["line"].to_list() == [index for index, event in enumerate(wanted) if event is None]
    names = [column.name for column in EVERY.columns]
    assert frame.select(names).rows(named=True) == [event for event in wanted if event is not None]
    assert dead["raw"].to_list() == [line for line, event in zip(lines, wanted, strict=True) if event is None]
    whole = _decode(lines)
    assert whole.frame.equals(frame)
    assert whole.dead.equals(dead)


def test_the_blocks_inside_a_chunk_do_not_show():
    lines = [b"" if n % 700 == 3 else _line(n=n, tags=[str(n)] * (n % 3)) for n in range(2500)]
    got = _decode(lines, first_line=100)
    assert got.dead["line"].to_list() == [100 + n for n in range(2500) if n % 700 == 3]
    good = [n for n in range(2500) if n % 700 != 3]
    assert got.frame.select("n", "_line").rows() == [(n, n + 100) for n in good]
    assert got.frame["tags"].to_list() == [[str(n)] * (n % 3) for n in good]
