"""Positions as files beside the example log, and the offsets that they resume from."""

import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import xxhash

from contracts.app import App
from contracts.errors import ContractError, CorruptError
from contracts.events import Mark
from contracts.positions import Basis, Position
from nodes.files import sweep_partial, write_whole

_LOG = logging.getLogger(__name__)
_KEPT = 4  # files: a broken one falls back to the one before
_INGEST = ("disorder_s", "event_time_min", "event_time_max", "max_event_bytes")  # what decides rows; the rest is cuts


def basis_of(app: App, topics: Mapping[str, int]) -> Basis:
    """What decides every row, given the topics' names and how many partitions each has."""
    config = app.config
    settings: dict[str, Any] = {
        "ingest": config.ingest.model_dump(mode="json", include=set(_INGEST)),
        "labels": config.labels.model_dump(mode="json"),
        "sampling": config.sampling.model_dump(mode="json"),
    }
    for contract in (app.impressions, app.clicks):
        settings[f"contract of the {contract.name}"] = xxhash.xxh64_hexdigest(
            contract.model_dump_json(exclude={"path"}).encode()
        )
    return Basis(app.name, app.schema_id, dict(sorted(topics.items())), json.loads(json.dumps(settings)))


def position_file(folder: Path, row: int) -> Path:
    """Where the position at that row stands."""
    return folder / f"position-{row:012d}.bin"


def write_position(folder: Path, position: Position) -> Path:
    """Write it whole into `folder`, and forget all but the newest few.

    Raises:
        StoreError: the folder cannot be written.
    """
    body = position.manifest().encode() + b"\n" + position.state
    path = position_file(folder, position.row)
    write_whole(path, xxhash.xxh3_128_hexdigest(body).encode() + b"\n" + body)
    for old in _files(folder)[_KEPT:]:
        old.unlink(missing_ok=True)
    return path


def read_position(path: Path) -> Position:
    """The position of one file.

    Raises:
        CorruptError: the file is not whole, or not of this format.
    """
    try:
        digest, _, body = path.read_bytes().partition(b"\n")
    except OSError as error:
        raise CorruptError(f"{path}: cannot be read ({error})") from error
    if xxhash.xxh3_128_hexdigest(body).encode() != digest:
        raise CorruptError(f"{path}: its bytes do not have the digest that it names")
    manifest, _, state = body.partition(b"\n")
    try:
        return Position.of(manifest.decode(), state)
    except (CorruptError, UnicodeDecodeError) as error:
        raise CorruptError(f"{path}: {error}") from error


def newest(folder: Path, rows_in_log: int, basis: Basis | None = None, slot_ms: int | None = None) -> Position | None:
    """The newest whole position that the log reaches; a broken one is told, and the one before taken.

    Args:
        folder: of positions; it need not exist.
        rows_in_log: positions beyond it are passed over, for their rows were lost with a crash.
        basis: what decides rows now.
        slot_ms: the slots to settle in from now on.

    Returns:
        None where nothing was followed yet.

    Raises:
        ContractError: it was made with another app, feature table, topics or settings, or its slot does not end where
            one of `slot_ms` does.
        CorruptError: there are positions, and none of them is whole.
    """
    sweep_partial(folder)
    broken: list[CorruptError] = []
    files = _files(folder)
    for path in files:
        if _row(path) > rows_in_log:
            continue
        try:
            position = read_position(path)
        except CorruptError as error:
            broken.append(error)
            _LOG.warning("%s; going back to the position before", error)
            continue
        if basis is not None:
            basis.refuse_other(position.basis, str(folder.parent))
        if slot_ms is not None and position.slot_ms_end % slot_ms:
            raise ContractError(
                f"{path}: its slot ends at {position.slot_ms_end} ms, which is no multiple of live.slot_s = "
                f"{slot_ms / 1000:g}; set it back, or to a part of what it was"
            )
        return position
    if broken:
        raise CorruptError(f"{folder}: none of its {len(broken)} positions is whole; follow into another folder")
    return None


def _files(folder: Path) -> list[Path]:
    """The newest first."""
    return sorted(folder.glob("position-*.bin"), key=_row, reverse=True)


def _row(path: Path) -> int:
    number = path.stem.removeprefix("position-")
    return int(number) if number.isdigit() else -1


class ResumeMarks:
    """From the marks of what was read, where each partition must be read again from an event time on.

    State: a mark a partition and `step_ms` of event time, of the time that can still be asked for; so what it gives may
    lie that much before the last mark that would do.

    >>> marks = ResumeMarks(step_ms=10)
    >>> for offset, newest_ms in ((0, -9), (5, 12), (9, 18), (12, 40)):
    ...     marks.add([Mark("t:0", offset, newest_ms)])
    >>> [marks.before(time_ms)["t:0"].offset for time_ms in (13, 20, 40, 41)]
    [0, 9, 9, 12]
    """

    def __init__(self, step_ms: int, begin: Mapping[str, Mark] | None = None) -> None:
        """Begin with the marks of an earlier position."""
        self._step_ms = step_ms
        self._marks: dict[str, dict[int, Mark]] = {}  # origin -> step of event time -> the last mark in it
        self.add((begin or {}).values())

    def add(self, marks: Iterable[Mark]) -> None:
        """Take marks in any order; one a second time changes nothing."""
        for mark in marks:
            steps = self._marks.setdefault(mark.origin, {})
            step = mark.newest_ms // self._step_ms
            if step not in steps or steps[step].offset < mark.offset:
                steps[step] = mark

    def before(self, time_ms: int) -> dict[str, Mark]:
        """A mark a partition before which all events are older than `time_ms`; earlier times are not asked for again.

        Whatever is as new as that and stands in the partition, stands behind the mark.
        """
        found: dict[str, Mark] = {}
        for origin, steps in self._marks.items():
            older = [step for step, mark in steps.items() if mark.newest_ms < time_ms]
            if not older:
                continue
            best = max(older, key=lambda step: steps[step].offset)
            found[origin] = steps[best]
            for step in older:
                if step != best:
                    del steps[step]
        return found

    def all(self) -> list[Mark]:
        """Every mark that it remembers."""
        return [mark for steps in self._marks.values() for mark in steps.values()]
