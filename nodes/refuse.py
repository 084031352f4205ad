"""Why a line was refused: a code and one sentence, from the decoder's error."""

import re

_BOM = b"\xef\xbb\xbf"
_NOT_FINITE = re.compile(rb"NaN|Infinity")
_AT_BYTE = re.compile(r"\(byte (\d+)\)$")
_PLACE = re.compile(r" - at `\$\.?(.*)`$", re.DOTALL)
_WRONG_TYPE = re.compile(r"Expected `([^`]+)`, got `([^`]+)`")
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.*)`", re.DOTALL)
#: What the decoder calls a type -> what a contract calls it.
_CALLED = {"str": "string", "int": "int64", "float": "double", "bool": "boolean", "array": "list<string>"}


def refusal(line: bytes, error: Exception) -> tuple[str, str]:
    """The dead letter's code and its detail; the detail never echoes more than a column name of the line.

    Args:
        line: the raw bytes that were refused.
        error: what `msgspec.json.decode` raised for them.

    >>> import msgspec
    >>> try:
    ...     msgspec.json.decode(b'{"a": "x"', type=dict[str, str])
    ... except msgspec.MsgspecError as error:
    ...     refusal(b'{"a": "x"', error)
    ('not_json', 'the line ends within its JSON')
    """
    if not line.strip():
        return "empty", "the line is empty; write one JSON object a line"
    try:
        line.decode()
    except UnicodeDecodeError as bad:
        return "not_utf8", f"byte {bad.start} is not UTF-8"
    if line.startswith(_BOM):
        return "not_json", "the line starts with a byte order mark; write UTF-8 without one"
    if isinstance(error, RecursionError):
        return "not_json", "the JSON is nested too deeply"
    text = str(error)
    return _malformed(line, text) or _misfit(text)


def _malformed(line: bytes, text: str) -> tuple[str, str] | None:
    if "truncated" in text:
        return "not_json", "the line ends within its JSON"
    if not text.startswith("JSON is malformed"):
        return None
    at = _AT_BYTE.search(text)
    start = int(at.group(1)) if at else 0
    if _NOT_FINITE.match(line, start):
        return "not_finite", f"byte {start}: NaN and Infinity are not JSON; leave the column out or send null"
    return "not_json", text[:160]


def _misfit(text: str) -> tuple[str, str]:
    if unknown := _UNKNOWN.match(text):
        return "unknown_column", f"the contract has no column {unknown.group(1)[:64]!a}; do not send it"
    if missing := _MISSING.match(text):
        return "missing", f"{missing.group(1)} is required"
    place = _PLACE.search(text)
    where = place.group(1)[:80] if place and place.group(1) else ""
    if "out of range" in text or "Expected `int` <=" in text or "Expected `int` >=" in text:
        return "out_of_range", f"{where} is a number that does not fit 64 bits"
    if wrong := _WRONG_TYPE.match(text):
        wanted, got = wrong.group(1), wrong.group(2)
        if not where:
            return "wrong_type", f"an event must be a JSON object, not {got}"
        if got == "null" and "[" not in where:
            return "missing", f"{where} is required, but null"
        kind = _CALLED.get(wanted.removesuffix(" | null"), wanted)
        return "wrong_type", f"{where} must be {kind}, not {got}"
    return "wrong_type", text[:160]
