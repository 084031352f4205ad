"""One candidate after another, as what differs from the live version wherever that is less than all of it."""

from collections.abc import Mapping

import numpy as np

from contracts.app import App
from contracts.weights import EVICTED, KEYS, ROW_TABLES, ROWS, TouchedRows, WeightManifest, Weights
from nodes.chains import NOTHING, tables_of
from nodes.deltas import quantised, rows_that_differ, union, zeros_among
from nodes.gate import unfit
from nodes.pack import DTYPES, Arrays, Snapshot, cut, pack


class Packer:
    """Packs candidates, and knows which rows to look at.

    It knows them from the trainer as long as it has seen every stretch of training since the live version's own; after
    a start, a rollback or another publisher's version it looks at all rows once. What travels is always what differs
    in its bits, so rows that are named too many cost time, and rows that nobody named never give a wrong delta.

    Two sets of tables take turns, so that a candidate costs what moved and not a copy of everything.

    Args:
        app: its `publish` section says dtype, chunk size, and when a full version is due.
    """

    def __init__(self, app: App) -> None:
        self._app, self._settings = app, app.config.publish
        self._dtype = DTYPES[self._settings.dtype]
        self._moved: np.ndarray | None = None  # bool [rows]: may differ from the version `_since`; None: all may
        self._since = ""  # digest
        self._step: int | None = None  # of the newest candidate
        self._packed: Snapshot | None = None
        self._pair: tuple[Arrays, Arrays] | None = None  # tables of the newest candidate, and of what it differs from
        self._apart: np.ndarray | None = None  # rows in which the two differ; None: any

    def pack(
        self,
        arrays: Mapping[str, np.ndarray],
        base: Weights | None,
        *,
        position: int,
        step: int,
        trained_until_ms: int,
        touched: TouchedRows | None = None,
        evicted: np.ndarray | None = None,
    ) -> Snapshot | str:
        """A candidate, as a delta where that is due; the reason where it must not be published.

        Args:
            arrays: float32, named as in `contracts.weights`; read only until this returns.
            base: the live version; None: there is none. Its tables are made over once it is not live any more.
            position: rows of the example log learnt.
            step: minibatches learnt.
            trained_until_ms: event time of the last row learnt.
            touched: rows that training moved since the step of the candidate before; None: nobody knows.
            evicted: rows that were given up: they are served as zeros, whatever the arrays hold there.

        Raises:
            CorruptError: the arrays do not fit the app's features.
        """
        gone = NOTHING if evicted is None else np.unique(evicted).astype(np.int64)
        self._note(touched, step, gone)
        place = (position, step, trained_until_ms)
        made: Snapshot | str | None = None
        if base is not None and self._comparable(base, arrays):
            made = self._delta(arrays, base, gone, place)
            if isinstance(made, Snapshot) and made.base is not None and not self._may_follow(made.base):
                made = made.whole(self._app)
        if made is None:
            whole = dict(arrays)
            for name in ROW_TABLES if gone.size else ():
                if name in whole:
                    whole[name] = whole[name].copy()
                    whole[name][gone] = 0
            made = pack(self._app, whole, position=position, step=step, trained_until_ms=trained_until_ms)
            if isinstance(made, Snapshot):
                self._pair, self._apart = (_tables(made.arrays), {} if base is None else tables_of(base)), None
        self._packed = made if isinstance(made, Snapshot) else None
        return made

    def published(self, snapshot: Snapshot, made: WeightManifest) -> None:
        """A snapshot went live: the next candidates are told apart from it."""
        known = snapshot is self._packed
        self._moved = np.zeros(snapshot.arrays["embedding"].shape[0], bool) if known else None
        self._since = made.digest

    def let_go(self) -> None:
        """The newest candidate is kept elsewhere: its arrays are not made over."""
        self._pair = None

    def _note(self, touched: TouchedRows | None, step: int, gone: np.ndarray) -> None:
        """Take in what training did since the candidate before."""
        if touched is None or touched.since_step != self._step:
            self._moved = None
        elif self._moved is not None:
            self._moved[touched.rows] = True
            self._moved[gone] = True
        self._step = step

    def _may_follow(self, base: WeightManifest) -> bool:
        """Whether another delta is due after this version, and not a full one."""
        return self._settings.deltas and base.deltas < self._settings.full_every

    def _comparable(self, base: Weights, arrays: Mapping[str, np.ndarray]) -> bool:
        """Whether these are the base's arrays, moved: of the same app, shapes and dtype."""
        manifest, app = base.manifest, self._app
        return (
            (manifest.schema_id, manifest.app, manifest.link) == (app.schema_id, app.name, app.config.labels.link)
            and {blob.dtype for blob in manifest.blobs if blob.name in arrays and blob.name != KEYS} == {self._dtype}
            and _shapes(arrays) == _shapes(base.arrays)
        )

    def _delta(
        self, arrays: Mapping[str, np.ndarray], base: Weights, gone: np.ndarray, place: tuple[int, int, int]
    ) -> Snapshot | str | None:
        """What differs from the base; the reason where it must not be published; None where it is too much."""
        known = self._moved is not None and self._since == base.manifest.digest
        among = np.flatnonzero(self._moved) if known and self._moved is not None else None
        names = [name for name in ROW_TABLES if name in arrays]
        rows = rows_that_differ(arrays, base.arrays, self._dtype, among)
        rows = rows[~np.isin(rows, gone)] if gone.size else rows
        given_up = gone[~zeros_among({name: base.arrays[name][gone] for name in names}, gone.size)]
        total = base.arrays[names[0]].shape[0]
        self._moved, self._since = np.zeros(total, bool), base.manifest.digest
        self._moved[rows] = self._moved[given_up] = True
        if rows.size + given_up.size > self._settings.max_delta_share * total:
            return None
        values = {name: arrays[name][rows] for name in names}
        others = {name: array for name, array in arrays.items() if name not in names}
        wrong = unfit(values | others)
        if wrong is not None:
            return wrong
        values = {name: quantised(array, self._dtype) for name, array in values.items()}
        others = {name: quantised(array, self._dtype) for name, array in others.items()}
        position, step, trained_until_ms = place
        if not rows.size and not given_up.size and position == base.manifest.position and _same(others, base.arrays):
            return Snapshot(base.manifest.blobs, [], base.arrays, *place, again=base.manifest)
        empty = zeros_among(values, rows.size)  # a row of zeros travels as a number alone
        evicted = union(rows[empty], given_up)
        rows, values = rows[~empty], {name: array[~empty] for name, array in values.items()}
        tables = self._made_over(base)
        for name in names:
            tables[name][rows], tables[name][evicted] = values[name], 0
        self._pair, self._apart = (tables, tables_of(base)), union(rows, evicted)
        blobs, chunks = cut(self._app, values | others, {ROWS: rows, EVICTED: evicted})
        return Snapshot(blobs, chunks, tables | others, position, step, trained_until_ms, base=base.manifest)

    def _made_over(self, base: Weights) -> Arrays:
        """Tables that equal the base's and are not the base's: those that nobody reads any more, if there are."""
        wanted = tables_of(base)
        first, second = self._pair or ({}, {})
        spare, paired = first, _one_of(second, wanted)
        if _one_of(first, wanted):
            spare, paired = second, True
        if {name: array.shape for name, array in spare.items()} != {
            name: array.shape for name, array in wanted.items()
        }:
            return {name: array.copy() for name, array in wanted.items()}
        for name, array in wanted.items():
            if paired and self._apart is not None:
                spare[name][self._apart] = array[self._apart]
            else:
                np.copyto(spare[name], array)
        return spare


def _one_of(tables: Arrays, wanted: Arrays) -> bool:
    """Whether these are the very same arrays."""
    return all(tables.get(name) is array for name, array in wanted.items())


def _shapes(arrays: Mapping[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in arrays.items()}


def _tables(arrays: Arrays) -> Arrays:
    return {name: array for name, array in arrays.items() if name in ROW_TABLES}


def _same(some: Arrays, arrays: Arrays) -> bool:
    """Whether these arrays are bit for bit those of the same names."""
    return all(np.array_equal(array.view(np.int32), arrays[name].view(np.int32)) for name, array in some.items())
