"""The types of ad requests, made from the app's contract, and what their parser complains of."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Annotated, Any

import msgspec

from contracts.odcs import Column
from contracts.serving import Problem

_TYPES: dict[str, Any] = {
    "string": str,
    "int64": Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)],
    "double": float,
    "boolean": bool,
    "list<string>": list[str],
}


@dataclass(frozen=True)
class RequestPart:
    """The msgspec type of one object of a request, and how its values are taken out."""

    struct: type[msgspec.Struct]
    get: Callable[[Any], tuple[Any, ...]]
    nothing: tuple[Any, ...]


def struct_of(name: str, columns: Sequence[Column]) -> RequestPart:
    """The type of an object with these columns; numbered fields are renamed, so that a column may have any name."""
    fields = [
        (f"f{number}", _TYPES[c.physical]) if c.required else (f"f{number}", _TYPES[c.physical] | None, None)
        for number, c in enumerate(columns)
    ]
    fields.sort(key=len)  # those without a default come first
    struct = msgspec.defstruct(
        name.capitalize(),
        fields,
        rename={f"f{number}": c.name for number, c in enumerate(columns)},
        forbid_unknown_fields=True,
        gc=False,  # its values hold no cycle
    )
    names = [f"f{number}" for number in range(len(columns))]
    if len(names) > 1:
        return RequestPart(struct, attrgetter(*names), (None,) * len(names))
    one = attrgetter(*names) if names else None
    return RequestPart(struct, lambda row: (one(row),) if one else (), (None,) * len(names))


def request_of(made: dict[str, RequestPart], candidate: Any) -> type[msgspec.Struct]:
    """The type of a whole request: `contracts.serving.AdRequest` with the app's columns inside."""
    return msgspec.defstruct(
        "Request",
        [
            ("id", str),
            ("event_time_ms", _TYPES["int64"]),
            ("user", made["user"].struct),
            ("context", made["context"].struct),
            ("candidates", list[candidate]),
            ("tmax", _TYPES["int64"] | None, None),
        ],
        forbid_unknown_fields=True,
    )


def problem_of(error: Exception) -> Problem:
    """The code of what the parser says.

    >>> problem_of(msgspec.ValidationError("Object missing required field `x`")).code
    'missing'
    """
    said = " ".join(str(error).split())[:300]
    if isinstance(error, RecursionError):
        return Problem("not_json", "the request is nested too deeply")
    if isinstance(error, UnicodeDecodeError):
        return Problem("not_utf8", "the request is not UTF-8")
    if not isinstance(error, msgspec.ValidationError):
        return Problem("not_json", said)
    if "missing required field" in said or "got `null`" in said:
        return Problem("missing", said)
    if "unknown field" in said:
        return Problem("unknown_column", re.sub("field", "column", said))
    if "out of range" in said:
        return Problem("not_finite", said)
    if "Expected `int` <=" in said or "Expected `int` >=" in said:
        return Problem("out_of_range", said)
    return Problem("wrong_type", said)
