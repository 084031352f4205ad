"""A list of ids becomes rows of the embedding table of another feature."""

import polars as pl

from contracts.buckets import bucket_expr, key_expr
from contracts.features import Feature
from nodes.features import kind


@kind("sequence")
def sequence_buckets(feature: Feature) -> pl.Expr:
    """The last `length` ids of the list as buckets, or keys, of the feature `of`; a null list is an empty one.

    `nodes.featurize` gives the feature the table of the one that it refers to. Nulls in the list do not count.

    >>> seen = Feature(name="seen", kind="sequence", column="history", of="ad", side="user", length=2, buckets=1000)
    >>> pl.DataFrame({"history": [["a", "u1", "u1"], None]}).select(sequence_buckets(seen))["seen"].to_list()
    [[123, 123], []]
    """
    last = pl.col(feature.inputs[0]).cast(pl.List(pl.String)).list.drop_nulls().list.tail(feature.length)
    item = pl.element()
    if feature.dynamic is not None:
        return last.list.eval(key_expr(item)).fill_null(pl.lit([], pl.List(pl.UInt64))).alias(feature.name)
    hashed = last.list.eval(bucket_expr(item, feature.rows))
    return hashed.fill_null(pl.lit([], pl.List(pl.UInt32))).alias(feature.name)
