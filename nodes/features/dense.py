"""A number becomes one float, or the row of an embedding table when it is bucketised."""

import polars as pl

from contracts.features import Feature
from nodes.features import kind

_LARGEST = 3.4028234663852886e38  # of float32: beyond it a cast gives infinity, which no net survives


@kind("dense")
def dense_value(feature: Feature) -> pl.Expr:
    """The number as it is, its log1p, standardised, or the bucket that it falls into.

    A null, NaN or infinity gives `default` (an output value: it is not transformed) or bucket 0. log1p is odd:
    -x gives -log1p(x). Bucket 1 is below the first boundary; a value on a boundary lies above it.

    >>> bid = Feature(name="bid_log", kind="dense", transform="log1p", column="bid", side="item", default=-1)
    >>> pl.DataFrame({"bid": [0.0, 1.0, None]}).select(dense_value(bid))["bid_log"].to_list()
    [0.0, 0.693, -1.0]
    >>> age = Feature(name="age", kind="dense", transform="bucketise", column="years", side="user", boundaries=(18, 65))
    >>> pl.DataFrame({"years": [17, 18, 65, None]}).select(dense_value(age))["age"].to_list()
    [1, 2, 3, 0]
    """
    number = pl.col(feature.inputs[0]).cast(pl.Float64)
    number = pl.when(number.is_finite()).then(number)
    if feature.transform == "bucketise":
        above = [(number >= edge).cast(pl.UInt32) for edge in feature.boundaries]
        bucket = pl.sum_horizontal(pl.lit(1, pl.UInt32), *above)
        return pl.when(number.is_null()).then(pl.lit(0, pl.UInt32)).otherwise(bucket).alias(feature.name)
    value = {
        "raw": number,
        "log1p": number.sign() * number.abs().log1p(),
        "standardise": (number - feature.mean) / feature.std,
    }[feature.transform]
    return value.fill_null(feature.default).clip(-_LARGEST, _LARGEST).cast(pl.Float32).alias(feature.name)
