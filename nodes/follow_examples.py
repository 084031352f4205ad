"""An example log that is still being written, read from a row on as its segments come."""

import contextlib
from collections.abc import Iterator

from contracts.errors import CorruptError, StoreError
from contracts.names import segment_file
from contracts.segments import FeatureBatch, decode_segment
from contracts.stores import ExampleLog
from nodes.example_log import ExampleDirectory
from nodes.example_logs import ExampleFolder


class Follower:
    """Gives each segment once, in row order; a look that finds nothing new costs one file name, or one poll.

    Args:
        log: a folder is looked at by the name of its next segment alone: nothing is listed or read twice.
        first_row: where reading begins; it stands in the log already, or is the next row to come.
        schema_id: another one is refused.

    >>> import tempfile
    >>> from pathlib import Path
    >>> import polars as pl
    >>> log = ExampleDirectory(Path(tempfile.mkdtemp()))
    >>> follower = Follower(log, 0, "s")
    >>> follower.take() is None
    True
    >>> log.write(FeatureBatch(pl.DataFrame({"example_id": [1, 2]}), 0, "s"), "adsim")
    >>> follower.take().frame["example_id"].to_list(), follower.take(), follower.next_row
    ([1, 2], None, 2)
    """

    def __init__(self, log: ExampleLog, first_row: int, schema_id: str) -> None:
        self._log, self._schema_id = log, schema_id
        inner = log.directory if isinstance(log, ExampleFolder) else log
        self._folder = inner if isinstance(inner, ExampleDirectory) else None
        self.next_row = first_row  #: the row that the next segment begins with
        self._reading: Iterator[FeatureBatch] | None = None
        self._looked = self._at_end = False

    def take(self) -> FeatureBatch | None:
        """The next segment that stands in the log; None when there is none yet. It never waits long.

        Raises:
            CorruptError: a segment is broken. SchemaMismatchError: it was written for another feature table.
            StoreError: the log cannot be read.
        """
        self._at_end = True  # also where reading fails: nothing more is known then
        found = self._next() if self._folder is None else self._next_of_folder(self._folder)
        self._at_end = found is None
        if found is not None:
            self.next_row = found.next_row
        return found

    def end(self) -> int:
        """How many rows are known to stand in the log; of a folder that is still read, short by its last segment."""
        if self._at_end:
            return self.next_row
        if self._folder is None:
            with contextlib.suppress(StoreError):  # it went away just now: `take` will say so
                return max(self._log.rows(), self.next_row)
            return self.next_row
        newest = max((path.name for path in self._folder.path.glob("segment-*.arrow")), default=segment_file(0))
        return max(self.next_row, int(newest[8:-6]))

    def _next_of_folder(self, log: ExampleDirectory) -> FeatureBatch | None:
        path = log.path / segment_file(self.next_row)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            if self._looked:
                return None
            self._looked = True  # `first_row` may lie inside a segment: found by going through their heights, once
            return next(log.read(self.next_row, self._schema_id), None)
        except OSError as error:
            raise StoreError(f"{path}: cannot be read ({error})") from error
        self._looked = True
        segment = decode_segment(data, self._schema_id, where=str(path))
        if segment.first_row != self.next_row or not segment.frame.height:
            raise CorruptError(
                f"{path}: holds {segment.frame.height} rows from row {segment.first_row}; delete it and ingest again"
            )
        return segment

    def _next(self) -> FeatureBatch | None:
        if self._reading is None:
            self._reading = self._log.read(self.next_row, self._schema_id)
        found = next(self._reading, None)
        if found is None:
            self._reading = None
        return found
