"""An id becomes the row of an embedding table."""

import polars as pl

from contracts.buckets import bucket_expr, key_expr
from contracts.features import Feature
from nodes.features import kind


@kind("id")
def id_bucket(feature: Feature) -> pl.Expr:
    """The stable bucket of the column's text, or its key where ids own their rows; 0 for a null.

    >>> user = Feature(name="user", kind="id", column="user_id", side="user", buckets=1000)
    >>> pl.DataFrame({"user_id": ["u1", None]}).select(id_bucket(user))["user"].to_list()
    [123, 0]
    """
    text = pl.col(feature.inputs[0]).cast(pl.String)
    return (bucket_expr(text, feature.rows) if feature.dynamic is None else key_expr(text)).alias(feature.name)
