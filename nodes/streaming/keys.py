"""Dense slots for 64-bit keys, looked up a whole batch at a time."""

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]

_NO_KEYS = np.empty(0, np.uint64)
_NO_SLOTS = np.empty(0, np.int64)


class KeyIndex:
    """Each key's slot, 0 for the first key ever added, 1 for the next.

    Two sorted arrays: a large one, and a small one of late additions that is merged into it when it has grown to a
    quarter of it, so that an addition costs little on average. 16 bytes a key.

    >>> index = KeyIndex()
    >>> index.add(np.array([7, 9], np.uint64)).tolist(), index.find(np.array([8, 9], np.uint64)).tolist()
    ([0, 1], [-1, 1])
    """

    def __init__(self) -> None:
        self._keys, self._slots = _NO_KEYS, _NO_SLOTS
        self._late_keys, self._late_slots = _NO_KEYS, _NO_SLOTS

    def __len__(self) -> int:
        return len(self._keys) + len(self._late_keys)

    def find(self, keys: Keys) -> Ints:
        """The slot of each key, -1 where it has none."""
        slots = _find(self._keys, self._slots, keys)
        late = _find(self._late_keys, self._late_slots, keys)
        return np.where(late >= 0, late, slots)

    def add(self, keys: Keys) -> Ints:
        """The slot of each of these ascending, unequal keys; keys not seen yet get the next slots in their order."""
        slots = self.find(keys)
        unseen = slots < 0
        fresh = keys[unseen]
        if len(fresh):
            slots[unseen] = np.arange(len(self), len(self) + len(fresh))
            self._late_keys, self._late_slots = _merged(self._late_keys, self._late_slots, fresh, slots[unseen])
            if len(self._late_keys) > max(4096, len(self._keys) // 4):
                self._keys, self._slots = _merged(self._keys, self._slots, self._late_keys, self._late_slots)
                self._late_keys, self._late_slots = _NO_KEYS, _NO_SLOTS
        return slots

    def sorted(self) -> tuple[Keys, Ints]:
        """All keys, ascending, and the slot of each."""
        return _merged(self._keys, self._slots, self._late_keys, self._late_slots)


def _find(sorted_keys: Keys, slots: Ints, keys: Keys) -> Ints:
    if not len(sorted_keys):
        return np.full(len(keys), -1, np.int64)
    at = np.minimum(np.searchsorted(sorted_keys, keys), len(sorted_keys) - 1)
    return np.where(sorted_keys[at] == keys, slots[at], -1)


def _merged(keys: Keys, slots: Ints, more_keys: Keys, more_slots: Ints) -> tuple[Keys, Ints]:
    at = np.searchsorted(keys, more_keys)
    return np.insert(keys, at, more_keys), np.insert(slots, at, more_slots)
