"""What makes a click likely: effects with a stated spread each, scaled on a sample of the traffic itself.

Every effect is a table over one or two attributes of an impression. Those over two are centred both ways, so no sum of
one-attribute terms, which is all that a linear model has, can express any part of them.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from contracts.errors import ContractError

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
_GOLDEN = (1 + 5**0.5) / 2
_CENTRINGS = 8  # rounds of alternating centring; what is left is below 1e-3 of the spread


@dataclass(frozen=True, slots=True)
class Spread:
    """How many logits (standard deviation over the traffic) an effect is worth."""

    over: tuple[str, ...]  #: one attribute, or two
    logits: float


@dataclass(frozen=True, slots=True)
class Drift:
    """How likings change with time: the appeal of each category, or campaign, swings, each with a phase of its own."""

    logits: float = 0.06  #: standard deviation of the swing
    period_h: float = 192.0  #: hours until it is back; one that does not divide 24 is no habit of the day
    over: Literal["category", "campaign"] = "category"
    #: sines that it is the sum of, each slower than the last by the golden ratio: from 2 on nothing ever comes back
    swings: int = 1

    @property
    def periods_h(self) -> list[float]:
        """Of each sine.

        >>> Drift(period_h=5, swings=3).periods_h
        [5.0, 8.09, 13.09]
        """
        return [self.period_h * _GOLDEN**nth for nth in range(self.swings)]

    def checked(self) -> "Drift":
        """The same.

        Raises:
            ContractError: a negative swing, no period, or an attribute that does not drift.
        """
        if not 0 <= self.logits <= 10 or not 0 < self.period_h < math.inf or self.over not in {"category", "campaign"}:
            raise ContractError(
                f"simulate: a drift of {self.logits:g} logits every {self.period_h:g} h over '{self.over}' is none; "
                "give 0 to 10 logits, a period above 0 hours, and category or campaign"
            )
        if not 1 <= self.swings <= 16:
            raise ContractError(f"simulate: a drift is the sum of 1 to 16 swings, not {self.swings}")
        return self


#: Sums of one-attribute terms: what a linear model can learn.
MAIN = (
    Spread(("user",), 0.10),
    Spread(("segment",), 0.30),
    Spread(("age",), 0.15),
    Spread(("ad",), 0.15),
    Spread(("campaign",), 0.15),
    Spread(("category",), 0.30),
    Spread(("format",), 0.30),
    Spread(("device",), 0.25),
    Spread(("site",), 0.25),
    Spread(("hour",), 0.08),
    Spread(("position",), 0.45),
)
#: What only a net can learn.
PAIRS = (
    Spread(("segment", "category"), 0.65),
    Spread(("device", "format"), 0.50),
    Spread(("site_group", "category"), 0.30),
    Spread(("part_of_day", "segment"), 0.20),
    Spread(("age", "format"), 0.20),
)
#: Each user's favourite categories; to be seen in what the user clicked before.
TASTE = Spread(("user", "category"), 0.55)


def centred(table_AB: Floats, weight_AB: Floats) -> Floats:
    """The table less its row and column means under `weight_AB`, what a linear model could take.

    >>> rows, columns = np.array([[1.0], [5.0]]), np.array([[2.0, 3.0, 4.0]])
    >>> bool(np.abs(centred(rows + columns, np.ones((2, 3)))).max() < 1e-9)
    True
    """
    rows = np.maximum(weight_AB.sum(axis=1, keepdims=True), 1e-12)
    columns = np.maximum(weight_AB.sum(axis=0, keepdims=True), 1e-12)
    for _ in range(_CENTRINGS):
        table_AB = table_AB - (table_AB * weight_AB).sum(axis=1, keepdims=True) / rows
        table_AB = table_AB - (table_AB * weight_AB).sum(axis=0, keepdims=True) / columns
    return table_AB


def scaled(table: Floats, weight: Floats, logits: float) -> Floats:
    """The table with mean 0 and standard deviation `logits` under the traffic's `weight`.

    >>> scaled(np.array([1.0, 3.0]), np.array([1.0, 1.0]), 0.5)
    array([-0.5,  0.5])
    """
    share = weight / weight.sum()
    middle = table - (table * share).sum()
    spread = float(np.sqrt((middle**2 * share).sum()))
    return middle * (logits / spread) if spread > 0 else middle


def intercept_for(logits: Floats, ctr: float) -> float:
    """What to add to the logits so that their mean probability is `ctr`.

    >>> intercept_for(np.zeros(10), 0.5)
    0.0
    """
    low, high = -20.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        if float((1 / (1 + np.exp(-(logits + middle)))).mean()) > ctr:
            high = middle
        else:
            low = middle
    return round((low + high) / 2, 9)
