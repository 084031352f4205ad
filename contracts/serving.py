"""What a scorer is asked, and what it answers: messages, and every code of an error."""

from typing import Any, Literal

import msgspec

#: Why a request, or one candidate of it, got no scores: the code -> when. A refused candidate says "code: detail".
CODES = {
    "too_large": "the request has more bytes than serving.max_request_bytes; unread, so without an id",
    "not_utf8": "its bytes are not UTF-8",
    "not_json": "they are not JSON, or nested too deeply; an empty message, too",
    "missing": "a required column is absent or null: the id, the item's, the user's",
    "unknown_column": "a column that the contract does not have",
    "wrong_type": "a value of another type than the contract's, such as a number in quotes",
    "out_of_range": "an integer beyond 64 bits",
    "not_finite": "a number that is NaN, infinite or beyond 64 bits",
    "below_minimum": "a number below the contract's minimum: a tmax of 0",
    "above_maximum": "a number above the contract's maximum",
    "too_short": "a text or list shorter than the contract's minimum: an empty id",
    "too_long": "a text or list longer than the contract's maximum",
    "pattern": "a text that does not match the contract's pattern",
    "not_allowed": "a value that is not one of the contract's",
    "bad_value": "a feature refuses the value",
    "no_candidates": "the request names no candidate",
    "too_many_candidates": "more candidates than serving.max_candidates",
    "reply_topic_refused": "its answer may not go to the topic that it names; serving.reply_topics lists those allowed",
    "answer_refused": "the answer is too large for its topic",
    "overloaded": "there are too many requests before it for its deadline; it was not scored",
}

#: What a decoder may raise on bytes from outside.
UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError)
_LONGEST_ID = 256


def echoed(text: object) -> str | None:
    """An id that may be said again though its request is refused: one of at most 256 characters, else None.

    >>> echoed("r1"), echoed("x" * 257), echoed(7)
    ('r1', None, None)
    """
    return text if isinstance(text, str) and len(text) <= _LONGEST_ID else None


class AdRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Who is looking, and which ads may be shown. The columns inside are the app's (`requests.odcs.yaml`)."""

    id: str
    event_time_ms: int
    user: dict[str, Any]
    context: dict[str, Any]
    candidates: list[dict[str, Any]]
    tmax: int | None = None  #: ms from the record's timestamp


class Score(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One candidate's answer: its pCTR, or why it was refused."""

    item_id: str | None
    pctr: float | None = None
    refused: str | None = None


class Problem(msgspec.Struct, frozen=True):
    """Why a request could not be answered."""

    code: str
    detail: str


class AdResponse(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All of it comes from one version (law 6)."""

    id: str | None
    model: str | None = None  #: whose version; where several share the traffic, the one that the user's hash chose
    model_version: int | None = None
    schema_id: str | None = None
    source: Literal["model", "stale", "prior", "expired"] | None = None
    scores: list[Score] = []
    took_us: int = 0
    error: Problem | None = None
