"""What stands in a weight store: versions, who serves them now, and candidates that the gate held."""

import json
import time
from collections.abc import Callable
from typing import Any

from contracts.errors import ContractError
from nodes.redis_weights import RedisWeights

_LOOK_S = 0.2


def listed(store: RedisWeights, *, count: int = 100) -> dict[str, Any]:
    """The newest versions that are still held, oldest first, and the newest candidates that were not published.

    Args:
        store: where they lie.
        count: at most so many of each.

    Returns:
        model, current (version), versions (version, live, kind, base_version, published_ms, who, why, position, step,
        trained_until_ms, schema_id, bytes, gate (its figures), served_by), elsewhere (scorers that serve none of these:
        member, version (None: the prior), since_ms), held (at_ms, who, position, step, kind, reason, figures).

    Raises:
        StoreError: it cannot be reached.
    """
    current, serving = store.current_version(), store.serving()
    who = {int(entry["version"]): entry["who"] for entry in store.releases(10 * count) if entry["action"] == "publish"}
    versions = [
        {
            "version": manifest.version,
            "live": manifest.version == current,
            "kind": manifest.kind,
            "base_version": manifest.base_version,
            "published_ms": manifest.created_ms,
            "who": who.get(manifest.version),
            "why": str(manifest.gate.get("reason") or ""),
            "position": manifest.position,
            "step": manifest.step,
            "trained_until_ms": manifest.trained_until_ms,
            "schema_id": manifest.schema_id,
            "bytes": sum(sum(blob.chunks) for blob in manifest.blobs),
            "gate": {name: value for name, value in manifest.gate.items() if name != "reason"},
            "served_by": [one.member for one in serving if one.version == manifest.version],
        }
        for manifest in store.versions()[-count:]
    ]
    known = {row["version"] for row in versions}
    return {
        "model": store.model,
        "current": current,
        "versions": versions,
        "elsewhere": [one._asdict() for one in serving if one.version not in known],
        "held": [_held(entry) for entry in store.held(count)],
    }


def roll_back(
    store: RedisWeights,
    to: int,
    why: str,
    *,
    wait_s: float = 5.0,
    clock_s: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Any]:
    """Point at an older version, on the record, and wait for the scorers that are there to take it up.

    Args:
        store: where the versions lie.
        to: the version.
        why: stands on the record.
        wait_s: for the scorers, at most.
        clock_s: measures that.
        sleep: between two looks at who serves what.

    Returns:
        model, from, to, why, held (versions that are left), serving (member, version, since_ms of each scorer).

    Raises:
        ContractError: that version is live already.
        StoreError: it is gone, or the store cannot be reached. CorruptError: it is not whole any more.
    """
    before = store.current_version()
    if before == to:
        raise ContractError(
            f"{store.called}: version {to} of model '{store.model}' is live already; nothing was changed"
        )
    store.rollback(to, why)
    until_s = clock_s() + wait_s
    while any(one.version != to for one in store.serving()) and clock_s() < until_s:
        sleep(_LOOK_S)
    return {
        "model": store.model,
        "from": before,
        "to": to,
        "why": why,
        "held": [manifest.version for manifest in store.versions()],
        "serving": [one._asdict() for one in store.serving()],
    }


def _held(entry: dict[str, str]) -> dict[str, Any]:
    numbers = {name: int(entry[name]) for name in ("at_ms", "position", "step")}
    return {**entry, **numbers, "figures": json.loads(entry["figures"])}
