"""Which of several models answers a user: always the same one, by a hash of the user's id."""

from collections.abc import Mapping
from itertools import accumulate

import xxhash

_POINTS = 2**64


def arm_of(user_id: str, shares: Mapping[str, float], salt: str) -> str:
    """The model whose share of the hash's range the user falls into.

    The hash is xxh3 (64 bits) of the salt, a zero byte and the id: with another salt, another test deals the same
    users out independently. While shares change, only users of the range that changes hands change models.

    Args:
        user_id: who is looking.
        shares: model -> percent, in a fixed order, together 100.
        salt: of this split.

    >>> [arm_of(f"user-{n}", {"a": 50, "b": 50}, "1") for n in range(6)]
    ['a', 'b', 'b', 'a', 'a', 'a']
    """
    point = xxhash.xxh3_64_intdigest(f"{salt}\0{user_id}".encode("utf-8", "surrogatepass")) / _POINTS * 100
    ends = accumulate(shares.values())
    (*_, last) = shares  # what rounding leaves over is the last one's
    return next((name for name, end in zip(shares, ends, strict=True) if point < end), last)
