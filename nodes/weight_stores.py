"""Where weights lie, by its name: a Redis URL, or a folder with a Valkey of its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import SecretStr

from contracts.errors import StoreError, did_you_mean
from nodes.embedded_valkey import EmbeddedValkey
from nodes.redis_errors import masked
from nodes.redis_weights import RedisWeights

_SCHEMES = ("redis", "rediss", "unix")


@contextmanager
def open_weights(
    where: str | Path,
    model: str,
    *,
    schema_id: str | None = None,
    keep: int = 5,
    ttl_s: int = 86_400,
    key: SecretStr | None = None,
    create: bool = True,
) -> Iterator[RedisWeights]:
    """The store of a model's versions, closed at the end of the `with` block.

    Args:
        where: redis://, rediss:// or unix://, or a folder: then a Valkey runs on its data while the store is open.
        model: usually the app's name.
        schema_id: refuse versions of another feature table; None takes any.
        keep: so many of the newest versions never expire.
        ttl_s: older ones expire after that many seconds.
        key: versions are signed with it, and refused where they are not (`publish.key`); None: neither.
        create: False: a folder that does not exist is an error.

    Raises:
        StoreError: it cannot be reached or started, or `where` has an unknown scheme.
    """
    text, secret = str(where), None if key is None else key.get_secret_value().encode()
    scheme, separator, _ = text.partition("://")
    if separator and scheme not in _SCHEMES:
        raise StoreError(f"{masked(text)}: no such kind of weight store; {did_you_mean(scheme, _SCHEMES)}")
    if separator:
        store = RedisWeights(text, model, schema_id=schema_id, keep=keep, ttl_s=ttl_s, key=secret)
        try:
            yield store
        finally:
            store.close()
        return
    with EmbeddedValkey(Path(where), create=create) as valkey:
        store = RedisWeights(valkey.url, model, schema_id=schema_id, keep=keep, ttl_s=ttl_s, key=secret, called=text)
        try:
            yield store
        finally:
            store.close()
