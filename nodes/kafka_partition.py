"""Which partition a key belongs to, as Kafka's Java clients say, for many keys at once."""

from collections.abc import Sequence

import numpy as np
from kafka.partitioner.default import murmur2
from numpy.typing import NDArray

_SEED, _M = np.uint32(0x9747B28C), np.uint32(0x5BD1E995)
_MAX_KEY_BYTES = 256  # longer ones go one by one: they would widen the table of all


def partitions_for(keys: Sequence[bytes], num_partitions: int | NDArray[np.int64]) -> NDArray[np.int64]:
    """The partition of each key: murmur2, as producers in production choose it.

    Args:
        keys: of any length.
        num_partitions: of the topic, or of each key's topic.

    Returns:
        One partition number a key.

    >>> partitions_for([b"imp-000", b"imp-001", b""], 4).tolist()
    [1, 2, 1]
    """
    return (hashes(keys).astype(np.int64) & 0x7FFF_FFFF) % num_partitions


def hashes(keys: Sequence[bytes]) -> NDArray[np.uint32]:
    """murmur2 of each key, 32 bits."""
    lengths = np.fromiter(map(len, keys), np.int64, len(keys))
    if not len(keys) or (longest := int(lengths.max())) > _MAX_KEY_BYTES:
        return np.array([murmur2(key) & 0xFFFF_FFFF for key in keys], np.uint32)
    width = (longest // 4 + 1) * 4
    padded = np.array(keys, dtype=f"S{width}").view(np.uint8).reshape(len(keys), width)
    words = padded.view("<u4")
    found = _SEED ^ lengths.astype(np.uint32)
    for index in range(longest // 4):
        word = words[:, index] * _M
        word = (word ^ (word >> np.uint32(24))) * _M
        found = np.where(lengths >= 4 * index + 4, (found * _M) ^ word, found)
    tail = words[np.arange(len(keys)), lengths // 4]  # padded with zeros, so the rest of a word is its last bytes
    found = np.where(lengths % 4 > 0, (found ^ tail) * _M, found)
    found = (found ^ (found >> np.uint32(13))) * _M
    return np.asarray(found ^ (found >> np.uint32(15)), np.uint32)
