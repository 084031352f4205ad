"""What stands in the store beside the versions: candidates that were held, and who serves which version now.

    ctr:<model>:held                a stream      who held what, when and why; the newest ten thousand
    ctr:<model>:serving:<member>    JSON          what a scorer answers with; expires when it stops saying so

Held candidates have a stream of their own: a bad day holds thousands, and retention reads the newest releases.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from contracts import names
from nodes.redis_errors import speaking

HELD_KEPT = 10_000
_AT_ONCE = 1000


class Serving(NamedTuple):
    """A scorer, and what it answers with."""

    member: str  #: user, host and process
    version: int | None  #: None: the app's prior
    since_ms: int


class ServingRecords:
    """The part of a weight store that keeps these; `RedisWeights` is the rest."""

    model: str
    called: str
    _redis: Any
    _who: str

    def newest_release(self) -> dict[str, str] | None:
        """The last entry of the stream of releases; None before the first."""
        with speaking(self.called):
            entries = self._redis.xrevrange(names.releases_key(self.model), count=1)
        return _entry(*entries[0]) if entries else None

    def record_held(self, entry: Mapping[str, str]) -> None:
        """Put a held candidate on the record; moves no pointer and asks for no fence.

        Raises:
            StoreError: Redis cannot be reached or refuses.
        """
        with speaking(self.called):
            self._redis.xadd(
                names.held_key(self.model), {**entry, "who": self._who}, maxlen=HELD_KEPT, approximate=True
            )

    def held(self, count: int = 100) -> list[dict[str, str]]:
        """The newest candidates held, oldest first: at_ms, who, position, step, kind, reason, figures (JSON)."""
        with speaking(self.called):
            entries = self._redis.xrevrange(names.held_key(self.model), count=count)
        return [_entry(at, fields) for at, fields in reversed(entries)]

    def tell_serving(self, version: int | None, since_ms: int, expires_s: float) -> None:
        """Say that this process answers with a version since then; forgotten after `expires_s`.

        Raises:
            StoreError: Redis cannot be reached or refuses.
        """
        told = json.dumps({"version": version, "since_ms": since_ms})
        with speaking(self.called):
            self._redis.set(names.serving_key(self.model, self._who), told, px=max(round(expires_s * 1000), 1))

    def serving(self) -> list[Serving]:
        """The scorers that have said lately what they serve, by name; an entry that is none is left out."""
        start = names.serving_key(self.model, "")
        found: list[Serving] = []
        with speaking(self.called):
            keys = sorted(self._redis.scan_iter(match=re.sub(r"([\\*?\[\]])", r"\\\1", start) + "*", count=_AT_ONCE))
            values = self._redis.mget(keys) if keys else []
        for key, value in zip(keys, values, strict=True):
            try:
                told = json.loads(value or b"")
                version = None if told["version"] is None else int(told["version"])
                found.append(Serving(key.decode(errors="replace")[len(start) :], version, int(told["since_ms"])))
            except (ValueError, KeyError, TypeError, RecursionError):
                continue
        return found


def _entry(at: bytes, fields: Mapping[bytes, bytes]) -> dict[str, str]:
    told = {name.decode(): value.decode(errors="replace") for name, value in fields.items()}
    return {"at_ms": at.decode().split("-")[0]} | told
