"""A position: where following topics into the example log stands, so that it can go on after anything.

A position is a fact about the topics, not about a run: whoever follows the same topics with the same app comes past it.
"""

import json
from dataclasses import dataclass
from typing import Any

from contracts.errors import ContractError, CorruptError
from contracts.events import Mark

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Basis:
    """What decides every row of the log."""

    app: str
    schema_id: str
    topics: dict[str, int]  #: name -> number of partitions
    settings: dict[str, Any]  #: those that decide rows: of ingest, labels and sampling, and digests of the contracts

    def refuse_other(self, found: "Basis", where: str) -> None:
        """Compare with what was found there.

        Raises:
            ContractError: it differs; the sentence says in what.

        >>> Basis("a", "s", {"t": 4}, {}).refuse_other(Basis("a", "s", {"t": 8}, {}), "runs/live")
        Traceback (most recent call last):
        contracts.errors.ContractError: runs/live: was made with other topics ({"t": 8}, now {"t": 4}); ...
        """
        for name in ("app", "schema_id", "topics"):
            _refuse(name, getattr(found, name), getattr(self, name), where)
        for name in sorted({*found.settings, *self.settings}):
            _refuse(name, found.settings.get(name), self.settings.get(name), where)


@dataclass(frozen=True, slots=True)
class Position:
    """All that was decided up to the end of a slot stands in log and fates; what comes after is decided anew."""

    row: int  #: of the example log, the next to be written
    slot_ms_end: int  #: events settled in slots that end at or before it are done with
    last: tuple[int, str] | None  #: event time and impression id of the row before; None before the first
    resume: dict[str, Mark]  #: origin -> where its reading begins
    reached: dict[str, int]  #: origin -> what lies before that offset had been read when the slot ended
    basis: Basis
    state: bytes  #: of the streaming features after that row

    def manifest(self) -> str:
        """All but the state, as one line of JSON.

        >>> here = Position(
        ...     9, 500, (42, "i"), {"t:0": Mark("t:0", 7, 40)}, {"t:0": 8}, Basis("a", "s", {"t": 1}, {}), b"x"
        ... )
        >>> Position.of(here.manifest(), b"x") == here
        True
        """
        return json.dumps(
            {
                "format": FORMAT,
                "row": self.row,
                "slot_ms_end": self.slot_ms_end,
                "last": self.last,
                "resume": [list(self.resume[origin]) for origin in sorted(self.resume)],
                "reached": self.reached,
                "app": self.basis.app,
                "schema_id": self.basis.schema_id,
                "topics": self.basis.topics,
                "settings": self.basis.settings,
            },
            sort_keys=True,
        )

    @classmethod
    def of(cls, manifest: str, state: bytes) -> "Position":
        """The position that a manifest and a state make.

        Raises:
            CorruptError: the manifest is none, or of another format.
        """
        try:
            told = json.loads(manifest)
            if told["format"] != FORMAT:
                raise CorruptError(f"a position of format {told['format']}, but this version reads {FORMAT}")
            marks = [Mark(str(origin), int(offset), int(newest)) for origin, offset, newest in told["resume"]]
            return cls(
                row=int(told["row"]),
                slot_ms_end=int(told["slot_ms_end"]),
                last=None if told["last"] is None else (int(told["last"][0]), str(told["last"][1])),
                resume={mark.origin: mark for mark in marks},
                reached={str(origin): int(offset) for origin, offset in told["reached"].items()},
                basis=Basis(str(told["app"]), str(told["schema_id"]), dict(told["topics"]), dict(told["settings"])),
                state=state,
            )
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise CorruptError(f"not a position ({type(error).__name__}: {error})") from error


def _refuse(name: str, found: Any, now: Any, where: str) -> None:
    if found != now:
        raise ContractError(
            f"{where}: was made with other {name} ({_short(found)}, now {_short(now)}); give another folder, "
            "or go back to what made it"
        )


def _short(value: Any) -> str:
    text = json.dumps(value, sort_keys=True)
    return text if len(text) <= 200 else text[:200] + "..."
