"""How often ids without a row were seen lately: exactly, or in a counting Bloom filter.

Both count in two spans, from barrier to barrier: what was seen before the last barrier but one is forgotten, so that
memory is bounded by what two spans hold. Shapes: U distinct ids.
"""

from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from contracts.dynamic import DynamicTable
from contracts.errors import ContractError
from model.id_map import IdMap, Keys

Counts = npt.NDArray[np.int64]

_HASHES = 4  # of the Bloom filter: the best number at 6 cells a key
_MIX = np.uint64(0xBF58_476D_1CE4_E5B9)
_OTHER_MIX = np.uint64(0x94D0_49BB_1331_11EB)


class Sightings(Protocol):
    """Counts sightings of ids that have no row."""

    def add(self, keys_U: Keys, counts_U: Counts) -> Counts:
        """Count distinct ids; how often each was seen in this span and the one before."""
        ...

    def turn(self) -> None:
        """A barrier: begin a new span, and forget the one before the last."""
        ...

    @property
    def nbytes(self) -> int:
        """Memory."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Copies of all that it knows."""
        ...

    def load(self, state: dict[str, Tensor]) -> None:
        """Take over what `state` gave."""
        ...


def sightings_of(settings: DynamicTable) -> Sightings | None:
    """What counts for these settings; None where the first sighting admits."""
    if settings.admit_after == 1:
        return None
    return ExactSightings() if settings.admission == "exact" else BloomSightings(settings.bloom_cells)


class _Span:
    """Counts of one span: arrays that double, and a map into them. 20 to 44 bytes an id."""

    def __init__(self) -> None:
        self._keys, self._counts, self._size = np.zeros(64, np.uint64), np.zeros(64, np.int64), 0
        self._map = IdMap(self._keys)

    def look_up(self, keys_U: Keys) -> Counts:
        place_U = self._map.find(keys_U)
        return np.where(place_U >= 0, self._counts[place_U], 0)

    def add(self, keys_U: Keys, counts_U: Counts) -> Counts:
        place_U = self._map.find(keys_U)
        new = np.flatnonzero(place_U < 0)
        end = self._size + new.size
        if end > self._keys.size:
            more = max(end, 2 * self._keys.size) - self._keys.size
            self._keys = self._map.keys = np.concatenate([self._keys, np.zeros(more, np.uint64)])
            self._counts = np.concatenate([self._counts, np.zeros(more, np.int64)])
        place_U[new] = np.arange(self._size, end)
        self._keys[self._size : end] = keys_U[new]
        self._map.insert(place_U[new])
        self._size = end
        self._counts[place_U] += counts_U
        return self._counts[place_U]

    @property
    def nbytes(self) -> int:
        return self._keys.nbytes + self._counts.nbytes + self._map.nbytes

    def arrays(self) -> tuple[Keys, Counts]:
        return self._keys[: self._size], self._counts[: self._size]


class ExactSightings:
    """Counts without error.

    >>> seen = ExactSightings()
    >>> seen.add(np.array([7, 9], np.uint64), np.array([1, 2])).tolist()
    [1, 2]
    >>> seen.turn()
    >>> seen.add(np.array([9], np.uint64), np.array([1])).tolist()
    [3]
    """

    def __init__(self) -> None:
        self._now, self._before = _Span(), _Span()

    def add(self, keys_U: Keys, counts_U: Counts) -> Counts:
        """As `Sightings.add`."""
        return self._now.add(keys_U, counts_U) + self._before.look_up(keys_U)

    def turn(self) -> None:
        """As `Sightings.turn`."""
        self._now, self._before = _Span(), self._now

    @property
    def nbytes(self) -> int:
        """Memory."""
        return self._now.nbytes + self._before.nbytes

    def state(self) -> dict[str, Tensor]:
        """Copies of the keys, as int64 bits, and counts of both spans."""
        made = {}
        for name, span in (("now", self._now), ("before", self._before)):
            keys, counts = span.arrays()
            made[f"{name}.keys"] = torch.from_numpy(keys.view(np.int64).copy())
            made[f"{name}.counts"] = torch.from_numpy(counts.copy())
        return made

    def load(self, state: dict[str, Tensor]) -> None:
        """Take over what `state` gave."""
        self._now, self._before = _Span(), _Span()
        for name, span in (("now", self._now), ("before", self._before)):
            keys, counts = (state[f"{name}.{part}"].numpy() for part in ("keys", "counts"))
            span.add(keys.view(np.uint64), counts)


class BloomSightings:
    """Counts that may be too large and never too small, in two spans of `cells` bytes.

    Counting Bloom filter (Fan et al., IEEE/ACM ToN 2000) with the conservative update of Estan & Varghese (SIGCOMM
    2002): only the smallest of an id's cells grows. A cell stops at 255.

    >>> seen = BloomSightings(64)
    >>> seen.add(np.array([7, 9], np.uint64), np.array([1, 2])).tolist()
    [1, 2]
    """

    def __init__(self, cells: int) -> None:
        self._cells = np.zeros((2, cells), np.uint8)  # this span, and the one before

    def add(self, keys_U: Keys, counts_U: Counts) -> Counts:
        """As `Sightings.add`, an estimate from above."""
        mixed_U = (keys_U ^ (keys_U >> np.uint64(32))) * _MIX
        first_U, step_U = mixed_U ^ (mixed_U >> np.uint64(29)), (mixed_U * _OTHER_MIX) | np.uint64(1 << 32)
        hash_HU = np.stack([first_U + np.uint64(i) * step_U for i in range(_HASHES)]) >> np.uint64(32)
        at_HU = (hash_HU & np.uint64(self._cells.shape[1] - 1)).astype(np.int64)
        now, before = self._cells
        total_U = now[at_HU].min(axis=0) + counts_U
        grown_U = np.minimum(total_U, 255).astype(np.uint8)
        # flat: NumPy 2 reads past the end of values that `at` would have to broadcast
        np.maximum.at(now, at_HU.reshape(-1), np.tile(grown_U, _HASHES))
        counted: Counts = total_U + before[at_HU].min(axis=0)
        return counted

    def turn(self) -> None:
        """As `Sightings.turn`."""
        self._cells[1] = self._cells[0]
        self._cells[0] = 0

    @property
    def nbytes(self) -> int:
        """Memory."""
        return self._cells.nbytes

    def state(self) -> dict[str, Tensor]:
        """A copy of the cells."""
        return {"cells": torch.from_numpy(self._cells.copy())}

    def load(self, state: dict[str, Tensor]) -> None:
        """Take over what `state` gave.

        Raises:
            ContractError: the filter was of another size.
        """
        cells = state["cells"].numpy()
        if cells.shape != self._cells.shape:
            raise ContractError(
                f"the checkpoint's Bloom filter has {cells.shape[1]} cells, but bloom_cells is {self._cells.shape[1]}; "
                "set it back, or train into a new folder"
            )
        self._cells[:] = cells
