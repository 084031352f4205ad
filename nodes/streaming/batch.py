"""One batch against the rows that settle while it passes: who sees which of them."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nodes.streaming.keys import Ints, Keys

NO_KEY = np.uint64(0)  # the key of a row where a key column is null: no evidence for it, none from it


@dataclass(frozen=True, slots=True)
class Seen:
    """Settling rows grouped by key, and for each new row the end of what it may see in its group.

    `keys` are the ascending different keys of both; a code is a place among them. Settling rows lie sorted by (code,
    time): row r of group c is at `starts[c] + r`.
    """

    keys: Keys
    rows: Ints  #: settling rows in group order, as places in the arrays given
    starts: Ints  #: one more than keys: where each group begins
    code: Ints  #: of each new row
    end: Ints  #: of each new row: its group's rows before this place are settled for it


def seen_by(settling: Keys, num_settled: Ints, new: Keys, only: npt.NDArray[np.bool_] | None = None) -> Seen:
    """Group the settling rows by key.

    Args:
        settling: key of each row that settles while the batch passes, in log order.
        num_settled: for each new row, how many of those are settled at its event time.
        new: key of each new row.
        only: which settling rows count; None: all.
    """
    counts = settling != NO_KEY if only is None else (settling != NO_KEY) & only
    rows = np.flatnonzero(counts)
    keys, code = np.unique(np.concatenate([settling[rows], new]), return_inverse=True)
    span = len(settling) + 1
    place = np.sort(code[: len(rows)] * span + rows)
    ends = np.searchsorted(place, code[len(rows) :] * span + num_settled)
    starts = np.searchsorted(place, np.arange(len(keys) + 1) * span)
    return Seen(keys, place % span, starts, code[len(rows) :], ends)
