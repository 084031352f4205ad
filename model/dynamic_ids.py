"""The dynamic tables of an app: hashes in a minibatch become rows of the fused tables, and rows begin anew.

Shapes: B rows, F id features, S ids of one sequence, U rows that begin anew, R rows of the fused table.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from contracts.dynamic import FIRST_ROW, DynamicTable
from contracts.errors import ContractError
from contracts.features import Layout
from model.embeddings import Table
from model.id_map import Keys, Places
from model.id_rows import IdRows, first_weights
from model.state import part_of
from model.tensors import Batch, Ragged

STATE = "model.ids."  #: names of the state begin so; some of it grows


@dataclass(slots=True)
class _Bound:
    """A dynamic feature, and where its ids and rows lie."""

    name: str
    rows: IdRows
    column: int  # in `ids_BF`
    sequences: tuple[int, ...]  # that refer to it
    offset: int  # of its rows in the fused table
    tables: tuple[tuple[int, Table], ...]  # that hold its rows, each with its number
    barrier: int | None  # number of the last one; None: nobody knows what time it is


class DynamicIds:
    """Maps ids to rows, admits and evicts; all of it in the order of the log.

    A minibatch is mapped as a whole: an id that is seen often enough in it has its row at once. Barriers fall between
    minibatches. A row that changes hands begins anew in every table: weights that hang on seed and id alone,
    accumulators at their start; a row that is given up holds zeros until then.

    Args:
        layout: of the app's features.
        tables: by name, as `RocketNets.tables`; their dynamic rows are emptied here.
    """

    def __init__(self, layout: Layout, tables: Mapping[str, Table]) -> None:
        offsets = layout.offsets
        #: [R]: the id that owns each row of the fused table, 0 for nobody; empty where no feature is dynamic
        self.keys: Keys = np.zeros(layout.rows if any(f.dynamic for f in layout.ids) else 0, np.uint64)
        self._features: list[_Bound] = []
        self._rows_seen, self._newest_ms = 0, 0
        for column, feature in enumerate(layout.ids):
            if feature.dynamic is None:
                continue
            offset, end = offsets[feature.name], offsets[feature.name] + feature.rows
            held = tuple((at, table) for at, table in enumerate(tables.values()) if table.rows >= end)
            sequences = tuple(at for at, s in enumerate(layout.sequences) if s.of == feature.name)
            if not held:
                continue
            mine = IdRows(feature.dynamic, self.keys[offset:end])
            barrier = 0 if feature.dynamic.barrier_s is None else None
            self._features.append(_Bound(feature.name, mine, column, sequences, offset, held, barrier))
            for _, table in held:
                table.reset_rows(torch.arange(offset + FIRST_ROW, end), {})

    def __bool__(self) -> bool:
        return bool(self._features)

    @property
    def used(self) -> dict[str, int]:
        """Feature -> ids that have a row."""
        return {bound.name: bound.rows.used for bound in self._features}

    @property
    def nbytes(self) -> int:
        """Memory, weights not counted."""
        return sum(bound.rows.nbytes for bound in self._features)

    def learn(self, batch: Batch, seed: int) -> Batch:
        """The minibatch in rows of the fused table, after a barrier where one is due, and after admission.

        Args:
            batch: with hashes, on the CPU; about to be learnt.
            seed: of the first weights.
        """
        if not self._features:
            return batch
        ids_BF, sequences = batch.ids_BF.clone(), list(batch.sequences)
        newest_ms = max(self._newest_ms, int(batch.event_ms_B.max()))
        for bound in self._features:
            self._pass_barrier(bound)
            now = newest_ms if bound.rows.settings.by_event_time else self._rows_seen
            if not self._rows_seen:
                bound.rows.begin(now)
            rows_B, new_U = bound.rows.admit(_keys(ids_BF[:, bound.column]), now)
            ids_BF[:, bound.column] = torch.from_numpy(rows_B + bound.offset)
            self._begin(bound, new_U, seed)
            for at in bound.sequences:
                sequences[at] = self._mapped(bound, sequences[at])
        self._rows_seen, self._newest_ms = self._rows_seen + batch.rows, newest_ms
        return batch._replace(ids_BF=ids_BF, sequences=tuple(sequences))

    def look_up(self, batch: Batch) -> Batch:
        """Rows to predict with: nothing is counted, admitted or evicted."""
        if not self._features:
            return batch
        ids_BF, sequences = batch.ids_BF.clone(), list(batch.sequences)
        for bound in self._features:
            rows_B = bound.rows.look_up(_keys(ids_BF[:, bound.column]))
            ids_BF[:, bound.column] = torch.from_numpy(rows_B + bound.offset)
            for at in bound.sequences:
                sequences[at] = self._mapped(bound, sequences[at])
        return batch._replace(ids_BF=ids_BF, sequences=tuple(sequences))

    def _mapped(self, bound: _Bound, sequence: Ragged) -> Ragged:
        rows_S = bound.rows.look_up(_keys(sequence.rows_S))
        return sequence._replace(rows_S=torch.from_numpy(rows_S + bound.offset))

    def _pass_barrier(self, bound: _Bound) -> None:
        """Evict where a barrier lies between the minibatch before and this one; the first begins the count."""
        if not self._rows_seen:
            return
        settings = bound.rows.settings
        number = self._barrier_number(settings)
        before, bound.barrier = bound.barrier, number
        if before is None or number <= before:
            return
        gone = bound.rows.evict(self._newest_ms if settings.by_event_time else self._rows_seen)
        if gone.size:
            for _, table in bound.tables:
                table.reset_rows(torch.from_numpy(gone + bound.offset), {})

    def _barrier_number(self, settings: DynamicTable) -> int:
        if settings.barrier_s is None:
            return self._rows_seen // settings.barrier_rows
        return self._newest_ms // round(settings.barrier_s * 1000)

    def _begin(self, bound: _Bound, new_U: Places, seed: int) -> None:
        if not new_U.size:
            return
        keys_U, rows_U = bound.rows.keys[new_U], torch.from_numpy(new_U + bound.offset)
        for number, table in bound.tables:
            drawn = {
                part.name: torch.from_numpy(first_weights(keys_U, part.width, part.init, seed + number))
                for part in table.parts
                if part.init
            }
            table.reset_rows(rows_U, drawn)

    def adopt(self, keys: Keys) -> None:
        """Ids own the rows that they own in what was published; they count as seen once, when learning begins.

        Args:
            keys: of the light net's rows; the booster's own features begin without ids.
        """
        self.keys[: keys.size] = keys
        for bound in self._features:
            bound.rows.adopted()

    def state(self) -> dict[str, Tensor]:
        """Copies of all that steers it, by names that begin with `STATE` and the feature's."""
        made = {f"{STATE}{b.name}.{name}": tensor for b in self._features for name, tensor in b.rows.state().items()}
        for bound in self._features:
            made[f"{STATE}{bound.name}.clock"] = torch.tensor(
                [self._rows_seen, self._newest_ms, -1 if bound.barrier is None else bound.barrier]
            )
        return made

    def load(self, state: dict[str, Tensor]) -> None:
        """Take over what `state` gave.

        Raises:
            ContractError: it is of other tables.
        """
        for bound in self._features:
            mine = part_of(state, f"{STATE}{bound.name}")
            if "clock" not in mine:
                raise ContractError(
                    f"the checkpoint does not know the dynamic table of feature '{bound.name}'; train into a new folder"
                )
            self._rows_seen, self._newest_ms, barrier = mine.pop("clock").tolist()
            bound.barrier = None if barrier < 0 else barrier
            try:
                bound.rows.load(mine)
            except ContractError as error:
                raise ContractError(f"feature '{bound.name}': {error}") from None


def _keys(ids: Tensor) -> Keys:
    return np.ascontiguousarray(ids.numpy()).view(np.uint64)
