"""Stable hashing of ids: the same bytes give the same bucket in every process, version and language.

Polars' own `hash` is stable only within one Polars version, and Python's `hash` only within a process,
so ids are hashed with xxHash64 and the values are pinned here.
"""

import polars as pl
import polars_hash as plh
import xxhash

SEED = 0x0C7B  # part of schema_id: another seed is another model
MISSING = 0  # the bucket of a null


def hash64(text: str, seed: int = SEED) -> int:
    """XxHash64 of the UTF-8 bytes of `text`.

    >>> hash64("x", seed=7), hash64("user-1")
    (15473655779695607019, 17289725134593046208)
    """
    return xxhash.xxh64_intdigest(text.encode(), seed)


def hash_expr(expr: pl.Expr, seed: int = SEED) -> pl.Expr:
    """The same hash for a whole String column (u64; null stays null).

    >>> pl.DataFrame({"a": ["x", None]}).select(hash_expr(pl.col("a"), seed=7))["a"].to_list()
    [15473655779695607019, None]
    """
    hashed: pl.Expr = plh.concat_str(expr).nchash.xxhash64(seed=seed)
    return hashed


def bucket(text: str | None, buckets: int, seed: int = SEED) -> int:
    """Bucket 0 for a missing id, else 1 to `buckets` - 1.

    >>> bucket(None, 10), 1 <= bucket("user-1", 10) <= 9
    (0, True)
    """
    return MISSING if text is None else 1 + hash64(text, seed) % (buckets - 1)


def bucket_expr(expr: pl.Expr, buckets: int, seed: int = SEED) -> pl.Expr:
    """`bucket` for a whole String column, as UInt32.

    >>> frame = pl.DataFrame({"a": ["x", None, "user-1"]})
    >>> got = frame.select(bucket_expr(pl.col("a"), 1000))["a"].to_list()
    >>> got == [bucket("x", 1000), 0, bucket("user-1", 1000)]
    True
    """
    return (
        (hash_expr(expr, seed) % pl.lit(buckets - 1, pl.UInt64) + pl.lit(1, pl.UInt64))
        .fill_null(pl.lit(MISSING, pl.UInt64))
        .cast(pl.UInt32)
    )


def key(text: str | None, seed: int = SEED) -> int:
    """The key of an id that owns its row: its whole hash; 0 where it is missing (and for one id in 2^64).

    >>> key("x", seed=7), key(None)
    (15473655779695607019, 0)
    """
    return MISSING if text is None else hash64(text, seed)


def key_expr(expr: pl.Expr, seed: int = SEED) -> pl.Expr:
    """`key` for a whole String column, as UInt64.

    >>> frame = pl.DataFrame({"a": ["x", None]})
    >>> frame.select(key_expr(pl.col("a"), seed=7))["a"].to_list()
    [15473655779695607019, 0]
    """
    return hash_expr(expr, seed).fill_null(pl.lit(MISSING, pl.UInt64))
