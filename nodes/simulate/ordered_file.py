"""Lines are held until nothing can arrive before them, then written: a sorted log in bounded memory."""

from pathlib import Path
from types import TracebackType

import numpy as np
import polars as pl

from nodes.simulate.effects import Ints
from nodes.simulate.faults import DAMAGES, damaged


class OrderedFile:
    """An NDJSON file in order of arrival, with damaged lines spliced in at a rate."""

    def __init__(self, path: Path, rng: np.random.Generator, malformed: float) -> None:
        self._file = path.open("wb")
        self._rng, self._malformed = rng, malformed
        self._lines = pl.Series([], dtype=pl.String)
        self._arrival_ms: Ints = np.empty(0, np.int64)
        self.lines = 0  #: written so far, damaged ones included
        self.damaged = 0

    def __enter__(self) -> "OrderedFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, lines: pl.Series, arrival_ms: Ints, *, until_ms: int | None) -> None:
        r"""Take lines, each with its `\n`, and write those that arrive before `until_ms` (None: all of them)."""
        lines = pl.concat([self._lines, lines])
        arrival_ms = np.concatenate([self._arrival_ms, arrival_ms])
        order = np.argsort(arrival_ms, kind="stable")
        count = len(order) if until_ms is None else int(np.searchsorted(arrival_ms[order], until_ms))
        self._write(lines.gather(order[:count]))
        self._lines, self._arrival_ms = lines.gather(order[count:]), arrival_ms[order[count:]]

    def _write(self, lines: pl.Series) -> None:
        if not len(lines):
            return
        # one contiguous buffer, newlines included, is what Arrow holds already
        array = lines.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
        _, offsets, values = array.buffers()
        ends = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1]
        text = memoryview(values)
        start = int(ends[0])
        hit = np.flatnonzero(self._rng.random(len(lines)) < self._malformed)
        kinds = self._rng.integers(0, len(DAMAGES), len(hit))
        for index, kind in zip(hit.tolist(), kinds.tolist(), strict=True):
            end = int(ends[index + 1])
            self._file.write(text[start:end])
            self._file.write(damaged(bytes(text[int(ends[index]) : end - 1]), kind) + b"\n")
            start = end
        self._file.write(text[start : int(ends[-1])])
        self.lines += len(lines) + len(hit)
        self.damaged += len(hit)
