"""Which row a published version gives to an id that owns one."""

from collections.abc import Mapping

import numpy as np

from contracts.dynamic import FIRST_ROW, MISSING_ROW, OOV_ROW
from contracts.features import Layout
from contracts.weights import KEYS


class KeyIndex:
    """Key -> row of one dynamic table, by binary search: 16 bytes an id; a million take 0.1 s to sort, once a version.

    Args:
        keys: of the table's rows, uint64; 0 for nobody's.

    >>> KeyIndex(np.array([0, 0, 70, 50], np.uint64)).rows_of(np.array([50, 60, 70, 0], np.uint64)).tolist()
    [3, 1, 2, 0]
    """

    def __init__(self, keys: np.ndarray) -> None:
        rows = np.flatnonzero(keys[FIRST_ROW:]) + FIRST_ROW
        order = np.argsort(keys[rows])
        self._rows, self._keys = rows[order], keys[rows][order]

    def rows_of(self, keys: np.ndarray) -> np.ndarray:
        """The row of each id, int64: `OOV_ROW` for one that owns none, `MISSING_ROW` for 0."""
        keys = keys.astype(np.uint64, copy=False)
        found = np.full(keys.shape, OOV_ROW, np.int64)
        if self._keys.size:
            at = np.searchsorted(self._keys, keys)
            at[at == self._keys.size] = 0
            found = np.where(self._keys[at] == keys, self._rows[at], found)
        found[keys == 0] = MISSING_ROW
        return found


def owners_of(layout: Layout, arrays: Mapping[str, np.ndarray]) -> dict[str, KeyIndex]:
    """Of each light feature whose ids own their rows: whose each is."""
    starts = layout.offsets
    return {f.name: KeyIndex(arrays[KEYS][starts[f.name] : starts[f.name] + f.rows]) for f in layout.dynamic}
