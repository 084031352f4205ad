"""What the parser of ad requests hands on, before the contract's rules are asked."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from nodes.known_candidates import Found

#: Values of candidates; None: their bytes are remembered, and so is what they say.
Own = list[tuple[Any, ...] | None]


@dataclass
class Parsed:
    """What the parser hands on of one request, or of many: columns still as Python values."""

    requests: list[Any] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)  #: candidates of each
    items: list[str | None] = field(default_factory=list)  #: of each candidate
    places: list[int] = field(default_factory=list)  #: in the catalogue, -1: what the candidate says is in `own`
    own: Own = field(default_factory=list)  #: what those candidates say
    refused: dict[int, str] = field(default_factory=dict)  #: candidate -> "code: detail"
    found: list[tuple[int, Found]] = field(default_factory=list)  #: row in `own` -> what is known from there on

    def add(self, other: "Parsed") -> None:
        """Put another behind."""
        self.refused.update({len(self.items) + row: why for row, why in other.refused.items()})
        self.requests += other.requests
        self.counts.append(len(other.items))
        self.items += other.items
        self.places += other.places
        self.found += [(len(self.own) + row, found) for row, found in other.found]
        self.own += other.own

    def values(self, read: Callable[[bytes], tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        """`own`, where those that are remembered are read again."""
        made = list(self.own)
        for start, found in self.found:
            for row, key in enumerate(found.keys, start):
                if made[row] is None:
                    made[row] = read(key)
        return [value for value in made if value is not None]
