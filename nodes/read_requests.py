"""Ad requests as they come off the wire become two frames: one row a request, one row a candidate.

Nothing in them is trusted: size first, then syntax, then types, then the contract's rules. A candidate is refused
alone; what is wrong with the request itself refuses the request. Nothing here raises.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import polars as pl

from contracts.app import App
from contracts.odcs import Column, DataContract
from contracts.rowcheck import reasons
from contracts.serving import Problem
from nodes.catalogue import Catalogue
from nodes.request_types import problem_of, request_of, struct_of

#: What a decoder may raise on bytes from outside.
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError)
_LONGEST_ID = 256  # characters of an id that is echoed though its request is refused


class _Named(msgspec.Struct):
    """What is read of a request that cannot be read whole."""

    id: Any = None


class _Item(msgspec.Struct):
    """What is read of a candidate that cannot be read whole."""

    item_id: Any = None


@dataclass
class Asked:
    """A micro-batch of requests, read.

    `requests` has a row for each request that could be read, `candidates` one for each of their candidates, in order;
    `request_of` names the request row of each candidate. What is refused stands beside.
    """

    ids: list[str | None]  #: of each message
    tmax_ms: list[int]  #: of each message
    problems: list[Problem | None]  #: of each message
    message_of: list[int] = field(default_factory=list)  #: request row -> message
    requests: pl.DataFrame = field(default_factory=pl.DataFrame)
    candidates: pl.DataFrame = field(default_factory=pl.DataFrame)
    request_of: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    item_ids: list[str | None] = field(default_factory=list)  #: candidate row -> item
    refused: dict[int, str] = field(default_factory=dict)  #: candidate row -> "code: detail"


@dataclass
class _Parsed:
    """What the parser hands on: columns still as Python values."""

    rows: list[Any] = field(default_factory=list)
    candidates: list[Any] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)


class RequestReader:
    """Reads the requests of one app by its contract; made once, used for every micro-batch.

    Args:
        app: its `requests.odcs.yaml` says what a request holds.
        catalogue: fills in what a candidate leaves out; then its id alone is enough.
    """

    def __init__(self, app: App, catalogue: Catalogue | None = None) -> None:
        self._catalogue = catalogue
        serving = app.config.serving
        self._max_bytes, self._max_candidates = serving.max_request_bytes, serving.max_candidates
        self._tmax_ms = serving.tmax_ms
        time = app.requests.role("event_time")
        self._envelope = {"id": "id", time: "event_time_ms", "tmax": "tmax"}  # column -> field of the request
        inner = [column for column in app.requests.columns if column.name not in self._envelope]
        parts = {
            "envelope": [column for column in app.requests.columns if column.name in self._envelope],
            "user": [column for column in inner if column.side == "user"],
            "context": [column for column in inner if column.side not in {"user", "item"}],
            "candidate": [column for column in inner if column.side == "item"],
        }
        self.request_columns = tuple(parts["envelope"] + parts["user"] + parts["context"])
        self.candidate_columns = tuple(parts["candidate"])
        self._item_id = app.requests.role("item_id")
        typed = dict(parts)
        if catalogue is not None:  # what is required must be there once the catalogue has filled it in
            typed["candidate"] = [
                c.model_copy(update={"required": c.name == self._item_id}) for c in typed["candidate"]
            ]
        made = {name: struct_of(name, part) for name, part in typed.items() if name != "envelope"}
        self._whole: Any = msgspec.json.Decoder(request_of(made, made["candidate"].struct))
        self._loose: Any = msgspec.json.Decoder(request_of(made, msgspec.Raw))
        self._candidate = msgspec.json.Decoder(made["candidate"].struct)
        self._named, self._item = msgspec.json.Decoder(_Named), msgspec.json.Decoder(_Item)
        self._get = {name: part.get for name, part in made.items()}
        self._nothing = made["candidate"].nothing
        self._item_place = [column.name for column in parts["candidate"]].index(self._item_id)
        self._of_request = reasons(_some(app.requests, self.request_columns)).alias("reason")
        self._of_candidate = reasons(_some(app.requests, self.candidate_columns)).alias("reason")

    def read(self, messages: Sequence[bytes]) -> Asked:
        """Read and check a micro-batch; what is wrong is said in the result, per request and per candidate."""
        asked = Asked([None] * len(messages), [self._tmax_ms] * len(messages), [None] * len(messages))
        parsed = _Parsed()
        for place, message in enumerate(messages):
            request = self._parse(place, message, asked, parsed)
            if request is None:
                continue
            asked.ids[place] = request.id
            asked.tmax_ms[place] = request.tmax or self._tmax_ms
            asked.message_of.append(place)
            parsed.rows.append(request)
        if not parsed.rows:
            return asked
        asked.request_of = np.repeat(np.arange(len(parsed.rows)), parsed.counts)
        self._frames(asked, parsed)
        self._check(asked)
        return asked

    def _parse(self, place: int, message: bytes, asked: Asked, parsed: _Parsed) -> Any:
        """One message; None when it is refused, and then its problem stands in `asked`."""
        if len(message) > self._max_bytes:
            detail = f"the request has {len(message)} bytes, at most {self._max_bytes} are read"
            asked.problems[place] = Problem("too_large", detail)
            return None
        try:
            request, candidates, refused = self._decode(message)
        except _UNREADABLE as error:
            asked.problems[place] = problem_of(error)
            asked.ids[place] = self._id_of(message)
            return None
        if not candidates or len(candidates) > self._max_candidates:
            code = "too_many_candidates" if candidates else "no_candidates"
            detail = f"the request has {len(candidates)} candidates, 1 to {self._max_candidates} are scored"
            asked.problems[place], asked.ids[place] = Problem(code, detail), _short(request.id)
            return None
        start = len(parsed.candidates)
        parsed.candidates += candidates
        parsed.counts.append(len(candidates))
        for row, (item_id, why) in refused.items():
            asked.refused[start + row] = why
            parsed.candidates[start + row] = self._nothing_but(item_id)
        return request

    def _decode(self, message: bytes) -> tuple[Any, list[Any], dict[int, tuple[str | None, str]]]:
        """The request, the values of its candidates, and those of them that cannot be read."""
        try:
            request = self._whole.decode(message)
        except msgspec.ValidationError:
            request = self._loose.decode(message)
            return (request, *self._one_by_one(request.candidates))
        return request, list(map(self._get["candidate"], request.candidates)), {}

    def _one_by_one(self, raws: Sequence[msgspec.Raw]) -> tuple[list[Any], dict[int, tuple[str | None, str]]]:
        """Candidates of a request of which at least one cannot be read: (values, refused)."""
        values: list[Any] = []
        refused: dict[int, tuple[str | None, str]] = {}
        for row, raw in enumerate(raws):
            try:
                values.append(self._get["candidate"](self._candidate.decode(raw)))
            except _UNREADABLE as error:
                problem = problem_of(error)
                refused[row] = (self._item_of(raw), f"{problem.code}: {problem.detail}")
                values.append(self._nothing)
        return values, refused

    def _nothing_but(self, item_id: str | None) -> tuple[Any, ...]:
        return (*self._nothing[: self._item_place], item_id, *self._nothing[self._item_place + 1 :])

    def _id_of(self, message: bytes) -> str | None:
        try:
            return _short(self._named.decode(message).id)
        except _UNREADABLE:
            return None

    def _item_of(self, raw: msgspec.Raw) -> str | None:
        try:
            return _short(self._item.decode(raw).item_id)
        except _UNREADABLE:
            return None

    def _frames(self, asked: Asked, parsed: _Parsed) -> None:
        fields = [self._envelope[c.name] for c in self.request_columns if c.name in self._envelope]
        values: list[Sequence[Any]] = [[getattr(row, name) for row in parsed.rows] for name in fields]
        values += zip(*(self._get["user"](row.user) for row in parsed.rows), strict=True)
        values += zip(*(self._get["context"](row.context) for row in parsed.rows), strict=True)
        asked.requests = _frame(self.request_columns, values)
        asked.candidates = _frame(self.candidate_columns, list(zip(*parsed.candidates, strict=True)))
        if self._catalogue is not None:
            asked.candidates = self._catalogue.fill(asked.candidates)
        asked.item_ids = asked.candidates[self._item_id].to_list()

    def _check(self, asked: Asked) -> None:
        """The contract's rules, one select over all requests and one over all candidates."""
        wrong = asked.requests.select(self._of_request)["reason"]
        if wrong.null_count() < wrong.len():
            for row, reason in enumerate(wrong.to_list()):
                if reason is not None:
                    code, _, detail = reason.partition(": ")
                    asked.problems[asked.message_of[row]] = Problem(code, detail)
                    asked.ids[asked.message_of[row]] = _short(asked.ids[asked.message_of[row]])
        wrong = asked.candidates.select(self._of_candidate)["reason"]
        if wrong.null_count() < wrong.len():
            for row in wrong.is_not_null().arg_true().to_list():
                asked.refused.setdefault(row, wrong[row])


def _some(contract: DataContract, columns: Sequence[Column]) -> DataContract:
    return contract.model_copy(update={"columns": tuple(columns)})


def _frame(columns: Sequence[Column], values: Sequence[Sequence[Any]]) -> pl.DataFrame:
    return pl.DataFrame([pl.Series(c.name, v, dtype=c.dtype) for c, v in zip(columns, values, strict=True)])


def _short(text: Any) -> str | None:
    return text if isinstance(text, str) and len(text) <= _LONGEST_ID else None
