"""Feature columns by name, as a frame or as arrays."""

from collections.abc import Mapping

import numpy as np
import polars as pl

from contracts.errors import ContractError
from contracts.features import Feature

#: Feature columns by name: of a frame, or arrays.
Features = pl.DataFrame | Mapping[str, np.ndarray]

#: Beside the features of candidates: what they say in the columns that mixed features read, one tuple each, objects.
SAID = ""


def dtype_of(feature: Feature) -> type[np.generic]:
    """Of a light feature's values, one a row: a number, a bucket, or the key of an id that owns its row."""
    if feature.output == "dense":
        return np.float32
    return np.uint32 if feature.dynamic is None else np.uint64


def height_of(features: Features) -> int:
    """How many rows there are."""
    return features.height if isinstance(features, pl.DataFrame) else max(map(len, features.values()), default=0)


def column_of(features: Features, feature: Feature) -> np.ndarray:
    """The values of a feature.

    Raises:
        ContractError: it is absent, or holds nulls.
    """
    try:
        found = features[feature.name]
    except (KeyError, pl.exceptions.ColumnNotFoundError):
        raise ContractError(f"feature '{feature.name}' is not in the rows; featurize them with this app") from None
    if isinstance(found, np.ndarray):
        return found
    if found.null_count():
        raise ContractError(f"feature '{feature.name}' holds nulls; featurize the rows again")
    return found.to_numpy()
