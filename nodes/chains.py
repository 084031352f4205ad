"""From a version back to what a reader holds: which deltas lead there, all of them verified before one is applied.

full 7 ◀─ delta 8 ◀─ delta 9 ◀─ delta 10      a reader at 8 that is asked for 10 reads 9 and 10
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Protocol

import msgspec
import numpy as np

from contracts.errors import CorruptError, NotWholeError, NoVersionError, RocketError
from contracts.weights import ROW_TABLES, WeightManifest, Weights
from nodes.deltas import Delta, check_fit, read_delta
from nodes.thin_wide import whole_shapes
from nodes.verify_weights import assemble

NOTHING = np.empty(0, np.int64)


class Versions(Protocol):
    """Where manifests and chunks are read one by one."""

    def manifest(self, version: int) -> WeightManifest:
        """The verified manifest of a version."""
        ...

    def chunks(self, manifest: WeightManifest) -> Iterator[bytes]:
        """Its chunks in order, each of the length that is declared."""
        ...


@dataclass(frozen=True)
class Steps:
    """What leads to a version: from a full one, or from the base that was given."""

    start: Weights  #: to begin from; the base itself where it lies on the chain
    deltas: tuple[Delta, ...]  #: to apply, in order
    from_base: bool

    @property
    def manifest(self) -> WeightManifest:
        """Of the version that they lead to."""
        return self.deltas[-1].manifest if self.deltas else self.start.manifest

    def touched(self) -> np.ndarray:
        """Rows that the deltas write, ascending."""
        touched = [delta.changed for delta in self.deltas]
        if len(touched) < 2:
            return touched[0] if touched else NOTHING
        return np.unique(np.concatenate(touched))

    def applied_to(self, tables: dict[str, np.ndarray]) -> Weights:
        """The version, with these tables made over in place.

        Args:
            tables: those of `start`, which must not be shared with whoever still reads it.
        """
        others = {name: array for name, array in self.start.arrays.items() if name not in ROW_TABLES}
        for delta in self.deltas:
            delta.write_into(tables)
            others = delta.others
        changed = None
        if self.from_base:
            touched = self.touched()
            changed = dict.fromkeys(tables, touched)
        return Weights(self.manifest, tables | others, changed)


def tables_of(weights: Weights) -> dict[str, np.ndarray]:
    """The arrays that have a row an id."""
    return {name: array for name, array in weights.arrays.items() if name in ROW_TABLES}


def chain_of(
    manifest_of: Callable[[int], WeightManifest], manifest: WeightManifest, until: WeightManifest | None = None
) -> list[WeightManifest]:
    """A version and all that it needs, newest first: down to the full one, or to `until` where that is among them.

    Raises:
        NotWholeError: a base is not held. CorruptError: a base is another than it was made for.
    """
    chain = [manifest]
    while chain[-1].kind == "delta" and (until is None or chain[-1].digest != until.digest):
        last = chain[-1]
        assert last.base_version is not None  # noqa: S101  # read_manifest refuses a delta without
        if until is not None and until.digest == last.base_digest:
            chain.append(until)
            break
        name = f"version {last.version} of model '{last.model}'"
        try:
            base = manifest_of(last.base_version)
        except NoVersionError as error:
            raise NotWholeError(
                f"{name}: its base, version {last.base_version}, is not held any more; publish a full one, or roll back"
            ) from error
        if (base.digest, base.deltas) != (last.base_digest, last.deltas - 1):
            raise CorruptError(
                f"{name}: its base, version {base.version}, is another than it was made for; publish it again"
            )
        chain.append(base)
    return chain


def dependents(
    held: Mapping[int, WeightManifest], manifest_of: Callable[[int], WeightManifest]
) -> dict[int, tuple[WeightManifest, set[int]]]:
    """Of each version held, and of all bases of these: its manifest, and those that need it, itself among them."""
    found: dict[int, tuple[WeightManifest, set[int]]] = {}
    for manifest in held.values():
        try:
            chain = chain_of(manifest_of, manifest)
        except RocketError:  # one that is broken needs nothing
            chain = [manifest]
        for link in chain:
            found.setdefault(link.version, (link, set()))[1].add(manifest.version)
    return found


def same_arrays(known: WeightManifest, asked: WeightManifest) -> bool:
    """Whether both are the same arrays at the same place of the log, told in the same way."""
    return (known.position, known.schema_id, known.blobs, known.base_digest) == (
        asked.position, asked.schema_id, asked.blobs, asked.base_digest,
    )  # fmt: skip


def read_steps(
    held: Versions,
    version: int,
    base: Weights | None = None,
    into: Mapping[str, np.ndarray] | None = None,
) -> Steps:
    """Read what leads to a version, verified whole.

    Args:
        held: the store.
        version: where to get.
        base: what the reader holds; where it lies on the chain, only the deltas after it are read.
        into: arrays that nobody reads any more, for a full version to be read into; garbage after an error.

    Raises:
        StoreError: no such version, or one that it needs is gone. CorruptError: any of it is not what was published.
    """
    chain = chain_of(held.manifest, held.manifest(version), None if base is None else base.manifest)
    from_base = base is not None and chain[-1].digest == base.manifest.digest
    if from_base and base is not None:
        start, shapes = base, {name: array.shape for name, array in base.arrays.items()}
    else:
        start, shapes = None, whole_shapes(chain[-1])
    for later, earlier in pairwise(chain):
        check_fit(later, earlier, shapes)
    if start is None:
        start = assemble(chain[-1], held.chunks(chain[-1]), into)
    table_rows = shapes[ROW_TABLES[0]][0] if len(chain) > 1 else 0
    deltas = [read_delta(manifest, held.chunks(manifest), table_rows) for manifest in reversed(chain[:-1])]
    return Steps(start, tuple(deltas), from_base)


def fetch(held: Versions, version: int, base: Weights | None = None) -> Weights:
    """A whole, verified version in arrays of its own; reads only what the base lacks.

    Raises:
        StoreError, CorruptError: as `read_steps`.
    """
    steps = read_steps(held, version, base)
    if not steps.from_base:
        return steps.applied_to(tables_of(steps.start))
    copied = {name: array.copy() for name, array in steps.start.arrays.items()}
    start = msgspec.structs.replace(steps.start, arrays=copied)
    return replace(steps, start=start).applied_to(tables_of(start))
