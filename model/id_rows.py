"""The rows of one dynamic table: who owns which, who gets one, and who gives it up.

Shapes: M look-ups, U distinct ids among them, R rows of the table.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from contracts.dynamic import FIRST_ROW, MISSING_ROW, OOV_ROW, DynamicTable
from contracts.errors import ContractError
from model.id_map import IdMap, Keys, Places
from model.sightings import sightings_of
from model.state import part_of


class Admitted(NamedTuple):
    """What a minibatch's ids came to."""

    rows_M: Places  #: the row of each look-up
    new_U: Places  #: rows that were handed out, in no order; `IdRows.keys` says to whom


class IdRows:
    """Ids -> rows of one table, with admission and eviction (`contracts.dynamic`).

    Which row an id gets depends on the ids that came, in their minibatches, and on nothing else: new ids take the
    lowest free rows in the order of their hashes; where there are too few, those seen most come first.

    Memory a row: 8 bytes for the key, 8 for when it was seen last, 4 for the count, 4 in the list of free rows, 8 to 16
    in the map: 32 to 40, beside the weights; and what `model.sightings` needs.

    Args:
        settings: of the table.
        keys: [R], all 0: the id that owns each row, 0 for nobody; written here, read by others.
    """

    def __init__(self, settings: DynamicTable, keys: Keys) -> None:
        self.settings, self.keys = settings, keys
        self._last = np.zeros(settings.rows, np.int64)  # when each was seen last, in rows learnt or milliseconds
        self._count = np.zeros(settings.rows, np.int32)
        self._map = IdMap(keys)
        self._sightings = sightings_of(settings)
        self._find_free()

    @property
    def used(self) -> int:
        """Ids that have a row."""
        return self.settings.capacity - (self._free.size - self._next)

    @property
    def nbytes(self) -> int:
        """Memory, weights not counted."""
        mine = (self.keys, self._last, self._count, self._free)
        seen = 0 if self._sightings is None else self._sightings.nbytes
        return sum(array.nbytes for array in mine) + self._map.nbytes + seen

    def look_up(self, keys_M: Keys) -> Places:
        """The row of each id, without counting it: `OOV_ROW` where it has none."""
        rows_M = self._map.find(keys_M)
        rows_M[rows_M < 0] = OOV_ROW
        rows_M[keys_M == 0] = MISSING_ROW
        return rows_M

    def admit(self, keys_M: Keys, now: int) -> Admitted:
        """The row of each id of a minibatch; those that have been seen often enough get one.

        Args:
            keys_M: hashes; 0 is a missing id.
            now: rows learnt before it, or its newest event time in milliseconds.
        """
        rows_M = self._map.find(keys_M)
        known = rows_M[rows_M >= 0]
        self._last[known] = now
        np.add.at(self._count, known, np.ones(known.size, np.int32))  # of its own type, or NumPy takes the slow way
        new = np.flatnonzero(rows_M < 0)
        given = np.empty(0, np.int64)
        if new.size:
            rows_M[new], given = self._meet(keys_M[new], now)
        return Admitted(rows_M, given)

    def _meet(self, keys_N: Keys, now: int) -> tuple[Places, Places]:
        """Look-ups that found no row: the row that each reads all the same, and the rows that were handed out."""
        keys_U, inverse_N, count_U = np.unique(keys_N, return_inverse=True, return_counts=True)
        rows_U = np.where(keys_U == 0, MISSING_ROW, OOV_ROW)
        new = np.flatnonzero(keys_U)
        total = count_U[new]
        if self._sightings is not None:
            total = self._sightings.add(keys_U[new], total)
            enough = total >= self.settings.admit_after
            new, total = new[enough], total[enough]
        given, new = self._give(keys_U, new, total, now)
        rows_U[new] = given
        return rows_U[inverse_N.reshape(-1)], given

    def _give(self, keys_U: Keys, new: Places, total: Places, now: int) -> tuple[Places, Places]:
        """Hand out rows to `new` places of `keys_U`; the rows, and who got them."""
        free = self._free.size - self._next
        if new.size > free:  # those seen most come first, then the smaller hash
            chosen = np.sort(np.lexsort((keys_U[new], -total))[:free])
            new, total = new[chosen], total[chosen]
        rows = self._free[self._next : self._next + new.size].astype(np.int64)
        self._next += new.size
        self.keys[rows], self._last[rows] = keys_U[new], now
        self._count[rows] = np.minimum(total, np.iinfo(np.int32).max)
        self._map.insert(rows)
        return rows, new

    def evict(self, now: int) -> Places:
        """A barrier: some ids give up their rows, counts halve, and a new span of sightings begins.

        Args:
            now: as for `admit`.

        Returns:
            The rows that are free again, ascending.
        """
        rows = np.flatnonzero(self.keys)
        going = self._count[rows] < self.settings.min_count
        if self.settings.oldest is not None:
            going |= now - self._last[rows] > self.settings.oldest
        stay = rows[~going]
        wanted = int(self.settings.free_share * self.settings.capacity)
        pressed = max(stay.size - (self.settings.capacity - wanted), 0)
        if pressed:
            least = np.lexsort((self.keys[stay], self._last[stay], self._count[stay]))[:pressed]
            going[np.searchsorted(rows, stay[least])] = True
            stay = rows[~going]
        gone = rows[going]
        self._count[stay] >>= 1
        self.keys[gone], self._last[gone], self._count[gone] = 0, 0, 0
        if gone.size:
            self._map.renew(stay)
            self._find_free()
        if self._sightings is not None:
            self._sightings.turn()
        return gone

    def adopted(self) -> None:
        """The keys were written by somebody else: their ids are known from now on, as seen once."""
        self._count[:] = self.keys != 0
        self._map.renew(np.flatnonzero(self.keys))
        self._find_free()

    def begin(self, now: int) -> None:
        """Learning begins: ids that are known already were seen last now."""
        self._last[self.keys != 0] = now

    def _find_free(self) -> None:
        self._free = np.flatnonzero(self.keys[FIRST_ROW:] == 0).astype(np.int32)
        self._free += FIRST_ROW
        self._next = 0

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        return {"keys": self.keys.view(np.int64), "last": self._last, "count": self._count}

    def state(self) -> dict[str, Tensor]:
        """Copies of all that steers it: who owns which row (int64 bits), when and how often it was seen, sightings."""
        made = self._arrays()
        seen = {} if self._sightings is None else self._sightings.state()
        return {name: torch.from_numpy(array.copy()) for name, array in made.items()} | {
            f"seen.{name}": tensor for name, tensor in seen.items()
        }

    def load(self, state: dict[str, Tensor]) -> None:
        """Take over what `state` gave.

        Raises:
            ContractError: it is of a table of another size, or counted otherwise.
        """
        for name, array in self._arrays().items():
            if name not in state or tuple(state[name].shape) != array.shape:
                raise ContractError(
                    f"the checkpoint's table has no '{name}' for {array.size} rows; set capacity back, or train into a "
                    "new folder"
                )
            array[:] = state[name].numpy()
        self._map.renew(np.flatnonzero(self.keys))
        self._find_free()
        seen = part_of(state, "seen")
        if self._sightings is not None:
            if seen.keys() != self._sightings.state().keys():
                raise ContractError(
                    "the checkpoint counted sightings in another way; set admission and admit_after back, or train "
                    "into a new folder"
                )
            self._sightings.load(seen)


Drawn = npt.NDArray[np.float32]


def first_weights(keys_U: Keys, width: int, deviation: float, seed: int) -> Drawn:
    """Normal numbers that hang on seed and id alone, so that neither when an id comes nor what came before matters.

    SplitMix64 (Steele, Lea & Flood, OOPSLA 2014) over id and column, then Box & Muller.

    >>> first_weights(np.array([5, 6], np.uint64), 2, 0.1, 1).round(3).tolist()[1] == (
    ...     first_weights(np.array([6], np.uint64), 2, 0.1, 1).round(3).tolist()[0]
    ... )
    True
    """
    pairs = (width + 1) // 2
    column = np.arange(2 * pairs, dtype=np.uint64) * np.uint64(0xD1B5_4A32_D192_ED03)
    bits = keys_U[:, None] ^ (column + np.uint64((seed * 0xA076_1D64_78BD_642F + 0xE703_7ED1_A0B4_28DB) % 2**64))
    for shift, factor in ((30, 0xBF58_476D_1CE4_E5B9), (27, 0x94D0_49BB_1331_11EB)):
        bits = (bits ^ (bits >> np.uint64(shift))) * np.uint64(factor)
    bits ^= bits >> np.uint64(31)
    uniform = (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
    radius = np.sqrt(-2.0 * np.log1p(-uniform[:, :pairs])) * deviation
    angle = 2.0 * np.pi * uniform[:, pairs:]
    normal = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return normal[:, :width].astype(np.float32)
