"""Ad requests as they come off the wire become two sides: one row a request, one row a candidate.

Nothing in them is trusted: size first, then syntax, then types, then the contract's rules. A candidate is refused
alone; what is wrong with the request itself refuses the request. Nothing here raises.
"""

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np

from contracts.app import App
from contracts.serving import UNREADABLE, Problem, echoed
from nodes.asked import Asked, Side
from nodes.catalogue import Catalogue
from nodes.known_candidates import KnownCandidates
from nodes.mixed_side import MixedSide
from nodes.parsed import Own, Parsed
from nodes.request_side import LightSides, RequestSide
from nodes.request_types import problem_of, request_of, struct_of

_first = attrgetter("f0")  # the one field of a candidate that is nothing but an id


class _Named(msgspec.Struct):
    """What is read of a request, or of a candidate, that cannot be read whole."""

    id: Any = None
    item_id: Any = None


class RequestReader:
    """Reads the requests of one app by its contract; made once, used for every micro-batch.

    Args:
        app: its `requests.odcs.yaml` says what a request holds.
        by_id: there will be a catalogue, which fills in what a candidate leaves out; then its id alone is enough.
        remember: so many candidates (`nodes.known_candidates`).
    """

    def __init__(self, app: App, *, by_id: bool = False, remember: int = 0) -> None:
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
        self.sides = LightSides.of(app)
        self.request_side = RequestSide(app, self.request_columns, self.sides.request)
        #: Makes the features that read both sides, where there are any.
        self.mixed = MixedSide(app, self.request_columns) if self.sides.mixed else None
        lent = None if self.mixed is None else self.mixed.columns
        self.candidate_side = RequestSide(app, self.candidate_columns, self.sides.item, lent)
        self._item_id = app.requests.role("item_id")
        typed = dict(parts)
        if by_id:  # what is required must be there once the catalogue has filled it in
            typed["candidate"] = [
                c.model_copy(update={"required": c.name == self._item_id}) for c in typed["candidate"]
            ]
        made = {name: struct_of(name, part) for name, part in typed.items() if name != "envelope"}
        self._item_place = [column.name for column in parts["candidate"]].index(self._item_id)
        only_id = struct_of("candidate", [typed["candidate"][self._item_place]])
        self._ids: Any = msgspec.json.Decoder(request_of(made, only_id.struct))
        self._whole: Any = msgspec.json.Decoder(request_of(made, made["candidate"].struct))
        self._loose: Any = msgspec.json.Decoder(request_of(made, msgspec.Raw))
        self._candidate = msgspec.json.Decoder(made["candidate"].struct)
        self._named = msgspec.json.Decoder(_Named)
        self._get = {name: part.get for name, part in made.items()}
        self._nothing = made["candidate"].nothing
        self._optional = len(self._nothing) - 1  # columns that a candidate leaves out which names an item alone
        self._by_id = by_id
        apart, mixed = remember > 1 and self._optional > 0, self.mixed is not None
        self._remembered = KnownCandidates(self.sides.item, remember, mixed=mixed) if apart else None

    def read(self, messages: Sequence[bytes], catalogue: Catalogue | None = None) -> Asked:
        """Read and check a micro-batch; what is wrong is said in the result, per request and per candidate.

        Args:
            messages: as they came.
            catalogue: the items that candidates may name by id alone, where the reader was made for one.
        """
        count = len(messages)
        sides = Side(self.request_side), Side(self.candidate_side)
        asked = Asked([None] * count, [self._tmax_ms] * count, [None] * count, *sides)
        parsed, remembered = Parsed(), self._remembered
        if remembered is not None and not remembered.pays():
            remembered = None
        places: Mapping[str, int] | None = None if catalogue is None else catalogue.places
        for at, message in enumerate(messages):
            found = self._parse(at, message, asked, places, remembered)
            if found is None:
                continue
            (request,) = found.requests
            asked.ids[at], asked.tmax_ms[at] = request.id, request.tmax or self._tmax_ms
            asked.message_of.append(at)
            parsed.add(found)
        if not parsed.requests:
            return asked
        asked.request_of = np.repeat(np.arange(len(parsed.requests)), parsed.counts)
        asked.item_ids, asked.refused = parsed.items, parsed.refused
        if places is not None:
            asked.places = np.array(parsed.places, np.int64)
        self._check_requests(asked, parsed)
        self._check_candidates(asked, parsed, catalogue)
        return asked

    def _parse(
        self,
        at: int,
        message: bytes,
        asked: Asked,
        places: Mapping[str, int] | None,
        remembered: KnownCandidates | None,
    ) -> Parsed | None:
        """One message; None when it is refused, and then its problem stands in `asked`."""
        if len(message) > self._max_bytes:
            detail = f"the request has {len(message)} bytes, at most {self._max_bytes} are read"
            asked.problems[at] = Problem("too_large", detail)
            return None
        try:
            found = None if places is None else self._by_id_alone(message, places)
            if found is None and remembered is not None:
                found = self._look(message, places, remembered)
            if found is None:
                found = self._decode(message, places)
        except UNREADABLE as error:
            asked.problems[at] = problem_of(error)
            asked.ids[at] = self._id_of(message)
            return None
        count = len(found.items)
        if not 0 < count <= self._max_candidates:
            code = "too_many_candidates" if count else "no_candidates"
            detail = f"the request has {count} candidates, 1 to {self._max_candidates} are scored"
            asked.problems[at], asked.ids[at] = Problem(code, detail), echoed(found.requests[0].id)
            return None
        return found

    def _by_id_alone(self, message: bytes, places: Mapping[str, int]) -> Parsed | None:
        """A request whose candidates are nothing but ids; None where it is another, or cannot be read."""
        try:
            request = self._ids.decode(message)
        except UNREADABLE:
            return None
        items = list(map(_first, request.candidates))
        try:
            return Parsed([request], [], items, list(map(places.__getitem__, items)))
        except KeyError:
            found = [places.get(item, -1) for item in items]
        own: Own = [self._nothing_but(item) for item, place in zip(items, found, strict=True) if place < 0]
        return Parsed([request], [], items, found, own)

    def _look(self, message: bytes, places: Mapping[str, int] | None, remembered: KnownCandidates) -> Parsed | None:
        """A request of which candidates may be remembered; None where another way must read it."""
        try:
            request = self._loose.decode(message)
            if not 0 < len(request.candidates) <= self._max_candidates:
                return None
            keys = list(map(bytes, request.candidates))
            found = remembered.find(keys)
            own: Own = [None] * len(keys)
            for row in found.missing:
                own[row] = value = self._value_of(keys[row])
                if self._by_id and None in value:  # what it leaves out is the catalogue's to say, today
                    return None
                found.items[row] = value[self._item_place]
        except UNREADABLE:
            return None
        return Parsed([request], [], found.items, [] if places is None else [-1] * len(keys), own, {}, [(0, found)])

    def _decode(self, message: bytes, places: Mapping[str, int] | None) -> Parsed:
        """A request, the values of its candidates, and those of them that cannot be read."""
        refused: dict[int, str] = {}
        try:
            request = self._whole.decode(message)
            values = list(map(self._get["candidate"], request.candidates))
        except msgspec.ValidationError:
            request = self._loose.decode(message)
            values, refused = self._one_by_one(request.candidates)
        items = [value[self._item_place] for value in values]
        if places is None:
            return Parsed([request], [], items, [], list(values), refused)
        found = [
            places.get(item, -1) if value.count(None) == self._optional else -1
            for item, value in zip(items, values, strict=True)
        ]
        for row in refused:
            found[row] = -1
        own: Own = [value for value, place in zip(values, found, strict=True) if place < 0]
        return Parsed([request], [], items, found, own, refused)

    def _one_by_one(self, raws: Sequence[msgspec.Raw]) -> tuple[list[tuple[Any, ...]], dict[int, str]]:
        """Candidates of a request of which at least one cannot be read: (values, refused)."""
        values: list[tuple[Any, ...]] = []
        refused: dict[int, str] = {}
        for row, raw in enumerate(raws):
            try:
                values.append(self._value_of(raw))
            except UNREADABLE as error:
                problem = problem_of(error)
                refused[row] = f"{problem.code}: {problem.detail}"
                values.append(self._nothing_but(self._id_of(raw, "item_id")))
        return values, refused

    def _value_of(self, raw: bytes | msgspec.Raw) -> tuple[Any, ...]:
        """Raises as `UNREADABLE` tells."""
        return self._get["candidate"](self._candidate.decode(raw))

    def _nothing_but(self, item_id: str | None) -> tuple[Any, ...]:
        return (*self._nothing[: self._item_place], item_id, *self._nothing[self._item_place + 1 :])

    def _id_of(self, raw: bytes | msgspec.Raw, name: str = "id") -> str | None:
        try:
            return echoed(getattr(self._named.decode(raw), name))
        except UNREADABLE:
            return None

    def _check_requests(self, asked: Asked, parsed: Parsed) -> None:
        """The contract's rules over all requests at once."""
        fields = [self._envelope[c.name] for c in self.request_columns if c.name in self._envelope]
        values: list[Sequence[Any]] = [[getattr(row, name) for row in parsed.requests] for name in fields]
        values += zip(*(self._get["user"](row.user) for row in parsed.requests), strict=True)
        values += zip(*(self._get["context"](row.context) for row in parsed.requests), strict=True)
        side = asked.request_side
        side.values, side.rows = values, len(parsed.requests)
        side.features = self.request_side.known(values, side.rows)
        if side.features is not None:
            return
        for row, reason in self.request_side.wrong(side.frame).items():
            code, _, detail = reason.partition(": ")
            at = asked.message_of[row]
            asked.problems[at], asked.ids[at] = Problem(code, detail), echoed(asked.ids[at])

    def _check_candidates(self, asked: Asked, parsed: Parsed, catalogue: Catalogue | None) -> None:
        """Likewise over all candidates that say more than an id; what they leave out is filled in first."""
        if not parsed.own:
            return
        side, own = asked.candidate_side, asked.own_rows()
        side.rows = len(parsed.own)
        if self._remembered is not None and parsed.found and not parsed.refused:
            side.features = self._looked_up(asked, parsed, own, catalogue, self._remembered)
            if side.features is not None:
                side.later = lambda: self._filled(asked, parsed.values(self._value_of), own, catalogue)
                return
        side.values = self._filled(asked, parsed.values(self._value_of), own, catalogue)
        if not parsed.refused:
            side.features = self.candidate_side.known(side.values, side.rows)
        if side.features is not None:
            return
        for row, reason in self.candidate_side.wrong(side.frame).items():
            asked.refused.setdefault(int(own[row]), reason)

    def _filled(
        self, asked: Asked, rows: Sequence[tuple[Any, ...]], own: np.ndarray, catalogue: Catalogue | None
    ) -> list[Sequence[Any]]:
        """Columns of candidates, given as candidate rows, with what they leave out filled in."""
        values: list[Sequence[Any]] = list(zip(*rows, strict=True))
        if catalogue is not None and any(asked.item_ids[row] in catalogue.places for row in own.tolist()):
            filled = catalogue.fill(self.candidate_side.frame(values))
            values = [filled[column.name].to_list() for column in self.candidate_columns]
        return values

    def _looked_up(
        self, asked: Asked, parsed: Parsed, own: np.ndarray, catalogue: Catalogue | None, remembered: KnownCandidates
    ) -> dict[str, np.ndarray] | None:
        """Features of candidates of which some are remembered; the others are, from now on. None: one is not good."""
        made = remembered.empty(len(parsed.own))
        keys: dict[int, bytes] = {}  # row -> bytes, of those that are new
        for start, found in parsed.found:
            for name, values in found.features.items():
                made[name][start : start + len(values)] = values
            keys |= {start + row: found.keys[row] for row in found.missing}
        rows = [row for row, value in enumerate(parsed.own) if value is not None]
        if not rows:
            return made
        said = [value for value in parsed.own if value is not None]
        fresh = self.candidate_side.known(self._filled(asked, said, own[rows], catalogue), len(rows))
        if fresh is None:
            return None
        for name, values in fresh.items():
            made[name][rows] = values
        new = list(keys)
        items = [asked.item_ids[row] for row in own[new].tolist()]
        remembered.learn(list(keys.values()), items, {name: values[new] for name, values in made.items()})
        return made
