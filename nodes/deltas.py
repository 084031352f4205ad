"""What differs between two versions: found, carried, and applied.

A delta applied to its base gives bit for bit what the full version of the same arrays would. U rows given anew, E rows
evicted, R rows and D columns of a table.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from contracts.errors import CorruptError
from contracts.weights import EVICTED, ROW_TABLES, ROWS, WeightManifest
from nodes.thin_wide import filled, whole_shapes
from nodes.verify_weights import read_arrays

_ROWS_AT_ONCE = 16_384  # compared: small enough for the cache
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Delta:
    """What leads from a version to a later one."""

    manifest: WeightManifest
    rows_U: np.ndarray  #: int64, ascending
    evicted_E: np.ndarray  #: int64, ascending, none of `rows_U`
    tables: dict[str, np.ndarray]  #: the values of `rows_U`, [U, ...]
    others: dict[str, np.ndarray]  #: whole arrays

    @property
    def changed(self) -> np.ndarray:
        """Rows that it writes, ascending."""
        return union(self.rows_U, self.evicted_E)

    def write_into(self, tables: Mapping[str, np.ndarray]) -> None:
        """Write its rows into whole tables, in place."""
        for name, values in self.tables.items():
            tables[name][self.rows_U] = values
            tables[name][self.evicted_E] = 0


def check_fit(manifest: WeightManifest, base: WeightManifest, shapes: Shapes) -> None:
    """Refuse a delta that was not made for its base, before its arrays are read.

    Args:
        manifest: of the delta.
        base: of the version that it is to be applied to, full or a delta.
        shapes: of the whole arrays.

    Raises:
        CorruptError: another base than the one that it was made for, or arrays that do not fit it.
    """
    name = f"version {manifest.version} of model '{manifest.model}'"
    if (manifest.base_version, manifest.base_digest, manifest.deltas) != (base.version, base.digest, base.deltas + 1):
        raise CorruptError(f"{name}: was made for another base than version {base.version}; publish it again")
    if (manifest.schema_id, manifest.app, manifest.link) != (base.schema_id, base.app, base.link):
        raise CorruptError(f"{name}: is of another app or schema than its base; publish it again")
    found = {blob.name: blob for blob in manifest.blobs}
    dtypes = {blob.name: blob.dtype for blob in base.blobs}
    own = whole_shapes(manifest)
    if own.keys() - {ROWS, EVICTED} != shapes.keys():
        raise CorruptError(f"{name}: has other arrays than its base, version {base.version}; publish it again")
    for array, shape in shapes.items():
        start = found[ROWS].shape if array in ROW_TABLES else shape[:1]
        if own[array] != (*start, *shape[1:]) or found[array].dtype != dtypes[array]:
            raise CorruptError(
                f"{name}: its array '{array}' of shape {own[array]} and dtype {found[array].dtype} does not "
                f"fit that of its base, version {base.version}; publish it again"
            )
    table_rows = {shapes[array][:1] for array in ROW_TABLES if array in shapes}
    if len(table_rows) > 1 or () in table_rows:
        raise CorruptError(
            f"{name}: the tables of its base, version {base.version}, differ in rows; publish a full one"
        )
    most = shapes[ROW_TABLES[0]][0]
    if found[ROWS].shape[0] + found[EVICTED].shape[0] > most:
        raise CorruptError(f"{name}: has more row numbers than its tables have rows ({most}); publish it again")


def read_delta(manifest: WeightManifest, chunks: Iterable[bytes], table_rows: int) -> Delta:
    """A delta, when each byte is the one that was published and its row numbers are some.

    Args:
        manifest: as `check_fit` accepted it.
        chunks: all its chunks in order.
        table_rows: of the tables that it is to be written into.

    Raises:
        CorruptError: a wrong byte or chunk, a NaN, row numbers that do not ascend, lie beyond the table or stand twice.
    """
    arrays = read_arrays(manifest, chunks)
    rows_U, evicted_E = arrays.pop(ROWS), arrays.pop(EVICTED)
    for numbers in (rows_U, evicted_E, union(rows_U, evicted_E)):
        if numbers.size and (numbers[-1] >= table_rows or (numbers[1:] <= numbers[:-1]).any()):
            raise CorruptError(
                f"version {manifest.version} of model '{manifest.model}': its row numbers do not ascend, stand "
                f"twice or lie beyond the {table_rows} rows of its tables; publish it again"
            )
    arrays = filled(arrays, f"version {manifest.version} of model '{manifest.model}'", rows=rows_U)
    tables = {name: arrays.pop(name) for name in ROW_TABLES if name in arrays}
    return Delta(manifest, rows_U, evicted_E, tables, arrays)


def union(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Both lists as one, in order; what stands in both stands twice.

    >>> union(np.array([1, 5]), np.array([2]))
    array([1, 2, 5])
    """
    if not other.size or not one.size:
        return one if one.size else other
    return np.sort(np.concatenate((one, other)), kind="stable")


def quantised(values: np.ndarray, dtype: str) -> np.ndarray:
    """The float32 numbers that a reader gets for these; keys as they are.

    >>> quantised(np.array([0.1], np.float32), "float16")
    array([0.09997559], dtype=float32)
    """
    if values.dtype.kind == "u":
        return values.copy()
    with np.errstate(over="ignore"):  # an infinity differs from its base, and is refused with the rows that do
        return values.astype(dtype).astype(np.float32)


def rows_that_differ(
    arrays: Mapping[str, np.ndarray], base: Mapping[str, np.ndarray], dtype: str, among: np.ndarray | None
) -> np.ndarray:
    """Rows of the tables whose bits, as a reader gets them, differ from the base's: int64, ascending.

    Args:
        arrays: float32, as they were learnt.
        base: dequantised, as they were published.
        dtype: on the wire.
        among: look at these rows only, ascending; None looks at all.
    """
    names = [name for name in ROW_TABLES if name in arrays]
    found = []
    for start in range(0, base[names[0]].shape[0] if among is None else among.size, _ROWS_AT_ONCE):
        some = slice(start, start + _ROWS_AT_ONCE) if among is None else among[start : start + _ROWS_AT_ONCE]
        new = {name: quantised(arrays[name][some], dtype) for name in names}
        apart = rows_apart(new, {name: base[name][some] for name in names})
        found.append(apart + start if isinstance(some, slice) else some[apart])
    return np.concatenate(found) if found else np.empty(0, np.int64)


def rows_apart(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> np.ndarray:
    """Rows in which the tables of two sets of arrays differ in a bit: int64, ascending.

    >>> rows_apart({"embedding": np.array([[0.0], [0.0]])}, {"embedding": np.array([[0.0], [-0.0]])})
    array([1])
    """
    rows = one[ROW_TABLES[0]].shape[0]
    differs = np.zeros(rows, bool)
    for name in (table for table in ROW_TABLES if table in one):
        for start in range(0, rows, _ROWS_AT_ONCE):
            new, old = (arrays[name][start : start + _ROWS_AT_ONCE] for arrays in (one, other))
            bits = new.view(np.int32) != old.view(np.int32)  # -0.0 is not 0.0
            differs[start : start + _ROWS_AT_ONCE] |= bits.reshape(new.shape[0], -1).any(axis=1)
    return np.flatnonzero(differs)


def zeros_among(tables: Mapping[str, np.ndarray], rows: int) -> np.ndarray:
    """Which rows are zeros in every table, to the bit: bool [rows].

    >>> zeros_among({"embedding": np.array([[0, 0], [0, 1]], np.float32)}, 2)
    array([ True, False])
    """
    found = np.ones(rows, bool)
    for values in tables.values():
        words = math.prod(values.shape[1:]) * values.itemsize // 4
        found &= ~values.view(np.int32).reshape(rows, words).any(axis=1)
    return found
