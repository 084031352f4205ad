"""How fresh each version is: from the moment of an event to the moment at which weights that learnt from it are out.

    event ──label wait + disorder──▶ due ──ingest, training──▶ offered ──gate──▶ published
    └──────────────────────────────── freshness ──────────────────────────────┘
                                     └──────────────── after wait ────────────┘
                                     └────── learn ──────────┘└── gate wait ──┘

*Freshness* of a version = when it was published - event time of the newest row that it learnt (wall clock on both
sides, so it means something only where event time is wall time, as it is live). *After wait* takes off what no system
can save, the label's wait and the disorder that is allowed; it is the sum of *learn*, until the version was offered to
the gate, and *gate wait*, until its window was full and it was out. All these judge a version by its best row, so
another figure judges it by all: every example waits from when it is *due* (its label is known and nothing earlier may
still come) until the first version that contains it is published; p50 and p99 are over examples, of one version or of
all. When a scorer first serves a version is the scorer's own metric.
"""

import json
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from contracts.app import App
from contracts.errors import CorruptError
from contracts.segments import FeatureBatch
from contracts.weights import WeightManifest

log = logging.getLogger(__name__)
#: Waits are counted in bins of that width; a longer wait than the last bin's counts there.
BIN_MS = 50
_LAST_BIN = 7 * 86_400_000 // BIN_MS


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """One version, as a line of `versions.ndjson`."""

    version: int
    epoch: int  #: fence epoch of its publisher
    position: int  #: rows of the example log that it had learnt
    step: int
    trained_until_ms: int  #: event time of the newest row among them
    created_ms: int  #: published
    freshness_s: float
    after_wait_s: float  #: freshness less label wait and disorder
    gate_wait_s: float | None = None  #: the part of it from the offer to the gate until published
    rows: int  #: examples that it is the first version to contain
    wait_s_p50: float | None  #: of those, from due to published
    wait_s_p99: float | None
    waits: dict[str, int]  #: bin of `BIN_MS` -> examples, so that versions can be summed up

    def figures(self) -> dict[str, Any]:
        """All but the histogram, for a table or a metric."""
        return {name: value for name, value in msgspec.to_builtins(self).items() if name != "waits"}


def settle_ms(app: App) -> int:
    """How long after its event time in the log an example can be learnt at the earliest: label wait and disorder.

    With a mode of `labels` that does not wait, a row's event time is already the moment at which its label was known.
    """
    labels = app.config.labels
    waits_s = labels.wait_s if labels.mode == "wait" else 0.0
    return round((waits_s + app.config.ingest.disorder_s) * 1000)


def quantile_s(waits: dict[str, int], share: float) -> float | None:
    """The wait, in seconds, that `share` of the examples do not exceed; None without examples.

    >>> quantile_s({"0": 98, "40": 2}, 0.5), quantile_s({"0": 98, "40": 2}, 0.99), quantile_s({}, 0.5)
    (0.05, 2.05, None)
    """
    bins = sorted((int(name), count) for name, count in waits.items())
    reached, total = 0, sum(count for _, count in bins)
    for number, count in bins:
        reached += count
        if reached >= share * total:
            return (number + 1) * BIN_MS / 1000  # the bin's end: never told fresher than it is
    return None


def summed(versions: Iterable[Published]) -> dict[str, Any]:
    """The figures of many versions: how many, over how many examples, p50 and p99 of the examples' waits in seconds.

    The gate's wait is part of those; its median over versions stands beside.
    """
    waits: dict[str, int] = {}
    gate_waits_s: list[float] = []
    count = 0
    for one in versions:
        count += 1
        gate_waits_s += [] if one.gate_wait_s is None else [one.gate_wait_s]
        for name, rows in one.waits.items():
            waits[name] = waits.get(name, 0) + rows
    return {
        "versions": count,
        "examples": sum(waits.values()),
        "freshness_after_wait_s_p50": quantile_s(waits, 0.5),
        "freshness_after_wait_s_p99": quantile_s(waits, 0.99),
        "gate_wait_s_p50": float(np.median(gate_waits_s)) if gate_waits_s else None,
    }


class Freshness:
    """Keeps what was learnt since the last version, and appends one line a version to a file that outlives it.

    Args:
        app: gives label wait and disorder.
        path: `versions.ndjson`; what stands there is gone on from.
        anew: training begins anew: earlier versions contain nothing of what is learnt now.

    An example counts for the first version that contains it, also when it is learnt again after a kill.
    """

    def __init__(self, app: App, path: Path, *, anew: bool = False) -> None:
        self._app, self._path = app, path
        stands = read_versions(path)
        self.newest = stands[-1] if stands else None  #: the version published last, by this process or one before it
        #: rows of the log that some version contains
        self.position = 0 if anew else max((one.position for one in stands), default=0)
        self._rows: list[npt.NDArray[np.int64]] = []  # numbers in the log, and when due, of what no version contains
        self._due_ms: list[npt.NDArray[np.int64]] = []

    def learnt(self, rows: pl.DataFrame) -> None:
        """Rows are learnt now: the columns of an example, and `_row`, its number in the log."""
        self._note(rows["_row"].to_numpy(), rows["event_time_ms"].to_numpy())

    def learnt_before(self, segment: FeatureBatch, end: int) -> None:
        """Rows of the log that a process before this one has learnt, up to row `end`."""
        frame = segment.frame.head(max(end - segment.first_row, 0))
        self._note(np.arange(segment.first_row, segment.first_row + frame.height), frame["event_time_ms"].to_numpy())

    def _note(self, number: npt.NDArray[np.int64], event_time_ms: npt.NDArray[np.int64]) -> None:
        new = number >= self.position
        if new.any():
            self._rows.append(number[new])
            self._due_ms.append(event_time_ms[new] + settle_ms(self._app))
            if len(self._rows) > 4096:  # no version for long: keep what is held compact
                self._rows, self._due_ms = [np.concatenate(self._rows)], [np.concatenate(self._due_ms)]

    def published(self, manifest: WeightManifest) -> Published | None:
        """A version went live: write its line; None when it is no newer than the one before (published again).

        A line that cannot be written is warned of: training goes on.
        """
        if self.newest is not None and manifest.version <= self.newest.version:
            return None
        waits = self._take(manifest)
        old_ms = manifest.created_ms - manifest.trained_until_ms
        gate_wait_s = manifest.gate.get("gate_wait_s")
        made = Published(
            version=manifest.version,
            epoch=manifest.epoch,
            position=manifest.position,
            step=manifest.step,
            trained_until_ms=manifest.trained_until_ms,
            created_ms=manifest.created_ms,
            freshness_s=old_ms / 1000,
            after_wait_s=(old_ms - settle_ms(self._app)) / 1000,
            gate_wait_s=None if gate_wait_s is None else float(gate_wait_s),
            rows=sum(waits.values()),
            wait_s_p50=quantile_s(waits, 0.5),
            wait_s_p99=quantile_s(waits, 0.99),
            waits=waits,
        )
        try:
            _append(self._path, made)
        except OSError as error:
            log.warning("%s: cannot be written (%s); version %d is left out of it", self._path, error, made.version)
        self.newest, self.position = made, max(self.position, made.position)
        return made

    def _take(self, manifest: WeightManifest) -> dict[str, int]:
        """Counts of waits of the rows that this version is the first to contain; they are forgotten."""
        if not self._rows:
            return {}
        row, due = np.concatenate(self._rows), np.concatenate(self._due_ms)
        inside = row < manifest.position
        self._rows, self._due_ms = [row[~inside]], [due[~inside]]
        bins = np.clip((manifest.created_ms - due[inside]) // BIN_MS, 0, _LAST_BIN)
        found, counts = np.unique(bins, return_counts=True)
        return {str(number): count for number, count in zip(found.tolist(), counts.tolist(), strict=True)}


def read_versions(path: Path) -> list[Published]:
    """The lines of a `versions.ndjson`, oldest first; a last line that a kill cut short is left out.

    Raises:
        CorruptError: another line is none.
    """
    if not path.is_file():
        return []
    lines = path.read_bytes().split(b"\n")
    found: list[Published] = []
    for number, line in enumerate(lines, 1):
        try:
            found += [msgspec.json.decode(line, type=Published)] if line else []
        except msgspec.MsgspecError as error:
            if not _cut_short(line):
                raise CorruptError(f"{path}, line {number}: not a version ({error}); move the file away") from error
    return found


def _cut_short(line: bytes) -> bool:
    return line.startswith(b"{") and not line.endswith(b"}")


def _append(path: Path, made: Published) -> None:
    """One line in one write, on the disk when it returns; after a line that was cut short it begins a new one."""
    data = json.dumps(msgspec.to_builtins(made), separators=(",", ":")).encode() + b"\n"
    with path.open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            data = data if file.read(1) == b"\n" else b"\n" + data
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
