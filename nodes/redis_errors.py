"""What a Redis client complains of, as one sentence with the URL and the mend."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import redis

from contracts.errors import StoreError


def masked(url: str) -> str:
    """The URL without its password, to show.

    >>> masked("redis://:secret@host:6379/0"), masked("redis://host")
    ('redis://:***@host:6379/0', 'redis://host')
    """
    return re.sub(r"(password=)[^&]*", r"\1***", re.sub(r"(//[^:/@]*):.*@", r"\1:***@", url))


@contextmanager
def speaking(url: str) -> Iterator[None]:
    """Turn the client's errors inside the `with` block into StoreErrors.

    Args:
        url: masked, to be shown.

    Raises:
        StoreError: the server cannot be reached or refuses.
    """
    try:
        yield
    except redis.RedisError as error:
        raise StoreError(f"{url}: {_mend(error)}") from error


def _mend(error: redis.RedisError) -> str:
    said = " ".join(str(error).split())[:200]
    if isinstance(error, redis.exceptions.AuthenticationError):
        return f"the server wants another user or password ({said}); put them into the URL"
    if isinstance(error, redis.exceptions.NoPermissionError):
        return f"this user may not do that ({said}); give it the commands and the keys ctr:*"
    if isinstance(error, redis.exceptions.ReadOnlyError):
        return f"the server is a read-only replica ({said}); publish to the primary"
    if isinstance(error, redis.exceptions.OutOfMemoryError):
        return f"the server is out of memory ({said}); raise maxmemory, or lower publish.keep and publish.ttl_s"
    if isinstance(error, redis.exceptions.BusyLoadingError):
        return "the server is still loading its data; try again in a moment"
    if isinstance(error, redis.exceptions.TimeoutError):
        return f"no answer in time ({said}); check the server and the network"
    if isinstance(error, redis.exceptions.ConnectionError):
        return f"cannot be reached ({said}); start Redis or Valkey there, or give another --weights"
    if "MISCONF" in said:
        return f"the server cannot save to its disk ({said}); free space there"
    return f"the server refused ({said})"
