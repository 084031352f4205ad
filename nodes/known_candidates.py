"""Candidates that came before, byte for byte: their features are looked up instead of being read again.

Most candidates of a request were in one before, in the very same bytes. The same bytes say the same values, and the
app's rules and features make the same of them, whatever version scores: so a candidate that was good once is known by
its bytes, and one with any byte changed is another.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from contracts.features import Feature
from nodes.feature_columns import SAID, dtype_of

_LONGEST = 1024  # bytes of a candidate that is remembered
_ATTEMPTS = 3  # to find what was brought over from the older half
_PAYS, _SELDOM = 0.25, 8  # below that share of hits only one look in so many is taken
_SMOOTH = 0.1  # weight of the newest look in that share


@dataclass
class _Half:
    """Rows are written before they can be found, and never again."""

    tables: dict[str, np.ndarray]  #: light features, and what mixed features read
    places: dict[bytes, int] = field(default_factory=dict)
    items: list[str | None] = field(default_factory=list)


@dataclass(frozen=True)
class Found:
    """What is known of some candidates."""

    keys: Sequence[bytes]
    items: list[str | None]
    features: dict[str, np.ndarray]  #: one value a candidate, nothing of use for those that are missing
    missing: list[int]  #: which are not known


class KnownCandidates:
    """Remembers good candidates and forgets those that did not come for the longest time; safe to use from threads.

    Two halves: what comes is found in, or brought over to, the newer one; when that is full the older one is dropped.

    Memory: per candidate its bytes (longer than 1024: not remembered), 4 bytes a feature (8 where ids own their rows),
    and about 150; with mixed features 8 more, and 200 for each distinct value that they read.

    Args:
        features: that candidates alone are read for.
        most: candidates that are remembered, two or more.
        mixed: whether there are mixed features, for which what candidates say is kept too, under `SAID`.

    >>> known = KnownCandidates([], 4)
    >>> known.learn([b"{1}", b"{2}"], ["one", "two"], {})
    >>> found = known.find([b"{2}", b"{3}"])
    >>> found.items[0], found.missing
    ('two', [1])
    """

    def __init__(self, features: Sequence[Feature], most: int, *, mixed: bool = False) -> None:
        self._dtypes: dict[str, type] = {feature.name: dtype_of(feature) for feature in features}
        if mixed:
            self._dtypes[SAID] = object
        self._most = most // 2
        self._halves = self._nothing(), self._nothing()
        self._lock = threading.Lock()
        self._share, self._turn = 1.0, 0

    def __len__(self) -> int:
        return sum(len(half.items) for half in self._halves)

    def empty(self, rows: int) -> dict[str, np.ndarray]:
        """Room for the features of so many candidates."""
        return {name: np.zeros(rows, dtype) for name, dtype in self._dtypes.items()}

    def pays(self) -> bool:
        """Whether to look now: always while many candidates are known, else now and then."""
        self._turn += 1
        return self._share >= _PAYS or self._turn % _SELDOM == 0

    def find(self, keys: Sequence[bytes]) -> Found:
        """Look candidates up by their bytes."""
        for _ in range(_ATTEMPTS):
            half, older = self._halves
            rows = list(map(half.places.get, keys))
            if None not in rows or not self._bring_over(keys, rows, older):
                break
        missing = [at for at, row in enumerate(rows) if row is None]
        self._share += _SMOOTH * (1 - len(missing) / max(len(keys), 1) - self._share)
        at_B = np.array([row or 0 for row in rows] if missing else rows, np.intp)
        items: list[str | None] = [None] * len(keys)
        if len(missing) < len(keys):
            items = list(map(half.items.__getitem__, at_B.tolist()))
        return Found(keys, items, {name: table.take(at_B) for name, table in half.tables.items()}, missing)

    def learn(self, keys: Sequence[bytes], items: Sequence[str | None], features: Mapping[str, np.ndarray]) -> None:
        """Remember good candidates.

        Args:
            keys: their bytes.
            items: their ids.
            features: one value a candidate.
        """
        with self._lock:
            half, older = self._halves
            new = {key: at for at, key in enumerate(keys) if key not in half.places and len(key) <= _LONGEST}
            if len(new) > self._most:
                return
            if len(half.items) + len(new) > self._most:
                half, older = self._nothing(), half
            rows, start = list(new.values()), len(half.items)
            for name, table in half.tables.items():
                table[start : start + len(rows)] = features[name][rows]
            half.items += [items[at] for at in rows]
            half.places.update(zip(new, range(start, start + len(rows)), strict=True))
            self._halves = half, older

    def _bring_over(self, keys: Sequence[bytes], rows: Sequence[int | None], older: _Half) -> bool:
        """Learn again what only the older half knows; False where that is nothing."""
        mine = {
            key: older.places[key] for key, row in zip(keys, rows, strict=True) if row is None and key in older.places
        }
        if not mine:
            return False
        at = list(mine.values())
        self.learn(list(mine), [older.items[row] for row in at], {n: table[at] for n, table in older.tables.items()})
        return True

    def _nothing(self) -> _Half:
        return _Half(self.empty(self._most))
