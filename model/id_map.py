"""Which place holds which key: open addressing in NumPy, a whole minibatch at a time, no loop over ids.

Shapes: U distinct keys, S slots (a power of two, at most half of them taken).
"""

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]

_SPREAD = np.uint64(0x9E37_79B9_7F4A_7C15)  # odd, golden ratio: Fibonacci hashing (Knuth, TAOCP 3, 6.4)
_LEAST_SLOTS = 64


class IdMap:
    """Key -> place, over an array of the owner's that holds the key of each place.

    Linear probing; what it answers depends on the keys alone and not on the order in which they came, so it is no part
    of any state. 4 bytes a slot: 8 to 16 bytes a key.

    Args:
        keys: the key of each place; the owner writes it before `insert`.

    >>> keys = np.array([7, 0, 9], np.uint64)
    >>> known = IdMap(keys)
    >>> known.insert(np.array([0, 2]))
    >>> known.find(np.array([9, 8, 7], np.uint64)).tolist()
    [2, -1, 0]
    """

    def __init__(self, keys: Keys) -> None:
        self.keys = keys  #: of each place; may be exchanged for a longer copy
        self._taken = 0
        self._clear(_LEAST_SLOTS)

    @property
    def nbytes(self) -> int:
        """Memory, the owner's keys not counted."""
        return self._slots.nbytes

    def find(self, keys_U: Keys) -> Places:
        """The place of each key; -1 where there is none."""
        slot_U = self._home(keys_U)
        place_U = self._slots[slot_U]
        todo = np.flatnonzero((place_U >= 0) & (self.keys[place_U] != keys_U))
        while todo.size:
            slot_U[todo] = (slot_U[todo] + 1) & self._mask
            place = self._slots[slot_U[todo]]
            place_U[todo] = place
            todo = todo[(place >= 0) & (self.keys[place] != keys_U[todo])]
        return place_U.astype(np.int64)

    def insert(self, places: Places) -> None:
        """Take in places whose keys are distinct and not there yet."""
        self._taken += places.size
        if 2 * self._taken > self._slots.size:
            held = self._slots[self._slots >= 0]
            self._clear(max(_LEAST_SLOTS, 1 << int(2 * self._taken - 1).bit_length()))
            self._put(held)
        self._put(places.astype(np.int32))

    def renew(self, places: Places) -> None:
        """Hold these places and no others."""
        self._taken = 0
        self._clear(max(_LEAST_SLOTS, self._slots.size))
        self.insert(places)

    def _clear(self, slots: int) -> None:
        self._slots = np.full(slots, -1, np.int32)
        self._mask, self._shift = slots - 1, np.uint64(64 - slots.bit_length() + 1)

    def _home(self, keys_U: Keys) -> Places:
        slot_U: Places = ((keys_U * _SPREAD) >> self._shift).astype(np.int64)
        return slot_U

    def _put(self, places: npt.NDArray[np.int32]) -> None:
        slot_U = self._home(self.keys[places])
        while places.size:
            free = np.flatnonzero(self._slots[slot_U] < 0)
            self._slots[slot_U[free]] = places[free]  # of rivals for one slot the last stays
            lost = self._slots[slot_U] != places
            places, slot_U = places[lost], (slot_U[lost] + 1) & self._mask
