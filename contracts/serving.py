"""What a scorer is asked, and what it answers."""

from typing import Any, Literal

import msgspec


class AdRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Who is looking, and which ads may be shown. The columns inside are the app's (`requests.odcs.yaml`)."""

    id: str
    event_time_ms: int
    user: dict[str, Any]
    context: dict[str, Any]
    candidates: list[dict[str, Any]]
    tmax: int | None = None  #: ms from the record's timestamp


class Score(msgspec.Struct, frozen=True, omit_defaults=True):
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
    model_version: int | None = None
    schema_id: str | None = None
    source: Literal["model", "stale", "prior", "expired"] | None = None
    scores: list[Score] = []
    took_us: int = 0
    error: Problem | None = None
