"""A refusal says what is wrong in one short sentence."""

import msgspec
import pytest

from nodes.refuse import refusal


@pytest.mark.parametrize(
    ("line", "error", "refused"),
    [
        (b"[[", RecursionError("maximum recursion depth exceeded"), ("not_json", "the JSON is nested too deeply")),
        (b"{}", msgspec.ValidationError("something new"), ("wrong_type", "something new")),
        (
            b"\xef\xbb\xbf{}",
            msgspec.DecodeError("JSON is malformed: invalid character (byte 0)"),
            ("not_json", "the line starts with a byte order mark; write UTF-8 without one"),
        ),
        (b"\xff", msgspec.ValidationError("any"), ("not_utf8", "byte 0 is not UTF-8")),
        (
            b"",
            msgspec.DecodeError("Input data was truncated"),
            ("empty", "the line is empty; write one JSON object a line"),
        ),
        (
            b"-x",
            msgspec.DecodeError("JSON is malformed: invalid character (byte 1)"),
            ("not_json", "JSON is malformed: invalid character (byte 1)"),
        ),
    ],
)
def test_each_error_has_a_code_and_a_sentence(line, error, refused):
    assert refusal(line, error) == refused


def test_an_unknown_error_is_cut_short():
    assert len(refusal(b"{}", msgspec.ValidationError("x" * 10_000))[1]) == 160
