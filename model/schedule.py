"""How much the hints count: a schedule by rows learnt, and a gate that is open only while the booster leads."""

import math
from collections.abc import Mapping
from typing import Any

from contracts.nets import Rocket
from contracts.schemes import LED


def strength(rocket: Rocket, rows: int) -> float:
    """What both lambdas are multiplied by, 0 to 1, before the gate.

    Args:
        rocket: the schedule.
        rows: that the booster has learnt: a new one begins again at 0.

    >>> ramp = Rocket(schedule="ramp", warmup_rows=100, ramp_rows=200, decay_after_rows=1000, decay_rows=100)
    >>> [strength(ramp, rows) for rows in (99, 200, 300, 1000)]
    [0.0, 0.5, 1.0, 1.0]
    >>> [round(strength(ramp, rows), 4) for rows in (1050, 1100, 9000)]
    [0.5, 0.0, 0.0]
    """
    if rocket.schedule != "constant" and rows < rocket.warmup_rows:
        return 0.0
    whole = 1.0
    if rocket.schedule == "ramp" and rocket.ramp_rows:
        whole = min(1.0, (rows - rocket.warmup_rows) / rocket.ramp_rows)
    if rocket.decay_rows and rows > rocket.decay_after_rows:
        done = min(1.0, (rows - rocket.decay_after_rows) / rocket.decay_rows)
        whole *= 0.5 * (1.0 + math.cos(math.pi * done))
    return whole


class HintGate:
    """Both nets' running loglosses, and what they and the schedule make of the lambdas.

    Args:
        rocket: schedule and gate.

    >>> gate = HintGate(Rocket(gate_halflife_rows=64))
    >>> gate.move(light=0.7, booster=0.6, rows=64)
    >>> gate.open, round(gate.lead, 3), gate.strength(64)
    (True, 0.05, 1.0)
    """

    def __init__(self, rocket: Rocket) -> None:
        self._rocket = rocket
        self.light = self.booster = 0.0  #: running loglosses; equal at first, so that the gate starts shut
        self.since_rows = 0  #: rows learnt when this booster began

    @property
    def lead(self) -> float:
        """Nats a row by which the booster is better."""
        return self.light - self.booster

    @property
    def open(self) -> bool:
        """Whether the booster leads by more than `rocket.gate_lead`."""
        return self.lead > self._rocket.gate_lead

    def strength(self, rows_learnt: int) -> float:
        """What the lambdas of all hints are multiplied by."""
        if self._rocket.gate and self._rocket.scheme in LED and not self.open:
            return 0.0
        return strength(self._rocket, rows_learnt - self.since_rows)

    def move(self, light: float, booster: float, rows: int) -> None:
        """Decay the running loglosses by event rows."""
        keep = 0.5 ** (rows / self._rocket.gate_halflife_rows)
        self.light = keep * self.light + (1 - keep) * light
        self.booster = keep * self.booster + (1 - keep) * booster

    def meta(self) -> dict[str, float]:
        """The running loglosses, ready for JSON."""
        return {"light": self.light, "booster": self.booster}

    def restore(self, meta: Mapping[str, Any]) -> None:
        """Go on from a checkpoint's `running_logloss` and `booster`.

        Raises:
            KeyError, TypeError, ValueError: they are not there.
        """
        running = meta["running_logloss"]
        self.light, self.booster = float(running["light"]), float(running["booster"])
        self.since_rows = int(meta.get("booster", {}).get("since_rows", 0))
