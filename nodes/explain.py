"""Which features made one score: contributions that add up to the logit, against the same request with all left out.

The reference is the candidate whose every feature is missing: bucket 0, and for a number what stands in for a null.
With v(S) the logit when the features in S say what they say and the others nothing, the contribution of a feature is
its Shapley value: what it adds, averaged over all orders in which features may be told (Shapley, 1953; Lundberg and
Lee, NeurIPS 2017, arXiv 1705.07874). They are *additive*: reference + sum of contributions = logit, up to float32.

* wide: exact, its weight less that of the missing bucket.
* pairs: exact. Of a pair of embeddings a_i . a_j each side gets half of what the pair adds with and without the other:
  (x_i - m_i) . (x_j + m_j) / 2, m being the missing ones; summed over j.
* mlp: exact over all 2^F sets up to ten features; above, the mean over 128 orders and their reverses (Mitchell et al.,
  JMLR 23, 2022, arXiv 2104.12199), which is additive as well, since each order is.

Shapes: F features of the light net, ids first; S sets of features.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from contracts.features import Layout
from nodes.key_index import owners_of
from nodes.light_numpy import LightNet

_EXACT = 10  # features: all their sets are scored
_ORDERS = 128  # drawn above that, each with its reverse
Row = Mapping[str, np.ndarray]
Value = Callable[[np.ndarray], np.ndarray]


class Contribution(NamedTuple):
    """What one feature adds to the logit."""

    feature: str
    wide: float
    pairs: float
    mlp: float

    @property
    def total(self) -> float:
        """All three together."""
        return self.wide + self.pairs + self.mlp


class Explained(NamedTuple):
    """One score, taken apart."""

    logit: float
    reference: float  #: the logit with every feature missing
    contributions: tuple[Contribution, ...]  #: the largest first, by size


def explain(layout: Layout, arrays: Mapping[str, np.ndarray], row: Row, missing: Row) -> Explained:
    """Take one score apart.

    Args:
        layout: of the app's features.
        arrays: of a light net, float32 (`contracts.weights`).
        row: feature -> its value, [1].
        missing: feature -> its value where it is missing, [1].

    Raises:
        CorruptError: the arrays do not fit the layout.
        ContractError: a feature is not in a row.
    """
    net = LightNet(layout, arrays)
    features = (*layout.light_ids, *layout.light_dense)
    names = [feature.name for feature in features]
    wide, pairs = _wide(layout, arrays, row, missing), _pairs(layout, arrays, row, missing)

    def mlp_of(told_SF: np.ndarray) -> np.ndarray:
        """The MLP's part of the logit, float64 [S], of sets of features that say something."""
        rows = {name: np.where(told_SF[:, at], row[name], missing[name]) for at, name in enumerate(names)}
        rows = {name: values.astype(row[name].dtype) for name, values in rows.items()}
        return net.logits(rows).astype(np.float64) - _beside(layout, arrays, rows)

    mlp = _shapley(mlp_of, len(names)) if net.layers else np.zeros(len(names))
    ends = {name: np.concatenate([row[name], missing[name]]) for name in names}
    logit, reference = net.logits(ends).tolist()
    found = [Contribution(*each) for each in zip(names, wide.tolist(), pairs.tolist(), mlp.tolist(), strict=True)]
    return Explained(logit, reference, tuple(sorted(found, key=lambda one: -abs(one.total))))


def _rows_of(layout: Layout, arrays: Mapping[str, np.ndarray], rows: Row) -> np.ndarray:
    """Rows of the fused table, [S, ids]."""
    owners = owners_of(layout, arrays)
    mine = {name: owners[name].rows_of(values) if name in owners else values for name, values in rows.items()}
    columns = [mine[f.name].astype(np.int64) + layout.offsets[f.name] for f in layout.light_ids]
    return np.stack(columns, axis=1) if columns else np.zeros((len(next(iter(rows.values()))), 0), np.int64)


def _numbers(layout: Layout, rows: Row) -> np.ndarray:
    columns = [rows[f.name].astype(np.float64) for f in layout.light_dense]
    return np.stack(columns, axis=1) if columns else np.zeros((len(next(iter(rows.values()))), 0))


def _beside(layout: Layout, arrays: Mapping[str, np.ndarray], rows: Row) -> np.ndarray:
    """All of the logit but the MLP, float64 [S]."""
    made = np.full(len(next(iter(rows.values()))), float(arrays["bias"][0]))
    at_SF = _rows_of(layout, arrays, rows)
    if "wide" in arrays:
        made += arrays["wide"][at_SF].sum(axis=1, dtype=np.float64) + _numbers(layout, rows) @ arrays["wide_dense"]
    if "fm" in arrays:
        vectors = arrays["embedding"][at_SF].astype(np.float64)
        made += 0.5 * float(arrays["fm"][0]) * (vectors.sum(1) ** 2 - (vectors**2).sum(1)).sum(1)
    return made


def _wide(layout: Layout, arrays: Mapping[str, np.ndarray], row: Row, missing: Row) -> np.ndarray:
    """[F]."""
    if "wide" not in arrays:
        return np.zeros(len(layout.light_ids) + len(layout.light_dense))
    table = arrays["wide"].astype(np.float64)
    ids = table[_rows_of(layout, arrays, row)[0]] - table[_rows_of(layout, arrays, missing)[0]]
    numbers = (_numbers(layout, row)[0] - _numbers(layout, missing)[0]) * arrays["wide_dense"]
    return np.concatenate([ids, numbers])


def _pairs(layout: Layout, arrays: Mapping[str, np.ndarray], row: Row, missing: Row) -> np.ndarray:
    """[F]; numbers have no embedding, so no part in pairs."""
    made = np.zeros(len(layout.light_ids) + len(layout.light_dense))
    if "fm" in arrays:
        table = arrays["embedding"]
        x_FD, m_FD = (table[_rows_of(layout, arrays, some)[0]].astype(np.float64) for some in (row, missing))
        both_FD = x_FD + m_FD
        others_FD = both_FD.sum(0) - both_FD
        made[: len(x_FD)] = 0.5 * float(arrays["fm"][0]) * ((x_FD - m_FD) * others_FD).sum(1)
    return made


def _shapley(value: Value, features: int) -> np.ndarray:
    """Shapley values of a function of sets, float64 [F]."""
    if features <= _EXACT:
        return _over_all_sets(value, features)
    draw = np.random.default_rng(0)  # the same score is explained the same way every time
    half = np.stack([draw.permutation(features) for _ in range(_ORDERS)])
    orders = np.concatenate([half, half[:, ::-1]])
    place = np.argsort(orders, axis=1)
    told = place[:, None, :] < np.arange(features + 1)[:, None]  # [orders, told, F]
    steps = np.diff(value(told.reshape(-1, features)).reshape(len(orders), features + 1), axis=1)
    made: np.ndarray = np.take_along_axis(steps, place, axis=1).mean(axis=0)
    return made


def _over_all_sets(value: Value, features: int) -> np.ndarray:
    numbers = np.arange(2**features)
    told_SF = (numbers[:, None] >> np.arange(features)) & 1 == 1
    found, sizes = value(told_SF), told_SF.sum(axis=1)
    weight = np.array([1.0])  # of a set of that many others: 1 / (F * (F - 1 choose that many))
    for size in range(1, features):
        weight = np.append(weight, weight[-1] * size / (features - size))
    made = np.zeros(features)
    for at in range(features):
        without = numbers[~told_SF[:, at]]
        made[at] = (weight[sizes[without]] / features) @ (found[without | (1 << at)] - found[without])
    return made
