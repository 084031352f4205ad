"""How many impressions and clicks each key has had."""

import numpy as np
import polars as pl

from nodes.streaming.batch import NO_KEY, seen_by
from nodes.streaming.keys import Ints, KeyIndex, Keys


class Evidence:
    """Settled impressions and clicks of each key: two integers and an index entry a key, 32 bytes.

    >>> evidence = Evidence()
    >>> key, one, two = np.array([5, 5], np.uint64), np.array([1, 0]), np.array([2])
    >>> [count.tolist() for count in evidence.push(key, one, two, np.array([5], np.uint64))]
    [[2], [1]]
    """

    def __init__(self) -> None:
        self._index = KeyIndex()
        self._counts = np.zeros((1024, 2), np.int64)  # a row a slot: impressions, clicks

    def push(self, settling: Keys, label: Ints, num_settled: Ints, new: Keys) -> tuple[Ints, Ints]:
        """Impressions and clicks that each new row may see; then the settling rows are learnt.

        Args:
            settling: key of each row that settles while the new ones pass, in log order.
            label: their labels, 0 or 1.
            num_settled: for each new row, how many of those are settled at its event time.
            new: key of each new row.
        """
        seen = seen_by(settling, num_settled, new)
        clicks = np.concatenate([[0], np.cumsum(label[seen.rows])])
        slots = self._index.find(seen.keys)
        before = np.where((slots >= 0)[:, None], self._counts[np.maximum(slots, 0)], 0)
        begin = seen.starts[seen.code]
        known = new != NO_KEY
        impressions_seen = (before[seen.code, 0] + seen.end - begin) * known
        clicks_seen = (before[seen.code, 1] + clicks[seen.end] - clicks[begin]) * known
        self._learn(
            seen.keys,
            np.stack([np.diff(seen.starts), np.diff(clicks[seen.starts])], axis=1),
        )
        return impressions_seen, clicks_seen

    def _learn(self, keys: Keys, counts: Ints) -> None:
        """Add (impressions, clicks) to ascending keys."""
        grown = counts[:, 0] > 0
        slots = self._index.add(keys[grown])
        if len(self._index) > len(self._counts):
            more = np.zeros((max(len(self._counts), len(self._index)), 2), np.int64)
            self._counts = np.concatenate([self._counts, more])
        self._counts[slots] += counts[grown]

    def table(self) -> pl.DataFrame:
        """The whole state, ascending by key."""
        keys, slots = self._index.sorted()
        impressions, clicks = self._counts[slots].T
        return pl.DataFrame({"key": keys, "impressions": impressions, "clicks": clicks})

    def restore(self, table: pl.DataFrame) -> None:
        """Take the state of `table`."""
        self._index, self._counts = KeyIndex(), np.zeros((1024, 2), np.int64)
        self._learn(table["key"].to_numpy(), table.select("impressions", "clicks").to_numpy())
