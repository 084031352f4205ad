"""Two sets of arrays that take turns: a reader goes from version to version without a copy of all its weights.

advance(8)  ▶ arrays A        advance(9)  ▶ arrays B        advance(10)  ▶ arrays A, made over from 8 to 10
"""

from collections.abc import Mapping
from typing import Protocol

import msgspec
import numpy as np

from contracts.stores import WeightStore
from contracts.weights import WeightManifest, Weights
from nodes.chains import Steps, tables_of
from nodes.deltas import rows_apart


class SteppingStore(Protocol):
    """A weight store that tells what leads to a version."""

    def steps(self, version: int, base: Weights | None = None, into: Mapping[str, np.ndarray] | None = None) -> Steps:
        """What leads to a version from the base, or from a full one: verified, not applied."""
        ...


class ServedStore(SteppingStore, WeightStore, Protocol):
    """A weight store that a scorer follows."""

    def manifest(self, version: int) -> WeightManifest:
        """The verified manifest of a version, without its arrays."""
        ...


class WeightBuffers:
    """Weights by version, in two buffers.

    What `advance` gave stays untouched until two later calls of it; by then nobody may read it any more. A version that
    could not be used is given back with `release`, so that its buffer is written next and not that of its predecessor.

    Args:
        store: where versions lie.
    """

    def __init__(self, store: SteppingStore) -> None:
        self._store = store
        self._newest: Weights | None = None
        self._spare: Weights | None = None  # handed out before the newest
        self._apart: np.ndarray | None = None  # rows in which the two differ; None: any
        self._spare_is_whole = True  # False: something was being read into it when it broke off

    def advance(self, version: int) -> Weights:
        """A whole, verified version; `changed` says how it differs from what was handed out before.

        A delta costs what it changes; a full version is read into the spare arrays, and compared with the newest.

        Raises:
            StoreError, CorruptError, SchemaMismatchError: as the store; the newest that was handed out stays as it is.
        """
        before = self._newest
        apart, self._apart = self._apart, None
        self._spare_is_whole = False
        steps = self._store.steps(version, before, None if self._spare is None else tables_of(self._spare))
        if before is not None and steps.from_base:
            made, self._apart = steps.applied_to(self._made_over(before, apart)), steps.touched()
        else:
            made = steps.applied_to(tables_of(steps.start))
            if before is not None and _shapes(before) == _shapes(made):
                self._apart = rows_apart(made.arrays, before.arrays)
                made = msgspec.structs.replace(made, changed=dict.fromkeys(tables_of(made), self._apart))
        self._newest, self._spare, self._spare_is_whole = made, before, True
        return made

    def release(self, weights: Weights) -> None:
        """Nobody reads these any more: their buffer is written next."""
        if weights is not self._newest:
            return
        self._newest, self._spare = (self._spare if self._spare_is_whole else None), self._newest

    def _made_over(self, newest: Weights, apart: np.ndarray | None) -> dict[str, np.ndarray]:
        """Tables that equal the newest ones, in the spare buffer."""
        wanted, made = tables_of(newest), {} if self._spare is None else tables_of(self._spare)
        if self._spare is None or _shapes(self._spare) != _shapes(newest):
            return {name: array.copy() for name, array in wanted.items()}
        for name, array in wanted.items():
            if apart is None:
                np.copyto(made[name], array)
            else:
                made[name][apart] = array[apart]
        return made


def _shapes(weights: Weights) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in tables_of(weights).items()}
