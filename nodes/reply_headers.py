"""What the headers of a request ask of its answer: Spring's request/reply, CloudEvents, W3C trace context.

kafka_correlationId            comes back as it is
kafka_replyTopic               where the answer goes, where that is allowed
traceparent, tracestate        passed on where the first is valid (W3C Trace Context, 3.2), else both are left out
ce_*                           the answer is then a CloudEvent, too: of its own id, type, source and time;
                               ce_traceparent and ce_tracestate (its tracing extension) as those without ce_
"""

import re
from collections.abc import Collection
from datetime import UTC, datetime
from uuid import NAMESPACE_URL, uuid5

from contracts.stores import Record

CORRELATION_ID = "kafka_correlationId"
REPLY_TOPIC = "kafka_replyTopic"
RESPONSE_TYPE = "ctr.response.v1"
TRACEPARENT = "traceparent"
_PASSED_ON = frozenset({CORRELATION_ID, REPLY_TOPIC})
_MAX_HEADER_BYTES = 4096
# version ff is forbidden, a version after 00 may say more after the four parts, and neither id may be all zeros
_TRACEPARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_MAX_TRACEPARENT = 512

Headers = tuple[tuple[str, bytes], ...]


def reply_headers(request: Record, *, app: str, at_ms: int) -> Headers:
    """Headers of the answer; what is too large to be meant is left out, and each name comes once.

    Args:
        request: whose headers ask for it.
        app: names the answer's source.
        at_ms: when the answer was made, epoch milliseconds.

    >>> asked = Record(None, b"{}", (("kafka_correlationId", b"7"), ("cookie", b"x")))
    >>> reply_headers(asked, app="adsim", at_ms=0)
    (('kafka_correlationId', b'7'),)
    """
    asked = dict(reversed([(n, v) for n, v in request.headers if len(v) <= _MAX_HEADER_BYTES]))  # the first one wins
    kept = [(name, asked[name]) for name in asked if name in _PASSED_ON]
    kept += _trace(asked, "")
    return tuple(sorted(kept)) + (_cloud_event(asked, app, at_ms) if "ce_id" in asked else ())


def header_of(record: Record, name: str) -> bytes | None:
    """The value of a record's header, of the first where several have the name; None: it has none.

    >>> header_of(Record(None, b"", (("a", b"1"), ("a", b"2"))), "a")
    b'1'
    """
    return next((value for each, value in record.headers if each == name), None)


def traceparent_of(request: Record) -> str | None:
    """The trace that a request belongs to; None where it names none that is valid.

    >>> at = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    >>> traceparent_of(Record(None, b"", (("traceparent", at),)))
    '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01'
    >>> traceparent_of(Record(None, b"", (("traceparent", b"00-0-0-01"),)))
    """
    given = header_of(request, TRACEPARENT)
    return given.decode() if given is not None and valid_traceparent(given) else None


def valid_traceparent(value: bytes) -> bool:
    """Whether a W3C trace parent is one: others must not be passed on.

    >>> valid_traceparent(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
    True
    >>> valid_traceparent(b"00-00000000000000000000000000000000-00f067aa0ba902b7-01")
    False
    """
    size = len(value)
    if not 55 <= size <= _MAX_TRACEPARENT or (size > 55 and (value[:2] == b"00" or value[55:56] != b"-")):
        return False
    return _TRACEPARENT.fullmatch(value[:55]) is not None and value.isascii()


def _trace(asked: dict[str, bytes], prefix: str) -> list[tuple[str, bytes]]:
    """Both headers of a trace, or none: a state belongs to its parent."""
    parent, state = prefix + TRACEPARENT, prefix + "tracestate"
    if not valid_traceparent(asked.get(parent, b"")):
        return []
    return [(name, asked[name]) for name in (parent, state) if name in asked]


def asked_elsewhere(request: Record, allowed: Collection[str]) -> str | None:
    """The topic that a request wants its answer on though it may not; None where all is well.

    >>> asked_elsewhere(Record(None, b"", (("kafka_replyTopic", b"mine"),)), {"ctr.responses.v1"})
    'mine'
    """
    topic = header_of(request, REPLY_TOPIC)
    if topic is None:
        return None
    name = topic[:_MAX_HEADER_BYTES].decode("utf-8", "replace")
    return None if name in allowed else name


def _cloud_event(asked: dict[str, bytes], app: str, at_ms: int) -> Headers:
    """Attributes of the answer; a repeated answer has the same id, as CloudEvents want it."""
    of = asked.get("ce_source", b"").decode("utf-8", "replace") + " " + asked["ce_id"].decode("utf-8", "replace")
    when = datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return (
        ("ce_specversion", b"1.0"),
        ("ce_id", str(uuid5(NAMESPACE_URL, of)).encode()),
        ("ce_type", RESPONSE_TYPE.encode()),
        ("ce_source", f"/rocket/{app}/serve".encode()),
        ("ce_time", when.encode()),
        ("content-type", b"application/json"),
        *_trace(asked, "ce_"),
    )
