"""What each item of a catalogue adds to the light net's first layer, computed before anybody asks for it.

Shapes: N places of the catalogue, F id features of items, D embedding width, K columns: those of the first layer, and D
more where the net has pairs (`nodes.light_numpy`).
"""

from dataclasses import dataclass

import numpy as np

from nodes.catalogue import Catalogue
from nodes.light_numpy import LightNet

_CHUNK = 2048  # rows of one product: short enough that another thread waits for none of them


@dataclass(frozen=True)
class ItemVectors:
    """The items' part of the first layer under one version.

    Memory: 4 (K + 1) bytes a place, and 8 F for the rows that they read; both twice while the next is made.
    """

    first_NK: np.ndarray  #: float32
    wide_N: np.ndarray  #: float32
    ids_NF: np.ndarray  #: int64, rows in the fused table
    dense_NX: np.ndarray  #: float32, dense features
    generation: object  #: of the catalogue
    part: tuple[np.ndarray, ...]  #: the weights that multiply what is looked up
    computed: int  #: places for which this needed a product; the others were taken over

    @classmethod
    def of(
        cls,
        net: LightNet,
        catalogue: Catalogue,
        before: "ItemVectors | None" = None,
        changed: dict[str, np.ndarray] | None = None,
    ) -> "ItemVectors":
        """Compute them, or only those that differ from the ones before.

        Args:
            net: under whose weights.
            catalogue: whose items.
            before: of an earlier catalogue, or version.
            changed: rows of "embedding" and "wide" that differ from the version of `before`; None: any may.

        Raises:
            ContractError: the catalogue's features are not those that the net needs.
        """
        rows = catalogue.items.height
        kept = before if before is not None and before.generation is catalogue.generation else None
        have = min(len(kept.wide_N), rows) if kept else 0
        moving = any(net.candidate.owners)  # then a version may give an item another row
        new = catalogue.features if moving else {name: v[have:] for name, v in catalogue.features.items()}
        ids_NF, dense_NX = net.candidate.inputs(new, rows if moving else rows - have)
        if kept and not moving:
            ids_NF = np.concatenate([kept.ids_NF[:have], ids_NF])
            dense_NX = np.concatenate([kept.dense_NX[:have], dense_NX])
        part = net.candidate.constants()
        first_NK, wide_N = np.empty((rows, part[0].shape[1]), np.float32), np.empty(rows, np.float32)
        wrong_N = np.ones(rows, bool)
        if kept and changed is not None and _same(part, kept.part):
            first_NK[:have], wide_N[:have] = kept.first_NK[:have], kept.wide_N[:have]
            wrong_N[:have] = _touched(ids_NF[:have], changed)
            if moving:
                wrong_N[:have] |= (ids_NF[:have] != kept.ids_NF[:have]).any(axis=1)
        places = np.flatnonzero(wrong_N)
        for start in range(0, len(places), _CHUNK):
            at = places[start : start + _CHUNK]
            first_NK[at], wide_N[at] = net.row_share(net.candidate, ids_NF[at], dense_NX[at])
        return cls(first_NK, wide_N, ids_NF, dense_NX, catalogue.generation, part, len(places))


def _touched(ids_NF: np.ndarray, changed: dict[str, np.ndarray]) -> np.ndarray:
    """Which places read a changed row of a table."""
    found = np.zeros(len(ids_NF), bool)
    some = np.concatenate([np.zeros(0, np.int64), *changed.values()])
    if some.size and ids_NF.size:
        is_changed = np.zeros(max(int(some.max()), int(ids_NF.max())) + 1, bool)
        is_changed[some] = True
        for start in range(0, len(ids_NF), _CHUNK):
            found[start : start + _CHUNK] = is_changed[ids_NF[start : start + _CHUNK]].any(axis=1)
    return found


def _same(one: tuple[np.ndarray, ...], other: tuple[np.ndarray, ...]) -> bool:
    return all(map(np.array_equal, one, other))
