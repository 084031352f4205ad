"""The folder of live ingest: one ingest at a time, and where its topics were begun and shall end."""

import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from contracts.errors import ContractError, CorruptError
from contracts.events import Mark
from contracts.positions import Basis
from nodes.files import write_whole


@dataclass(frozen=True, slots=True)
class Begun:
    """What was settled when the folder was first used."""

    start: dict[str, Mark]  #: origin -> the first place
    ends: dict[str, int] | None  #: origin -> where reading ends; None: never


@dataclass(frozen=True, slots=True)
class LiveFolder:
    """`fates/`, `dead_letters/` and `positions/` as `FollowLog` writes them, `examples/`, and `topics.json`."""

    root: Path

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other ingests out; the system lets go of it however this process ends.

        Raises:
            ContractError: another one is at work on the folder.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / "ingest.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise ContractError(
                    f"{self.root}: another rocket ingest is at work on it; stop that one, or give another folder"
                ) from None
            yield

    def begun(self, basis: Basis, examples: str) -> Begun | None:
        """Where an earlier ingest began; None where this is the first.

        Raises:
            ContractError: it read other topics, by other settings, or wrote its examples elsewhere.
            CorruptError: the file is broken.
        """
        path = self.root / "topics.json"
        if not path.exists():
            return None
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            start = {origin: Mark(origin, int(offset), int(newest)) for origin, offset, newest in told["start"]}
            before, where, ends = Basis(**told["basis"]), told["examples"], told["ends"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CorruptError(f"{path}: cannot be read ({error}); follow the topics into another folder") from error
        basis.refuse_other(before, str(self.root))
        if where != examples:
            raise ContractError(f"{self.root}: its examples go to {where}, not to {examples}; give another folder")
        return Begun(start, ends)

    def begin(self, basis: Basis, examples: str, start: Mapping[str, Mark], ends: Mapping[str, int] | None) -> None:
        """Remember it, before anything else is written."""
        told: dict[str, Any] = {
            "basis": asdict(basis),
            "examples": examples,
            "start": [list(start[origin]) for origin in sorted(start)],
            "ends": None if ends is None else dict(sorted(ends.items())),
        }
        write_whole(self.root / "topics.json", (json.dumps(told, indent=2) + "\n").encode())
