"""How many impressions and clicks each key has had lately: each is worth half as much after every half-life."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from nodes.streaming.batch import NO_KEY, seen_by
from nodes.streaming.keys import Ints, KeyIndex, Keys

Floats = npt.NDArray[np.float64]

_ERA = 32  # half-lives: an era's first row and its last differ 2^32 times in weight
_SUMS = ("impressions", "clicks", "impressions_before", "clicks_before")
_FEW_KEYS = 4096  # not worth a look for forgotten ones


class DecayedEvidence:
    """Impressions and clicks of each key, a settled row t ms old counting 2^(-t / half-life).

    Forward decay (Cormode et al., ICDE 2009): a row weighs 2^(its time / half-life) for good, so sums need no touching
    as time passes, and a reader divides by its own weight. Weights are counted from the beginning of an era (32
    half-lives of event time, the first one at time 0), lest they overflow; a key holds the sums of its last era and of
    the one before, and what is older (32 half-lives at least) counts nothing. Sums are of doubles, one row after the
    other in the log's order, and eras begin where event time says: so no bit hangs on how the log is cut.

    Takes 56 bytes a key. A key without rows for two eras is forgotten.

    >>> evidence, key = DecayedEvidence(half_life_ms=1000), np.array([5, 5], np.uint64)
    >>> at_ms, label, none = np.array([0, 1000]), np.array([1, 0]), np.array([2])
    >>> [count.tolist() for count in evidence.push(key, at_ms, label, np.array([2]), key[:1], np.array([2000]))]
    [[0.75], [0.25]]
    """

    def __init__(self, half_life_ms: int) -> None:
        self._half_life_ms, self._era_ms = half_life_ms, half_life_ms * _ERA
        self._forget_at = _FEW_KEYS
        self._clear()

    def _clear(self) -> None:
        self._index = KeyIndex()
        self._era = np.zeros(1024, np.int64)  # a place a slot
        self._sums = np.zeros((1024, len(_SUMS)))

    def push(
        self, settling: Keys, settling_ms: Ints, label: Ints, num_settled: Ints, new: Keys, now_ms: Ints
    ) -> tuple[Floats, Floats]:
        """Impressions and clicks that each new row may see, as they weigh then; then the settling rows are learnt.

        Args:
            settling: key of each row that settles while the new ones pass, in log order.
            settling_ms: their event times, ascending, none before those of earlier calls.
            label: their labels, 0 or 1.
            num_settled: for each new row, how many of those are settled at its event time.
            new: key of each new row.
            now_ms: for each new row, ascending, the event time at which a row would weigh 1; none that it may see is
                later.
        """
        seen = seen_by(settling, num_settled, new)
        slots = self._index.find(seen.keys)
        held, added = np.where(slots >= 0, 2, 0), np.diff(seen.starts)
        # Flat, key after key: the sums held (of the era before, of the last one), then the rows that settle.
        first = np.concatenate([[0], np.cumsum(held + added)])
        before = first[:-1][held > 0]
        owner = np.repeat(np.arange(len(added)), added)
        rows = first[owner] + held[owner] + np.arange(len(owner)) - seen.starts[owner]
        era, sums = np.zeros(first[-1], np.int64), np.zeros((first[-1], 2))
        slots = slots[held > 0]
        era[before], era[before + 1] = self._era[slots] - 1, self._era[slots]
        sums[before], sums[before + 1] = self._sums[slots, 2:], self._sums[slots, :2]
        weight = self._weight(settling_ms[seen.rows])
        era[rows] = settling_ms[seen.rows] // self._era_ms
        sums[rows] = np.stack([weight, weight * label[seen.rows]], axis=1)
        run = _Runs.of(np.repeat(np.arange(len(held)), held + added), era, sums)

        end = first[seen.code] + held[seen.code] + seen.end - seen.starts[seen.code]
        last, earlier = run.upto(first[seen.code], end, now_ms // self._era_ms)
        counts = (last + earlier * 0.5**_ERA) / self._weight(now_ms)[:, None] * (new != NO_KEY)[:, None]
        grown = added > 0
        begin, end = first[:-1][grown], first[1:][grown]
        self._learn(seen.keys[grown], era[end - 1], np.hstack(run.upto(begin, end, era[end - 1])))
        if len(now_ms) and len(self._index) > self._forget_at:
            self.restore(self.table(int(now_ms[-1])))
            self._forget_at = max(_FEW_KEYS, 2 * len(self._index))
        return counts[:, 0], counts[:, 1]

    def _weight(self, at_ms: Ints) -> Floats:
        """2^(half-lives since the era began)."""
        # Polars takes exponentials one value at a time: the same bits wherever a row stands in its batch.
        return pl.Series(at_ms % self._era_ms * (np.log(2) / self._half_life_ms)).exp().to_numpy()

    def _learn(self, keys: Keys, era: Ints, sums: Floats) -> None:
        """Hold these sums for these ascending keys."""
        slots = self._index.add(keys)
        if len(self._index) > len(self._era):
            more = max(len(self._era), len(self._index))
            self._era = np.concatenate([self._era, np.zeros(more, np.int64)])
            self._sums = np.concatenate([self._sums, np.zeros((more, len(_SUMS)))])
        self._era[slots], self._sums[slots] = era, sums

    def table(self, now_ms: int) -> pl.DataFrame:
        """The whole state, ascending by key, without keys that count nothing from `now_ms` on."""
        keys, slots = self._index.sorted()
        live = self._era[slots] >= now_ms // self._era_ms - 1
        sums = dict(zip(_SUMS, self._sums[slots[live]].T, strict=True))
        return pl.DataFrame({"key": keys[live], "era": self._era[slots[live]], **sums})

    def restore(self, table: pl.DataFrame) -> None:
        """Take the state of `table`."""
        self._clear()
        self._learn(table["key"].to_numpy(), table["era"].to_numpy(), table.select(_SUMS).to_numpy())


@dataclass(frozen=True, slots=True)
class _Runs:
    """Running sums within each run of entries of one key and one era; the place before the first entry holds zeros."""

    era: Ints
    sums: Floats  #: of the entries of a run up to each of them
    start: Ints  #: where the run of each entry begins

    @staticmethod
    def of(code: Ints, era: Ints, values: Floats) -> "_Runs":
        """The runs of entries that lie sorted by (code, era)."""
        begins = np.ones(len(code), np.bool_)
        begins[1:] = (np.diff(code) != 0) | (np.diff(era) != 0)
        start = np.flatnonzero(begins)
        length = np.diff(start, append=len(code))
        # A last entry of no era, which the place -1 finds.
        return _Runs(
            np.append(era, np.iinfo(np.int64).min),
            np.concatenate([_running(values, start, length), np.zeros((1, 2))]),
            np.append(np.repeat(start, length), 0),
        )

    def upto(self, begin: Ints, end: Ints, era: Ints) -> tuple[Floats, Floats]:
        """The sums of entries `begin` to `end` (not included) of one key, of `era` and of the one before it."""
        last = np.where(end > begin, end - 1, -1)
        now = self.era[last] == era
        before = np.where(now, self.start[last] - 1, last)
        before = np.where(before >= begin, before, -1)
        earlier = self.era[before] == era - 1
        return self.sums[last] * now[:, None], self.sums[before] * earlier[:, None]


def _running(values: Floats, start: Ints, length: Ints) -> Floats:
    """Running sums within each run, one value added after the other: runs of like length lie side by side for that."""
    sums = np.empty_like(values)
    size = np.ceil(np.log2(length)).astype(np.int64)
    for each in np.unique(size):
        mine = size == each
        offset = np.arange(1 << each)
        places, inside = start[mine, None] + offset, offset < length[mine, None]
        values_RL2 = np.where(inside[..., None], values[np.minimum(places, len(values) - 1)], 0.0)
        sums[places[inside]] = np.add.accumulate(values_RL2, axis=1)[inside]
    return sums
