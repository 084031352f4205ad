"""Features that read the request and the candidate, made once for each meeting of the two and not for each candidate.

Such a feature reads few columns of a candidate (a category, say), which hold the same values in many candidates. So it
is made for each distinct *meeting*, of a request with what candidates say in those columns, and spread by an index.
Crosses of texts, whole numbers and truth values are hashed here, as long as the meetings are few; all other kinds, and
many meetings, go through the feature code as one frame.

Shapes: B candidates, R requests, C distinct things said, U meetings.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from contracts.app import App
from contracts.features import Feature
from contracts.odcs import Column
from nodes.feature_columns import dtype_of
from nodes.features.cross import SEPARATOR
from nodes.request_side import BY_HEART, Filled, LightSides, arrays_of, frame_of, hashed, tuples_of

_FEW = 512  # meetings that are hashed one by one; with more of them frames are faster


@dataclass(frozen=True)
class Said:
    """What some candidates say in the columns that mixed features read of them."""

    values: list[tuple[Any, ...]]  #: distinct ones, [C]
    code_B: np.ndarray  #: which of them each candidate says

    def of(self, rows: np.ndarray) -> "Said":
        """What some of these candidates say."""
        return Said(self.values, self.code_B.take(rows))


class Meetings(NamedTuple):
    """Mixed features, one row a meeting."""

    features: dict[str, np.ndarray]
    request_U: np.ndarray  #: the row of each meeting's request
    at_B: np.ndarray  #: each candidate's meeting


class _Places(dict[Any, int]):
    """What is asked for the first time gets the next place."""

    def __missing__(self, value: Any) -> int:
        place = self[value] = len(self)
        return place


class MixedSide:
    """Makes the mixed features of an app; safe to use from several threads.

    Args:
        app: its contract of requests has the columns.
        request_columns: those of `meetings`' requests; none where it is not asked for.
    """

    def __init__(self, app: App, request_columns: Sequence[Column] = ()) -> None:
        self._features = LightSides.of(app).mixed
        self._featurize = Filled(self._features, app.features)
        read = {name for feature in self._features for name in feature.inputs}
        #: Those of candidates that mixed features read.
        self.columns = tuple(c for c in app.requests.columns if c.side == "item" and c.name in read)
        self._alike = all(column.physical in BY_HEART for column in self.columns)
        self._asked = [(place, column) for place, column in enumerate(request_columns) if column.name in read]
        filled = {name for feature in app.features if feature.serve_default is not None for name in feature.inputs}
        known = (*self.columns, *(column for _, column in self._asked))
        simple = {column.name for column in known if column.physical in BY_HEART} - filled
        self._hashable = all(f.kind == "cross" and simple.issuperset(f.inputs) for f in self._features)

    def said(self, values: Sequence[tuple[Any, ...]], before: Said | None = None) -> Said:
        """What candidates say.

        Args:
            values: of `columns`, one tuple a candidate.
            before: of other candidates, behind which these are put; codes that are given stay.
        """
        known, code_A = (before.values, before.code_B) if before else ([], np.zeros(0, np.int64))
        if not self._alike:  # 0.0 equals -0.0, and yet their texts differ
            new_B = np.arange(len(known), len(known) + len(values))
            return Said([*known, *values], np.concatenate([code_A, new_B]))
        places = _Places(zip(known, range(len(known)), strict=True))
        new_B = np.fromiter(map(places.__getitem__, values), np.int64, len(values))
        return Said(list(places), np.concatenate([code_A, new_B]))

    def said_in(self, candidates: pl.DataFrame, before: Said | None = None) -> Said:
        """Likewise, of the contract's columns."""
        values = [candidates[column.name].to_list() for column in self.columns]
        return self.said(tuples_of(values, candidates.height).tolist(), before)

    def meetings(self, asked: Sequence[Sequence[Any]], said: Said, request_B: np.ndarray) -> Meetings:
        """The features of every meeting that occurs.

        Args:
            asked: what requests say in `request_columns`, [R] each.
            said: what candidates say.
            request_B: the row of each candidate's request.

        Raises:
            RocketError: a kind of the user's own refuses a value.
        """
        codes, requests = len(said.values), int(request_B.max(initial=-1)) + 1
        meeting_B = request_B * codes + said.code_B
        if self._hashable and requests * codes <= meeting_B.size:  # to look which occur would cost more than all do
            meeting_U, at_B = np.arange(requests * codes), meeting_B
        else:
            meeting_U, at_B = np.unique(meeting_B, return_inverse=True)
        request_U, code_U = np.divmod(meeting_U, max(codes, 1))
        known = self._columns(asked, said, request_U.tolist(), code_U.tolist())
        if self._hashable and len(meeting_U) <= _FEW:
            made = {feature.name: _crossed(feature, known) for feature in self._features}
        else:
            columns = [*self.columns, *(column for _, column in self._asked)]
            made = arrays_of(self._featurize(frame_of(columns, [known[column.name] for column in columns])))
        return Meetings(made, request_U, at_B)

    def _columns(
        self, asked: Sequence[Sequence[Any]], said: Said, request_U: list[int], code_U: list[int]
    ) -> dict[str, Sequence[Any]]:
        """What is said in each meeting, by column."""
        told = list(map(said.values.__getitem__, code_U))
        known: dict[str, Sequence[Any]] = {
            c.name: [value[place] for value in told] for place, c in enumerate(self.columns)
        }
        for place, column in self._asked:
            known[column.name] = list(map(asked[place].__getitem__, request_U))
        return known


def _crossed(feature: Feature, known: dict[str, Sequence[Any]]) -> np.ndarray:
    """As `nodes.features.cross` makes it."""
    rows = zip(*([_text(value) for value in known[name]] for name in feature.inputs), strict=True)
    texts = (None if None in row else SEPARATOR.join(row) for row in rows)
    return np.array([0 if text is None else hashed(text, feature) for text in texts], dtype_of(feature))


def _text(value: Any) -> str | None:
    """As Polars casts it."""
    if value is None or type(value) is str:
        return value
    return str(value).lower() if isinstance(value, bool) else str(value)
