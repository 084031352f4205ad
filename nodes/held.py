"""Candidates that are held: what stands on the record of each, and how long a rollback holds all of them."""

import logging

import msgspec

from contracts.errors import StoreError
from contracts.stores import WeightStore
from nodes.gate import Decision, Fault

log = logging.getLogger(__name__)


def record_of(held: Decision) -> dict[str, str]:
    """A held candidate as its entry on the record: at_ms, position, step, kind, reason, figures (JSON).

    >>> record_of(Decision("held", "no", 7, 1, None, {"ne": 1.5, "live_ne": None}, kind="labels", at_ms=9))["figures"]
    '{"ne":1.5}'
    """
    told = {name: value for name, value in held.figures.items() if value is not None}
    fields = {"at_ms": held.at_ms, "position": held.position, "step": held.step, "kind": held.kind}
    return {name: str(value) for name, value in fields.items()} | {
        "reason": held.reason,
        "figures": msgspec.json.encode(told).decode(),
    }


class RollbackHold:
    """Says whether an operator has gone back to an older version lately: nothing must go over that without a word.

    The time counts from the moment at which this process saw the rollback, so no two clocks are compared.

    Args:
        store: whose newest release is looked at.
        hold_s: for so long nothing is published after a rollback; 0: a rollback holds nothing.
    """

    def __init__(self, store: WeightStore, hold_s: float) -> None:
        self._store, self._hold_s = store, hold_s
        self._seen: tuple[str, int] | None = None  # the newest rollback, and when it was first seen

    def fault(self, now_ms: int) -> Fault | None:
        """Why nothing must be published at `now_ms`; None when the newest release is no rollback, or an old one."""
        if not self._hold_s:
            return None
        try:
            newest = self._store.newest_release()
        except StoreError:
            return None  # sending says what is wrong with it
        if newest is None or newest["action"] != "rollback":
            return None
        name = f"{newest['at_ms']} {newest['version']}"
        if self._seen is None or self._seen[0] != name:
            self._seen = (name, now_ms)
            log.warning("version %s was made live by a rollback (%s)", newest["version"], newest["why"])
        left_s = self._hold_s - (now_ms - self._seen[1]) / 1000
        if left_s <= 0:
            return None
        return Fault(
            "rolled_back",
            f"version {newest['version']} was made live by a rollback ({newest['why']}); nothing goes over it for "
            f"{left_s:.0f} s more, or until `rocket publish` (publish.rollback_hold_s = {self._hold_s:g})",
        )
