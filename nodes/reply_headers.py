"""What the headers of a request ask of its answer: Spring's request/reply, CloudEvents, W3C trace context.

kafka_correlationId            comes back as it is
kafka_replyTopic               where the answer goes, where that is allowed
traceparent, tracestate        passed on
ce_*                           the answer is then a CloudEvent, too: of its own id, type, source and time
"""

from collections.abc import Collection
from datetime import UTC, datetime
from uuid import NAMESPACE_URL, uuid5

from contracts.stores import Record

CORRELATION_ID = "kafka_correlationId"
REPLY_TOPIC = "kafka_replyTopic"
RESPONSE_TYPE = "ctr.response.v1"
_PASSED_ON = frozenset({CORRELATION_ID, REPLY_TOPIC, "traceparent", "tracestate"})
_MAX_HEADER_BYTES = 4096

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
    kept = tuple((name, asked[name]) for name in asked if name in _PASSED_ON)
    return tuple(sorted(kept)) + (_cloud_event(asked, app, at_ms) if "ce_id" in asked else ())


def asked_elsewhere(request: Record, allowed: Collection[str]) -> str | None:
    """The topic that a request wants its answer on though it may not; None where all is well.

    >>> asked_elsewhere(Record(None, b"", (("kafka_replyTopic", b"mine"),)), {"ctr.responses.v1"})
    'mine'
    """
    topic = next((value for name, value in request.headers if name == REPLY_TOPIC), None)
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
    )
