"""The light net in NumPy: what the scorer and the gate compute, without torch.

The first layer is split: its part over what the request knows (user, context) is computed once a request, its part
over the candidate once a candidate.

Shapes: B rows, R requests, F id features, N dense features, D embedding width, H hidden width.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import numpy as np
import polars as pl
from threadpoolctl import ThreadpoolController

from contracts.errors import ContractError, CorruptError
from contracts.features import Feature, Layout


@dataclass(frozen=True)
class Part:
    """The first layer's share of some of the features: gather and multiply only those."""

    ids: tuple[Feature, ...]
    dense: tuple[Feature, ...]
    starts: np.ndarray  #: [F] first row of each id feature in the fused table
    weight: np.ndarray  #: [F*D + N, H] embedded inputs first
    wide: np.ndarray | None  #: of the dense features


class LightNet:
    """The light net over named float32 arrays (`contracts.weights` says which).

    Args:
        layout: of the app's features.
        arrays: of one published version, dequantised.
        per_request: names of the features that are the same for all candidates of a request.

    Raises:
        CorruptError: an array is missing, unknown, or has a shape that does not fit the layout; names it.
    """

    def __init__(
        self, layout: Layout, arrays: Mapping[str, np.ndarray], per_request: frozenset[str] = frozenset()
    ) -> None:
        self._arrays = {name: np.ascontiguousarray(array, np.float32) for name, array in arrays.items()}
        self._layout = layout
        self.layers = check_arrays(layout, self._arrays)
        self._embedding = self._arrays["embedding"]
        self._wide = self._arrays.get("wide")
        self._bias = np.float32(self._arrays["bias"][0])
        names = [feature.name for feature in (*layout.light_ids, *layout.light_dense)]
        self._whole = self._part(names)
        self._request = self._part([name for name in names if name in per_request])
        self._candidate = self._part([name for name in names if name not in per_request])

    def logits(self, features: pl.DataFrame) -> np.ndarray:
        """Logits of a frame that holds every light feature: float32 [B].

        Raises:
            ContractError: a feature is missing or holds an id beyond its table.
        """
        first_BH, wide_B = self._share(self._whole, features, features.height)
        return self._rest(first_BH, wide_B)

    def split_logits(self, requests: pl.DataFrame, candidates: pl.DataFrame, request_B: np.ndarray) -> np.ndarray:
        """The same logits with the request's part computed once: float32 [B].

        Args:
            requests: the per-request features, one row a request.
            candidates: the other features, one row a candidate.
            request_B: the row in `requests` of each candidate.
        """
        num_requests = max(requests.height, int(request_B.max(initial=-1)) + 1)  # no column has no height
        request_RH, wide_R = self._share(self._request, requests, num_requests)
        first_BH, wide_B = self._share(self._candidate, candidates, request_B.size)
        first_BH += request_RH[request_B]
        return self._rest(first_BH, wide_B + wide_R[request_B])

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
        return Part(
            ids=ids,
            dense=dense,
            starts=np.array([layout.offsets[feature.name] for feature in ids], np.int64),
            weight=np.ascontiguousarray(self._arrays["mlp.0.weight"][:, columns].T),
            wide=None if wide_dense is None else wide_dense[places],
        )

    def _share(self, part: Part, features: pl.DataFrame, rows: int) -> tuple[np.ndarray, np.ndarray]:
        """A part's contribution to the first layer [B, H] and to the wide term [B]."""
        inputs_BX = np.empty((rows, part.weight.shape[0]), np.float32)
        wide_B = np.zeros(rows, np.float32)
        embedded = len(part.ids) * self._embedding.shape[1]
        if part.ids:
            ids_BF = self._rows_of(part, features)
            inputs_BX[:, :embedded] = self._embedding.take(ids_BF, axis=0).reshape(rows, embedded)
            if self._wide is not None:
                wide_B += self._wide.take(ids_BF).sum(axis=1)
        for place, feature in enumerate(part.dense):
            inputs_BX[:, embedded + place] = _column(features, feature)
        if part.dense and part.wide is not None:
            wide_B += inputs_BX[:, embedded:] @ part.wide
        return inputs_BX @ part.weight, wide_B

    def _rows_of(self, part: Part, features: pl.DataFrame) -> np.ndarray:
        """Rows in the fused table [B, F]; an id beyond its own feature's rows is refused, never another's row."""
        ids_BF = np.empty((features.height, len(part.ids)), np.int64)
        for place, feature in enumerate(part.ids):
            values = _column(features, feature)
            if values.size and int(values.max()) >= feature.rows:
                raise ContractError(
                    f"feature '{feature.name}': the id {int(values.max())} is beyond its {feature.rows} rows; "
                    "featurize the rows again with this app"
                )
            ids_BF[:, place] = values
        ids_BF += part.starts
        return ids_BF

    def _rest(self, first_BH: np.ndarray, wide_B: np.ndarray) -> np.ndarray:
        """All after the first product; `first_BH` is overwritten."""
        hidden = first_BH
        hidden += self._arrays["mlp.0.bias"]
        for index in range(1, self.layers):
            np.maximum(hidden, 0, out=hidden)
            hidden = hidden @ self._arrays[f"mlp.{index}.weight"].T
            hidden += self._arrays[f"mlp.{index}.bias"]
        logits: np.ndarray = hidden[:, 0] + wide_B + self._bias
        return logits


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


def check_arrays(layout: Layout, arrays: Mapping[str, np.ndarray]) -> int:
    """Names and shapes fit the layout and each other; returns the number of layers.

    Raises:
        CorruptError: naming the array, what it is and what it should be.
    """
    layers = sum(name.startswith("mlp.") and name.endswith(".weight") for name in arrays)
    embedding = arrays.get("embedding")
    width = embedding.shape[1] if embedding is not None and embedding.ndim == 2 else 0
    wide = "wide" in arrays or "wide_dense" in arrays
    wanted: dict[str, tuple[int, ...]] = {"embedding": (layout.light_rows, width), "bias": (1,)}
    if wide:
        wanted |= {"wide": (layout.light_rows,), "wide_dense": (len(layout.light_dense),)}
    inputs = len(layout.light_ids) * width + len(layout.light_dense)
    for index in range(max(layers, 1)):
        found = arrays.get(f"mlp.{index}.weight")
        outputs = found.shape[0] if found is not None and found.ndim == 2 and index < layers - 1 else 1
        wanted |= {f"mlp.{index}.weight": (outputs, inputs), f"mlp.{index}.bias": (outputs,)}
        inputs = outputs
    for name in [*wanted, *arrays]:
        if name not in arrays:
            raise CorruptError(f"array '{name}' is missing; publish the version again")
        if name not in wanted:
            raise CorruptError(f"array '{name}' is unknown to this scorer; publish the version again")
        if arrays[name].shape != wanted[name]:
            raise CorruptError(
                f"array '{name}' has the shape {arrays[name].shape}, but the app's features need {wanted[name]}; "
                "use the app that trained it, or publish again"
            )
    return layers


def _column(features: pl.DataFrame, feature: Feature) -> np.ndarray:
    try:
        series = features.get_column(feature.name)
    except pl.exceptions.ColumnNotFoundError:
        raise ContractError(f"feature '{feature.name}' is not in the rows; featurize them with this app") from None
    if series.null_count():
        raise ContractError(f"feature '{feature.name}' holds nulls; featurize the rows again")
    return series.to_numpy()
