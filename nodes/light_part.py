"""Some of the light net's features: what the first layer looks up and multiplies for them.

Shapes: B rows, F id features, N dense features, D embedding width, K first-layer columns (`nodes.light_numpy`).
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from contracts.errors import ContractError
from contracts.features import Feature
from nodes.feature_columns import Features, column_of
from nodes.key_index import KeyIndex

_NO_DENSE = np.empty((1, 0), np.float32)


@dataclass(frozen=True)
class Part:
    """The first layer's share of some of the features: gather and multiply only those."""

    ids: tuple[Feature, ...]
    dense: tuple[Feature, ...]
    starts: np.ndarray  #: [F] first row of each id feature in the fused table
    rows: np.ndarray  #: [F] how many rows it has there
    owners: tuple[KeyIndex | None, ...]  #: of each id feature whose ids own their rows
    weight: np.ndarray  #: [F*D + N, K] embedded inputs first
    wide: np.ndarray | None  #: of the dense features
    pairs: float | None  #: what the pairs are multiplied by

    @cached_property
    def ones(self) -> np.ndarray:
        """float32 [F]: a product with them is a sum over the id features."""
        return np.ones(len(self.ids), np.float32)

    @cached_property
    def _places(self) -> tuple[tuple[str, int, int], ...] | None:
        """Name, first row and number of rows of each id feature; None: there is no short way for one row."""
        if self.dense or any(self.owners):
            return None
        names = [feature.name for feature in self.ids]
        return tuple(zip(names, self.starts.tolist(), self.rows.tolist(), strict=True))

    def constants(self) -> tuple[np.ndarray, ...]:
        """All that a contribution hangs on beside the rows of the tables."""
        absent = np.zeros(0, np.float32)
        pairs = absent if self.pairs is None else np.array([self.pairs])
        return self.weight, absent if self.wide is None else self.wide, pairs

    def inputs(self, features: Features, rows: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows in the fused table, int64 [B, F], and dense values, float32 [B, N].

        Raises:
            ContractError: a feature is missing, or holds an id beyond its own rows, which would read another's.
        """
        if rows == 1 and (one_BF := self._one_row(features)) is not None:
            return one_BF, _NO_DENSE
        ids_BF = np.empty((rows, len(self.ids)), np.int64)
        for place, feature in enumerate(self.ids):
            values, owner = column_of(features, feature), self.owners[place]
            ids_BF[:, place] = values if owner is None else owner.rows_of(values)
        if (ids_BF >= self.rows).any():
            place = int((ids_BF >= self.rows).any(axis=0).argmax())
            raise ContractError(
                f"feature '{self.ids[place].name}': the id {int(ids_BF[:, place].max())} is beyond its "
                f"{self.rows[place]} rows; featurize the rows again with this app"
            )
        ids_BF += self.starts
        dense_BN = np.empty((rows, len(self.dense)), np.float32)
        for place, feature in enumerate(self.dense):
            dense_BN[:, place] = column_of(features, feature)
        return ids_BF, dense_BN

    def _one_row(self, features: Features) -> np.ndarray | None:
        """Ids of one row, as most requests are; None where the long way must be gone.

        Number by number: for so few NumPy takes longer, as its code has left the processor's cache since the last time.
        """
        if self._places is None or not isinstance(features, dict):
            return None
        ids_F = []
        try:
            for name, start, rows in self._places:
                value = features[name].item()
                if value >= rows:
                    return None
                ids_F.append(start + value)
        except (KeyError, ValueError):  # a feature is missing, or has more rows than one
            return None
        return np.array([ids_F], np.int64)
