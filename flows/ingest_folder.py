"""The folder that an ingest writes: whose input it holds, and whether it is complete."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from contracts.app import App
from contracts.errors import ContractError, CorruptError
from contracts.events import Fate
from nodes.example_log import ExampleDirectory
from nodes.files import sweep_partial, write_whole

_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class IngestFolder:
    """`examples/` (the log), `fates/`, `dead_letters/`, `source.json` (written first) and `ingest.json`."""

    root: Path

    @property
    def examples(self) -> Path:
        """The example log."""
        return self.root / "examples"

    @property
    def fates(self) -> Path:
        """What became of each event, as Parquet parts."""
        return self.root / "fates"

    @property
    def dead_letters(self) -> Path:
        """What could not be used, with bytes and reason, as Parquet parts."""
        return self.root / "dead_letters"

    def claim(self, app: App, impressions: list[Path], clicks: list[Path]) -> dict[str, Any] | None:
        """Make the folder ready for this input; the figures of the run that finished it already, if one did.

        Fates and dead letters of a run that was killed are removed; segments of the log stay, readers may be on them.

        Raises:
            ContractError: a file is missing or named twice, or the folder holds the results of another input.
            CorruptError: the finished log is not what was written.
        """
        for stream, paths in (("impressions", impressions), ("clicks", clicks)):
            _refuse_repeats(paths, stream)
        source = _source(app, impressions, clicks)
        marker = self.root / "source.json"
        if marker.exists():
            self._compare(marker, source)
        elif self.examples.exists() and any(self.examples.iterdir()):
            raise ContractError(f"{self.root}: holds an example log but no source.json; give another folder")
        else:
            write_whole(marker, (json.dumps(source, indent=2) + "\n").encode())
        log = ExampleDirectory(self.examples)
        if log.complete is not None:
            log.verify()
            return self._figures()
        for parts in (self.fates, self.dead_letters):
            shutil.rmtree(parts, ignore_errors=True)
            parts.mkdir(parents=True)
        self.examples.mkdir(parents=True, exist_ok=True)
        for folder in (self.root, self.examples):
            sweep_partial(folder)
        return None

    def finish(self, figures: dict[str, Any], schema_id: str) -> None:
        """Write the figures, then mark the log complete.

        Raises:
            CorruptError: an event has vanished, or the log does not hold the rows that the figures count.
        """
        for stream, rows in figures["streams"].items():
            if rows["read"] != sum(rows[fate] for fate in Fate):
                raise CorruptError(
                    f"{self.root}: of the {stream} read not each has one fate ({rows}); keep the folder, report this"
                )
        if figures["streams"]["impressions"]["accepted"] != sum(
            figures[outcome] for outcome in ("examples", "sampled_out", "waiting")
        ):
            raise CorruptError(
                f"{self.root}: not each accepted impression has an outcome; keep the folder, report this"
            )
        write_whole(self.root / "ingest.json", (json.dumps(figures, indent=2) + "\n").encode())
        ExampleDirectory(self.examples).finish(
            sum(figures[rows] for rows in ("examples", "corrections", "ended")), schema_id
        )

    def _figures(self) -> dict[str, Any]:
        path = self.root / "ingest.json"
        try:
            figures: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CorruptError(f"{path}: cannot be read ({error}); delete {self.root} and ingest again") from error
        return figures

    def _compare(self, marker: Path, source: dict[str, Any]) -> None:
        try:
            found = json.loads(marker.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CorruptError(f"{marker}: cannot be read ({error}); delete {self.root} and ingest again") from error
        for key, value in source.items():
            if found.get(key) != value:
                raise ContractError(
                    f"{self.root}: holds the results of other {key} ({_short(found.get(key))}, now {_short(value)}); "
                    "give another folder, or delete it"
                )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 200 else text[:200] + "..."


def _refuse_repeats(paths: list[Path], stream: str) -> None:
    """A file and a line name an event: read twice, one file would give two events one name."""
    seen: set[Path] = set()
    for path in paths:
        if path.resolve() in seen:
            raise ContractError(f"{path}: is named twice among the files of {stream}; name each file once")
        seen.add(path.resolve())


def _source(app: App, impressions: list[Path], clicks: list[Path]) -> dict[str, Any]:
    """What decides every row of the results."""
    config = app.config
    return {
        "app": app.name,
        "schema_id": app.schema_id,
        "settings": {name: getattr(config, name).model_dump(mode="json") for name in ("ingest", "labels", "sampling")},
        "contracts": {
            contract.name: xxhash.xxh64_hexdigest(contract.model_dump_json(exclude={"path"}).encode())
            for contract in (app.impressions, app.clicks)
        },
        "impressions": [_content(path, "impressions") for path in impressions],
        "clicks": [_content(path, "clicks") for path in clicks],
    }


def _content(path: Path, stream: str) -> dict[str, Any]:
    digest = xxhash.xxh3_128()
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    except OSError as error:
        raise ContractError(f"{path}: no readable file of {stream} ({error.strerror}); check the path") from error
    return {"path": str(path), "bytes": path.stat().st_size, "xxh3_128": digest.hexdigest()}
