"""One side of ad requests, who asks or what may be shown: its columns are checked and made into light features.

Two ways to the same values. By frames: one Polars call to check and one to featurize, each of which costs a fraction
of a millisecond however few its rows. By heart: what a column of text, whole numbers or truth values holds comes again
and again (a device, a category, an item), so it is checked and featurised once a value, by the same code, and looked
up from then on; other numbers become features in NumPy (`nodes.plain_numbers`). The second way says only that all is
well; where it is not, the first says what is wrong.
"""

import math
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import numpy as np
import polars as pl

from contracts.app import App
from contracts.buckets import bucket, key
from contracts.errors import RocketError
from contracts.features import STATEFUL, Feature
from contracts.odcs import Column
from contracts.rowcheck import reasons
from nodes.feature_columns import SAID, dtype_of
from nodes.featurize import Featurizer, fill_serving_defaults
from nodes.plain_numbers import Made, plainly

#: Values of one column that are known by heart; with one more all are forgotten. Some 100 bytes each.
_KNOWN_VALUES = 65_536
_LONGEST = 256  # characters of a value that is learnt by heart
_FEW = 64  # values that are hashed one by one
_ATTEMPTS = 4  # to find values after learning them: learning some may have made it forget others
_OUTPUTS = {"id", "dense"}
#: Columns of these types are known by heart: values that are equal are the same to every feature.
BY_HEART = frozenset({"string", "int64", "boolean"})


@dataclass(frozen=True)
class LightSides:
    """The features that a scorer computes, by what they read."""

    request: tuple[Feature, ...]  #: columns of requests alone
    item: tuple[Feature, ...]  #: columns of candidates alone
    mixed: tuple[Feature, ...]  #: both

    @classmethod
    def of(cls, app: App) -> "LightSides":
        """Those of the light net that are not the stream's past."""
        light = [f for f in app.features if f.only is None and f.kind not in STATEFUL and f.output in _OUTPUTS]
        asked = {column.name for column in app.requests.columns if column.side != "item"}
        request = tuple(f for f in light if asked.issuperset(f.inputs))
        item = tuple(f for f in light if asked.isdisjoint(f.inputs) and f not in request)
        return cls(request, item, tuple(f for f in light if f not in request and f not in item))


class Filled:
    """Serving defaults, then the features.

    Args:
        features: to make.
        table: of features that may be made elsewhere; a default that one of them has for a column is the column's.
    """

    def __init__(self, features: Sequence[Feature], table: Sequence[Feature] = ()) -> None:
        read = {name for feature in features for name in feature.inputs}
        others = (f for f in table if f not in features and f.serve_default is not None and read.issuperset(f.inputs))
        self._features, self._make = [*features, *others], Featurizer(features)

    def __call__(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Raises ContractError as `Featurizer` does."""
        return self._make(fill_serving_defaults(frame, self._features))


class RequestSide:
    """Checks and featurises one side; made once, safe to use from several threads.

    Args:
        app: its contract of requests has the rules.
        columns: of this side.
        features: that read these columns, or none at all.
        lent: of these columns those that mixed features read as well; None: there are no mixed features.
    """

    def __init__(
        self,
        app: App,
        columns: Sequence[Column],
        features: Sequence[Feature],
        lent: Sequence[Column] | None = None,
    ) -> None:
        self.columns, self.features = tuple(columns), tuple(features)
        self._lent = None if lent is None else [self.columns.index(column) for column in lent]
        #: One object for all that say the same is found sooner in the processor's cache.
        self._shared: dict[Any, Any] | None = {} if all(c.physical in BY_HEART for c in lent or ()) else None
        self.featurize = Filled(features)
        self._reason = _reason(app, columns)
        self._by_heart: dict[int, _ByHeart] = {}
        rest = list(features)
        for place, column in enumerate(columns):
            mine = [f for f in rest if f.inputs == (column.name,)]
            if column.physical in BY_HEART and column.within:
                self._by_heart[place] = _ByHeart(app, column, mine)
                rest = [f for f in rest if f not in mine]
        other = [place for place in range(len(columns)) if place not in self._by_heart]
        self._simple = {place: good for place in other if (good := _simple_rules(columns[place]))}
        filled = {name for feature in features if feature.serve_default is not None for name in feature.inputs}
        self._plain: list[tuple[int, str, Made]] = []  # place of the column, name of the feature, what makes it
        for place in (place for place in self._simple if columns[place].name not in filled):
            mine = [f for f in rest if f.inputs == (columns[place].name,)]
            self._plain += [(place, f.name, made) for f in mine if (made := plainly(f, columns[place]))]
        made_plainly = {name for _, name, _ in self._plain}
        rest = [feature for feature in rest if feature.name not in made_plainly]
        read = {name for feature in rest for name in feature.inputs}
        checked = [place for place in other if place not in self._simple]
        self._rest = sorted({*checked, *(p for p, c in enumerate(columns) if c.name in read)} or ({0} if rest else ()))
        self._rest_reason = _reason(app, [columns[place] for place in checked]) if checked else None
        self._rest_features = Filled(rest, features) if rest else None

    def frame(self, values: Sequence[Sequence[Any]]) -> pl.DataFrame:
        """The values of each column as a frame."""
        return frame_of(self.columns, values)

    def wrong(self, frame: pl.DataFrame) -> dict[int, str]:
        """Row -> "code: detail" of what breaks the contract."""
        found = frame.select(self._reason)["reason"]
        if found.null_count() == found.len():
            return {}
        return {row: found[row] for row in found.is_not_null().arg_true().to_list()}

    def features_of(self, frame: pl.DataFrame) -> dict[str, np.ndarray]:
        """The features by name, of columns that keep the contract, and what is lent under `SAID`.

        Raises:
            RocketError: a kind of the user's own refuses a value.
        """
        made = arrays_of(self.featurize(frame))
        if self._lent is not None:
            made[SAID] = self._said([frame[column.name].to_list() for column in self.columns], frame.height)
        return made

    def known(self, values: Sequence[Sequence[Any]], rows: int) -> dict[str, np.ndarray] | None:
        """The features by name, [rows] each; None where something is wrong, or may be: `frame` and `wrong` tell.

        Where there are mixed features, what they read stands beside, under `SAID`.

        Args:
            values: of each column.
            rows: how many each has.
        """
        made: dict[str, np.ndarray] = {}
        try:
            for place, column in self._by_heart.items():
                if not column.look_up(values[place], rows, made):
                    return None
            if not all(all(map(good, values[place])) for place, good in self._simple.items()):
                return None
            made |= {name: make(values[place]) for place, name, make in self._plain}
            if self._rest:
                frame = frame_of([self.columns[place] for place in self._rest], [values[place] for place in self._rest])
                if self._rest_reason is not None:
                    found = frame.select(self._rest_reason)["reason"]
                    if found.null_count() < rows:
                        return None
                if self._rest_features is not None:
                    made |= arrays_of(self._rest_features(frame))
        except RocketError:  # a feature kind of the user's own may refuse a value
            return None
        if self._lent is not None:
            made[SAID] = self._said(values, rows)
        return made

    def _said(self, values: Sequence[Sequence[Any]], rows: int) -> np.ndarray:
        said = tuples_of([values[place] for place in self._lent or ()], rows)
        if self._shared is None:  # 0.0 equals -0.0, and yet their texts differ
            return said
        if len(self._shared) > _KNOWN_VALUES:
            self._shared = {}
        told = said.tolist()
        return np.fromiter(map(self._shared.setdefault, told, told), object, rows)


class _ByHeart:
    """One column's values that are good, and their features."""

    def __init__(self, app: App, column: Column, features: Sequence[Feature]) -> None:
        self._column, self._features = column, features
        self._simple, self._reason = _simple_rules(column), _reason(app, [column])
        self._featurize = Filled(features) if features else None
        #: A user who is new comes alone, and frames take 200 times as long for one text as its hash.
        self._buckets = self._simple is not None and all(feature.kind == "id" for feature in features)
        self._lock = threading.Lock()
        self._state = self._nothing()

    def look_up(self, values: Sequence[Any], rows: int, made: dict[str, np.ndarray]) -> bool:
        """Add the features of these values to `made`; False where one of the values is not good."""
        for _ in range(_ATTEMPTS):
            places, tables = self._state
            try:
                found = np.fromiter(map(places.__getitem__, values), np.intp, rows)
            except KeyError:
                if not self._learn({value for value in values if value not in places}):
                    return False
                continue
            for feature, table in zip(self._features, tables, strict=True):
                made[feature.name] = table.take(found)
            return True
        return False

    def _learn(self, values: Iterable[Any]) -> bool:
        """Check and featurise values that are new; entries are whole before they can be found."""
        new = list(values)
        if len(new) > _KNOWN_VALUES or any(isinstance(value, str) and len(value) > _LONGEST for value in new):
            return False
        if self._simple is not None and not all(map(self._simple, new)):
            return False
        if self._buckets and len(new) <= _FEW and all(type(value) is str for value in new):
            features = {f.name: np.array([hashed(value, f) for value in new], dtype_of(f)) for f in self._features}
        else:
            frame = frame_of([self._column], [new])
            if self._simple is None and frame.select(self._reason)["reason"].null_count() < len(new):
                return False
            features = arrays_of(self._featurize(frame)) if self._featurize else {}
        with self._lock:
            places, tables = self._state
            if len(places) + len(new) > _KNOWN_VALUES:
                places, tables = self._nothing()
            rows = [row for row, value in enumerate(new) if value not in places]  # another thread may have learnt it
            end = len(places) + len(rows)
            for feature, table in zip(self._features, tables, strict=True):
                table[len(places) : end] = features[feature.name][rows]
            places.update(zip((new[row] for row in rows), range(len(places), end), strict=True))
            self._state = places, tables
        return True

    def _nothing(self) -> tuple[dict[Any, int], list[np.ndarray]]:
        return {}, [np.empty(_KNOWN_VALUES, dtype_of(feature)) for feature in self._features]


def hashed(text: str, feature: Feature) -> int:
    """The bucket of a text, or its key where ids own their rows."""
    return bucket(text, feature.rows) if feature.dynamic is None else key(text)


def arrays_of(frame: pl.DataFrame) -> dict[str, np.ndarray]:
    """Feature columns as arrays."""
    return {series.name: series.to_numpy() for series in frame}


def _reason(app: App, columns: Sequence[Column]) -> pl.Expr:
    return reasons(app.requests.model_copy(update={"columns": tuple(columns)})).alias("reason")


def _simple_rules(column: Column) -> Callable[[Any], bool] | None:
    """Whether a value of the column's type is surely good; None for rules that only `contracts.rowcheck` can judge."""
    if column.pattern is not None or column.allowed is not None:
        return None
    absent = not column.required
    if column.physical in {"string", "list<string>"}:
        shortest, longest = column.min_length or 0, math.inf if column.max_length is None else column.max_length
        return lambda value: absent if value is None else shortest <= len(value) <= longest
    low = -math.inf if column.minimum is None else column.minimum
    high = math.inf if column.maximum is None else column.maximum
    return lambda value: absent if value is None else low <= value <= high and abs(value) < math.inf


def tuples_of(columns: Sequence[Sequence[Any]], rows: int) -> np.ndarray:
    """What each row says, one tuple a row, as an array of objects.

    >>> tuples_of([["k1", None], [1, 2]], 2).tolist(), tuples_of([], 1).tolist()
    ([('k1', 1), (None, 2)], [()])
    """
    return np.fromiter(zip(*columns, strict=True) if columns else repeat((), rows), object, rows)


def frame_of(columns: Sequence[Column], values: Sequence[Sequence[Any]]) -> pl.DataFrame:
    """Values of columns as a frame of the contract's types."""
    return pl.DataFrame([pl.Series(c.name, v, dtype=c.dtype) for c, v in zip(columns, values, strict=True)])
