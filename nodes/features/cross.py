"""Several ids together become the row of an embedding table."""

import polars as pl

from contracts.buckets import bucket_expr, key_expr
from contracts.features import Feature
from nodes.features import kind

SEPARATOR = "\x1f"  # the ASCII unit separator: no id of sense holds it, so "a|bc" is not "ab|c"


@kind("cross")
def cross_bucket(feature: Feature) -> pl.Expr:
    r"""The stable bucket of the columns' texts joined with \x1f, or their key; 0 if any of them is null.

    >>> pair = Feature(name="pair", kind="cross", columns=("user_id", "tab"), side="user", buckets=1000)
    >>> rows = pl.DataFrame({"user_id": ["u1", "u1", None], "tab": ["1", "2", "1"]})
    >>> rows.select(cross_bucket(pair))["pair"].to_list()
    [622, 452, 0]
    """
    columns = [pl.col(name).cast(pl.String) for name in feature.inputs]
    joined = pl.concat_str(columns, separator=SEPARATOR, ignore_nulls=False)
    return (bucket_expr(joined, feature.rows) if feature.dynamic is None else key_expr(joined)).alias(feature.name)
