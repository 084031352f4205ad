"""The last items of each key."""

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from nodes.streaming.batch import NO_KEY, seen_by
from nodes.streaming.keys import Ints, KeyIndex, Keys

Items = npt.NDArray[np.uint32] | npt.NDArray[np.uint64]


class RecentItems:
    """The last `length` settled items of each key: 4 bytes an item place (8 with `wide`) and 24 a key.

    Args:
        length: how many are held.
        wide: items are hashes of 64 bits, not buckets of 32.

    >>> recent = RecentItems(length=2)
    >>> key, items = np.array([5, 5, 5], np.uint64), np.array([10, 11, 12], np.uint32)
    >>> recent.push(key, items, np.array([True, True, True]), np.array([1, 3]), key[:2]).to_list()
    [[10], [11, 12]]
    """

    def __init__(self, length: int, *, wide: bool = False) -> None:
        self._length, self._wide = length, wide
        self._index = KeyIndex()
        places = (1024, length)  # a row a slot, the newest last
        self._items: Items = np.zeros(places, np.uint64) if wide else np.zeros(places, np.uint32)
        self._held = np.zeros(1024, np.int64)  # how many of them are there

    def push(
        self, settling: Keys, items: Items, counts: npt.NDArray[np.bool_], num_settled: Ints, new: Keys
    ) -> pl.Series:
        """The list of items that each new row may see, oldest first; then the settling rows are learnt.

        Args:
            settling: key of each row that settles while the new ones pass, in log order.
            items: their items.
            counts: which of them count (were clicked).
            num_settled: for each new row, how many settling rows are settled at its event time.
            new: key of each new row.
        """
        seen = seen_by(settling, num_settled, new, counts)
        slots = self._index.find(seen.keys)
        held = np.where(slots >= 0, self._held[np.maximum(slots, 0)], 0)
        added = np.diff(seen.starts)
        # One flat array, key after key: the items held, then the ones that settle.
        first = np.concatenate([[0], np.cumsum(held + added)])
        flat = np.empty(first[-1], self._items.dtype)
        offset = np.arange(int(held.sum())) - np.repeat(np.cumsum(held) - held, held)
        owner = np.repeat(np.arange(len(held)), held)
        flat[first[owner] + offset] = self._items[slots[owner], self._length - held[owner] + offset]
        grown = np.repeat(np.arange(len(added)), added)
        flat[first[grown] + held[grown] + np.arange(len(grown)) - seen.starts[grown]] = items[seen.rows]
        end = first[seen.code] + held[seen.code] + seen.end - seen.starts[seen.code]
        begin = np.maximum(first[seen.code], end - self._length)
        lists = _lists(flat, begin, np.where(new == NO_KEY, begin, end))
        self._learn(seen.keys[added > 0], flat, first[:-1][added > 0], first[1:][added > 0])
        return lists

    def _learn(self, keys: Keys, flat: Items, begin: Ints, end: Ints) -> None:
        """Hold the last items of `flat[begin:end]` for each of these ascending keys."""
        slots = self._index.add(keys)
        if len(self._index) > len(self._held):
            more = max(len(self._held), len(self._index))
            self._items = np.concatenate([self._items, np.zeros((more, self._length), self._items.dtype)])
            self._held = np.concatenate([self._held, np.zeros(more, np.int64)])
        places = end[:, None] + np.arange(-self._length, 0)
        inside = places >= begin[:, None]
        self._items[slots] = np.where(inside, flat[np.maximum(places, 0)], 0) if len(flat) else 0
        self._held[slots] = np.minimum(end - begin, self._length)

    def table(self) -> pl.DataFrame:
        """The whole state, ascending by key."""
        keys, slots = self._index.sorted()
        begin = slots * self._length
        lists = _lists(self._items.reshape(-1), begin + self._length - self._held[slots], begin + self._length)
        return pl.DataFrame({"key": keys, "items": lists})

    def restore(self, table: pl.DataFrame) -> None:
        """Take the state of `table`."""
        self.__init__(self._length, wide=self._wide)  # type: ignore[misc]
        held = table["items"].list.len().cast(pl.Int64).to_numpy()
        end = np.cumsum(held)
        self._learn(table["key"].to_numpy(), table["items"].explode().drop_nulls().to_numpy(), end - held, end)


def _lists(flat: Items, begin: Ints, end: Ints) -> pl.Series:
    """`flat[begin:end]` of each row, as a list column."""
    sizes = end - begin
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    places = np.arange(offsets[-1]) + np.repeat(begin - offsets[:-1], sizes)
    lists = pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(flat[places]))
    return pl.Series(lists)
