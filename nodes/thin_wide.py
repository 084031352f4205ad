"""First-order weights without their zeros, as FTRL's L1 leaves most of them: a zero costs nothing in a version.

    wide_rows [K]   uint32, ascending: rows of the table whose weight is not 0
    wide      [K]   their weights; in a delta, of its `rows` those whose weight is not 0

It is used where it is smaller, with `train.wide_optimizer = "ftrl"`. N rows of the table, U rows of a delta.
"""

from collections.abc import Mapping

import numpy as np

from contracts.errors import CorruptError
from contracts.weights import ROW_TABLES, ROWS, WIDE, WIDE_ROWS, WeightManifest

_ROW_BYTES = 4


def thinned(wide: np.ndarray, rows: np.ndarray | None, item_bytes: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Row numbers and weights of those that are not 0 to the bit; None where whole weights are not larger.

    Args:
        wide: float32 [N] or, of a delta, [U].
        rows: of a delta, [U] ascending; None: `wide` is whole.
        item_bytes: of a weight as it travels.

    >>> [part.tolist() for part in thinned(np.array([0, 0, 0, 2, 0], np.float32), None, 2)]
    [[3], [2.0]]
    >>> thinned(np.array([1, 0, 2], np.float32), None, 2) is None
    True
    """
    at = np.flatnonzero(wide.view(np.int32))
    if at.size * (_ROW_BYTES + item_bytes) >= wide.size * item_bytes:
        return None
    return (at if rows is None else rows[at]), wide[at]


def whole_shapes(manifest: WeightManifest) -> dict[str, tuple[int, ...]]:
    """Shapes of a version's arrays, its first-order weights with their zeros; of a delta's row tables [U, ...]."""
    shapes = {blob.name: blob.shape for blob in manifest.blobs}
    if shapes.pop(WIDE_ROWS, None) is not None:
        shapes[WIDE] = shapes[ROWS if manifest.kind == "delta" else ROW_TABLES[0]][:1]
    return shapes


def check_thin(manifest: WeightManifest, name: str) -> None:
    """Refuse row numbers without weights, and weights that do not fit them, before anything is read.

    Raises:
        CorruptError: naming the version.
    """
    shapes = {blob.name: blob.shape for blob in manifest.blobs}
    if WIDE_ROWS not in shapes:
        return
    needed = (ROW_TABLES[0], ROWS) if manifest.kind == "delta" else ROW_TABLES[:1]
    if len(shapes[WIDE_ROWS]) != 1 or shapes.get(WIDE) != shapes[WIDE_ROWS] or not all(map(shapes.get, needed)):
        raise CorruptError(f"{name}: its array '{WIDE_ROWS}' does not fit the others; publish it again")


def filled(
    arrays: dict[str, np.ndarray], name: str, *, rows: np.ndarray | None = None, into: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """A version's arrays with the zeros of its first-order weights put back.

    Args:
        arrays: as they were read.
        name: of the version.
        rows: of a delta, [U] ascending and within the table.
        into: memory for the weights, where it has their shape.

    Raises:
        CorruptError: row numbers that do not ascend or are none of the table's, or of the delta's.
    """
    if WIDE_ROWS not in arrays:
        return arrays
    numbers, values = arrays[WIDE_ROWS], arrays[WIDE]
    size = arrays[ROW_TABLES[0]].shape[0]
    fits = numbers.size <= size and not (numbers[1:] <= numbers[:-1]).any()
    if rows is not None and fits and numbers.size:
        at = np.searchsorted(rows, numbers)
        fits = bool(at[-1] < rows.size and (rows[at] == numbers).all())
        numbers = at
    if not fits or (numbers.size and numbers[-1] >= size):
        raise CorruptError(
            f"{name}: the row numbers in '{WIDE_ROWS}' do not ascend, or are not its own; publish it again"
        )
    whole = (
        into
        if into is not None and (into.shape, into.dtype) == ((size,), values.dtype)
        else np.empty(size, values.dtype)
    )
    whole[:] = 0
    whole[numbers] = values
    return {key: array for key, array in arrays.items() if key != WIDE_ROWS} | {WIDE: whole}


def without_zeros(
    arrays: Mapping[str, np.ndarray], rows: np.ndarray | None, item_bytes: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Arrays as they travel, and the row numbers of the weights that are left; none where that would not be smaller."""
    thin = thinned(arrays[WIDE], rows, item_bytes) if WIDE in arrays else None
    if thin is None:
        return dict(arrays), {}
    return {**arrays, WIDE: thin[1]}, {WIDE_ROWS: thin[0]}
