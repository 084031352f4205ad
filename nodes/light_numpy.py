"""The light net in NumPy: what the scorer and the gate compute, without torch.

The first layer is split: its part over what the request knows (user, context) is computed once a request, its part
over the candidate once a candidate. So are the pairs of embeddings. With s the sum of some embeddings and q that of
their squared lengths, all pairs give (|s|^2 - q) / 2 (Rendle, ICDM 2010); of the pairs within a request and of those
within a candidate this is one number each, which joins the wide term, and the pairs across are s_request . s_candidate,
D products. So s stands behind the first layer's H columns, K = H + D in all; without pairs K is H.

Features that read both (mixed) are a third part, computed once for each distinct *meeting* of a request with what they
read of candidates (`nodes.mixed_side`). With it the pairs across are s_request . s_mixed, one number a meeting, and
(s_request + s_mixed) . s_candidate.

Shapes: B rows, R requests, U meetings, F id features, N dense features, D embedding width, H hidden width, K as above.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from threadpoolctl import ThreadpoolController

from contracts.errors import CorruptError
from contracts.features import Layout
from contracts.weights import KEYS
from nodes.feature_columns import Features, height_of
from nodes.key_index import owners_of
from nodes.light_arrays import check_arrays
from nodes.light_layers import UpperLayers
from nodes.light_part import Part

#: A contribution to the first layer and the sum of the embeddings, float32 [B, K], and to the wide term, float32 [B].
Share = tuple[np.ndarray, np.ndarray]


class Met(NamedTuple):
    """What the mixed features add to candidates."""

    first_UK: np.ndarray  #: to the first layer; then, times the weight of pairs, what meets a candidate's embeddings
    wide_U: np.ndarray  #: to the wide term
    at_B: np.ndarray  #: each candidate's meeting


class LightNet:
    """The light net over named float32 arrays (`contracts.weights` says which).

    Args:
        layout: of the app's features.
        arrays: of one published version, dequantised; read, never written, and not copied where they are float32.
        per_request: names of the features that are the same for all candidates of a request.
        mixed: names of the features that hang on both; the others are a candidate's alone.

    Raises:
        CorruptError: an array is missing, unknown, or has a shape that does not fit the layout; names it.
    """

    def __init__(
        self,
        layout: Layout,
        arrays: Mapping[str, np.ndarray],
        per_request: frozenset[str] = frozenset(),
        mixed: frozenset[str] = frozenset(),
    ) -> None:
        self._arrays: dict[str, np.ndarray] = {
            name: np.ascontiguousarray(array, np.uint64 if name == KEYS else np.float32)
            for name, array in arrays.items()
        }
        self._layout = layout
        self.layers = check_arrays(layout, self._arrays)
        self._owners = owners_of(layout, self._arrays)
        self._embedding = self._arrays["embedding"]
        self._wide = self._arrays.get("wide")
        self._bias = float(self._arrays["bias"][0])
        self._pairs = float(self._arrays["fm"][0]) if "fm" in self._arrays else None
        self.hidden = len(self._arrays["mlp.0.bias"]) if self.layers else 0  #: H
        self._above = UpperLayers(self._arrays, self.layers)
        names = [feature.name for feature in (*layout.light_ids, *layout.light_dense)]
        self._whole = self._part(names)
        self.request = self._part([name for name in names if name in per_request])
        self._mixed = self._part([name for name in names if name in mixed])
        self.candidate = self._part([name for name in names if name not in per_request | mixed])

    def logits(self, features: Features) -> np.ndarray:
        """Logits of rows that hold every light feature: float32 [B].

        Raises:
            ContractError: a feature is missing or holds an id beyond its table.
        """
        first_BK, wide_B = self._share(self._whole, features, height_of(features))
        first_BH = first_BK if self._pairs is None else np.ascontiguousarray(first_BK[:, : self.hidden])
        wide_B += self._above(first_BH, np.zeros(self.hidden, np.float32), self._bias)
        return wide_B

    def split_logits(self, requests: Features, candidates: Features, request_B: np.ndarray) -> np.ndarray:
        """The same logits with the request's part computed once, of a net without mixed features: float32 [B].

        Args:
            requests: the per-request features, one row a request.
            candidates: the other features, one row a candidate.
            request_B: the row in `requests` of each candidate.
        """
        num_requests = max(height_of(requests), int(request_B.max(initial=-1)) + 1)  # no column has no height
        share = self.request_share(requests, num_requests)
        return self.joined(share, request_B, *self.candidate_share(candidates, request_B.size))

    def request_share(self, requests: Features, rows: int) -> Share:
        """What requests add to the first layer of each of their candidates: [R, K] and [R]."""
        first_RK, wide_R = self.row_share(self.request, *self.request.inputs(requests, rows))
        if self._pairs is not None:
            first_RK[:, self.hidden :] *= np.float32(self._pairs)
        return first_RK, wide_R

    def candidate_share(self, candidates: Features, rows: int) -> Share:
        """What candidates add to the first layer: [B, K] and [B]."""
        return self._share(self.candidate, candidates, rows)

    def row_share(self, part: Part, ids_BF: np.ndarray, dense_BN: np.ndarray) -> Share:
        """A part's contribution to the first layer, [B, K], and to the wide term, [B].

        Args:
            part: `request` or `candidate`.
            ids_BF: rows in the fused table; the part's `inputs` makes them of ids.
            dense_BN: likewise, of dense features.
        """
        rows, embedded = len(ids_BF), ids_BF.shape[1] * self._embedding.shape[1]
        if dense_BN.shape[1]:
            inputs_BX = np.empty((rows, part.weight.shape[0]), np.float32)
            inputs_BX[:, :embedded] = self._embedding.take(ids_BF, axis=0).reshape(rows, embedded)
            inputs_BX[:, embedded:] = dense_BN
        else:
            inputs_BX = self._embedding.take(ids_BF, axis=0).reshape(rows, embedded)
        wide_B = np.zeros(rows, np.float32) if self._wide is None else self._wide.take(ids_BF).dot(part.ones)
        if part.wide is not None and dense_BN.shape[1]:
            wide_B += dense_BN @ part.wide
        first_BK = inputs_BX.dot(part.weight)
        if part.pairs is not None:
            sum_BD, embedded_BX = first_BK[:, self.hidden :], inputs_BX[:, :embedded]
            squares_B = np.einsum("bd,bd->b", sum_BD, sum_BD) - np.einsum("bx,bx->b", embedded_BX, embedded_BX)
            wide_B += np.float32(0.5 * part.pairs) * squares_B
        return first_BK, wide_B

    def met(self, share: Share, features: Features, request_U: np.ndarray, at_B: np.ndarray) -> Met:
        """What mixed features add to the first layer of the candidates that they are spread to.

        Args:
            share: of the requests.
            features: the mixed features, one row a meeting.
            request_U: the row in `share` of each meeting.
            at_B: the meeting of each candidate.
        """
        first_UK, wide_U = self._share(self._mixed, features, request_U.size)
        if self._pairs is not None:
            asked_UD, sum_UD = share[0][request_U, self.hidden :], first_UK[:, self.hidden :]
            wide_U += np.einsum("ud,ud->u", asked_UD, sum_UD)
            sum_UD *= np.float32(self._pairs)
            sum_UD += asked_UD
        return Met(first_UK, wide_U, at_B)

    def joined(
        self,
        share: Share,
        request_B: np.ndarray,
        first: np.ndarray,
        wide: np.ndarray,
        place_B: np.ndarray | None = None,
        met: Met | None = None,
    ) -> np.ndarray:
        """Logits of candidates from both shares: float32 [B].

        Args:
            share: of the requests.
            request_B: the row in `share` of each candidate, not descending.
            first: of the candidates, [B, K]; overwritten. With `place_B` a table [N, K], only read.
            wide: likewise, [B] or [N].
            place_B: each candidate's row in the table.
            met: what mixed features add, where the net has any.

        Goes request by request: what a request needs stays in the processor's cache.
        """
        first_RK, wide_R = share
        rows, requests = request_B.size, len(wide_R)
        logits: list[np.ndarray] = []
        bounds = [0, rows] if requests == 1 else np.searchsorted(request_B, np.arange(requests + 1)).tolist()
        for row, (start, stop) in enumerate(pairwise(bounds)):
            if start == stop:
                continue
            if place_B is None:
                mine_BK, wide_B = first[start:stop], wide[start:stop]
            else:
                at_B = place_B[start:stop]
                mine_BK, wide_B = first.take(at_B, axis=0, mode="clip"), wide.take(at_B, mode="clip")
            if met is not None:
                mine_BK, wide_B = self._meet(mine_BK, wide_B, met, met.at_B[start:stop])
            elif self._pairs is not None:
                wide_B = wide_B + mine_BK[:, self.hidden :] @ first_RK[row, self.hidden :]
                mine_BK = np.ascontiguousarray(mine_BK[:, : self.hidden])
            wide_B += self._above(mine_BK, first_RK[row, : self.hidden], wide_R[row].item() + self._bias)
            logits.append(wide_B)
        return logits[0] if len(logits) == 1 else np.concatenate([*logits, np.empty(0, np.float32)])

    def _meet(self, mine_BK: np.ndarray, wide_B: np.ndarray, met: Met, at_B: np.ndarray) -> Share:
        """A request's candidates with what mixed features add: [B, H] and [B]."""
        beside_BK = met.first_UK.take(at_B, axis=0, mode="clip")
        wide_B = wide_B + met.wide_U.take(at_B, mode="clip")
        if self._pairs is None:
            beside_BK += mine_BK
            return beside_BK, wide_B
        wide_B += np.einsum("bd,bd->b", mine_BK[:, self.hidden :], beside_BK[:, self.hidden :])
        return mine_BK[:, : self.hidden] + beside_BK[:, : self.hidden], wide_B

    def _part(self, names: Sequence[str]) -> Part:
        """Cut the first layer to the columns of some features."""
        layout, width = self._layout, self._embedding.shape[1]
        ids = tuple(feature for feature in layout.light_ids if feature.name in names)
        dense = tuple(feature for feature in layout.light_dense if feature.name in names)
        columns = [
            index * width + step
            for index, feature in enumerate(layout.light_ids)
            if feature.name in names
            for step in range(width)
        ]
        places = [index for index, feature in enumerate(layout.light_dense) if feature.name in names]
        columns += [len(layout.light_ids) * width + index for index in places]
        wide_dense = self._arrays.get("wide_dense")
        extra = 0 if self._pairs is None else width
        weight = np.zeros((len(columns), self.hidden + extra), np.float32)
        if self.layers:
            weight[:, : self.hidden] = self._arrays["mlp.0.weight"][:, columns].T
        if self._pairs is not None:
            weight[: len(ids) * width, self.hidden :] = np.tile(np.eye(width, dtype=np.float32), (len(ids), 1))
        return Part(
            ids=ids,
            dense=dense,
            starts=np.array([layout.offsets[feature.name] for feature in ids], np.int64),
            rows=np.array([feature.rows for feature in ids], np.int64),
            owners=tuple(self._owners.get(feature.name) for feature in ids),
            weight=weight,
            wide=None if wide_dense is None else wide_dense[places],
            pairs=self._pairs,
        )

    def _share(self, part: Part, features: Features, rows: int) -> Share:
        """What a part's features add to the first layer and to the wide term: [B, K] and [B]."""
        return self.row_share(part, *part.inputs(features, rows))


@contextmanager
def one_thread() -> Iterator[None]:
    """NumPy on one thread while the block runs: a scorer is one process a core.

    On a busy machine a second thread costs more than it gives: they wait for each other in every product.

    >>> with one_thread():
    ...     sigmoid(np.zeros(1)).tolist()
    [0.5]
    """
    with _blas().limit(limits=1):
        yield


@cache
def _blas() -> ThreadpoolController:
    """NumPy's BLAS, found once: looking for it takes milliseconds, limiting it microseconds."""
    return ThreadpoolController().select(user_api="blas")


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Probabilities of logits, float64, without overflow.

    >>> sigmoid(np.array([-800.0, 0.0, 800.0])).tolist()
    [0.0, 0.5, 1.0]
    """
    small = np.exp(-np.abs(logits.astype(np.float64)))
    chance: np.ndarray = np.where(logits >= 0, 1.0, small) / (1.0 + small)
    return chance


def chance(logits: np.ndarray, link: str) -> np.ndarray:
    """Click probabilities of logits under a version's `link`, float64.

    >>> chance(np.array([0.0, -np.log(2)]), "sigmoid").round(4).tolist(), chance(np.array([1.0, -np.log(2)]), "odds")
    ([0.5, 0.3333], array([1. , 0.5]))

    Raises:
        CorruptError: the link is unknown here.
    """
    if link == "sigmoid":
        return sigmoid(logits)
    if link != "odds":
        raise CorruptError(f"the link '{link}' is unknown to this scorer; upgrade it, or roll back")
    made: np.ndarray = np.exp(np.minimum(logits.astype(np.float64), 0.0))
    return made
