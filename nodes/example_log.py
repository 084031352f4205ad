"""The example log as a directory: immutable segments in row order, and a mark when it is complete.

A segment is whole or absent (`nodes.files`). Writing one that is there already is checked, not repeated: so a run that
was killed is simply run again into the same directory.
"""

import json
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import xxhash
from pyarrow import ipc

from contracts.errors import ContractError, CorruptError, StoreError
from contracts.names import segment_file
from contracts.segments import FeatureBatch, decode_segment, encode_segment
from nodes.files import sweep_partial, write_whole

_MARK = "complete.json"
MAX_ROWS = 4096  #: of a segment


@dataclass(frozen=True, slots=True)
class Complete:
    """What a finished log holds."""

    rows: int
    schema_id: str
    digest: str  #: xxHash64 of all example ids in row order, 16 hex digits
    content: str  #: xxHash64 of all segments' bytes in row order, 16 hex digits


class ExampleDirectory:
    """A directory of segments: one writer, any number of readers, satisfying `contracts.stores.ExampleLog`.

    >>> import tempfile
    >>> import polars as pl
    >>> log = ExampleDirectory(Path(tempfile.mkdtemp()))
    >>> for first in (0, 2):
    ...     log.write(FeatureBatch(pl.DataFrame({"example_id": [first, first + 1]}), first, "s"), "adsim")
    >>> log.rows(), [batch.frame["example_id"].to_list() for batch in log.read(1)], log.complete
    (4, [[1], [2, 3]], None)
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._heights: dict[str, int] = {}
        self._starts: list[int] = []  # of the segments known so far, without a gap

    def write(self, batch: FeatureBatch, app: str) -> None:
        """Add a segment at `batch.first_row`; the same one again changes nothing.

        Raises:
            ContractError: another segment stands there.
            StoreError: the directory cannot be written.
        """
        path, data = self.path / segment_file(batch.first_row), encode_segment(batch, app)
        if not path.exists():
            write_whole(path, data)
        elif path.read_bytes() != data:
            raise ContractError(
                f"{path}: holds other rows than this input gives; ingest into another folder, or delete {self.path}"
            )

    def append(self, batch: FeatureBatch, app: str) -> int:
        """Add what of a batch does not stand there yet, however it was cut when it came before; gives how many rows.

        Raises:
            ContractError: rows that stand there are others than the batch's, or rows before it are missing.
            SchemaMismatchError: they were written for another feature table.
            StoreError: the directory cannot be written.
        """
        rows = self.rows()
        if batch.first_row > rows:
            raise ContractError(
                f"{self.path}: holds {rows} rows, but row {batch.first_row} comes next; follow the events from a "
                "position that it reaches"
            )
        self._compare(batch, rows)
        new = batch.frame.slice(rows - batch.first_row) if rows > batch.first_row else batch.frame
        for start in range(0, new.height, MAX_ROWS):
            self.write(FeatureBatch(new.slice(start, MAX_ROWS), rows + start, batch.schema_id), app)
        return new.height

    def _compare(self, batch: FeatureBatch, rows: int) -> None:
        """The rows of `batch` that stand already, against what stands: by id, place for place."""
        last = min(batch.next_row, rows)
        for there in self.read(batch.first_row, batch.schema_id) if batch.first_row < last else ():
            if there.first_row >= last:
                break
            again = batch.frame["example_id"].slice(there.first_row - batch.first_row, there.frame.height)
            if not again.equals(there.frame["example_id"].head(again.len())):
                raise ContractError(
                    f"{self.path}: holds other rows from {there.first_row} on than these events give; follow them into "
                    "another folder"
                )

    def read(self, first_row: int, schema_id: str | None = None) -> Iterator[FeatureBatch]:
        """Segments from the one that holds `first_row`, in order, to the first gap; the first is cut.

        Args:
            first_row: a row number; that of the next row to come gives nothing.
            schema_id: refuse another one; None takes any.

        Raises:
            CorruptError: a segment is broken.
            SchemaMismatchError: a segment was written for another feature table.
        """
        for path, start in self._segments(first_row):
            if start + self._height(path) <= first_row:
                continue
            batch = decode_segment(self._bytes(path), schema_id, where=str(path))
            cut = max(first_row - start, 0)
            yield FeatureBatch(batch.frame.slice(cut), start + cut, batch.schema_id) if cut else batch

    def rows(self) -> int:
        """How many rows stand in it without a gap."""
        if self._starts and not (self.path / segment_file(self._starts[-1])).exists():
            self._starts = []  # someone has deleted what stood there
        last = 0
        for path, start in self._segments(self._starts[-1] if self._starts else 0):
            last = start + self._height(path)
        return last

    @property
    def complete(self) -> Complete | None:
        """What the finished log holds; None while ingest is at work or after it was killed.

        Raises:
            CorruptError: the mark cannot be read.
        """
        path = self.path / _MARK
        try:
            return Complete(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise CorruptError(f"{path}: cannot be read ({error}); delete {self.path} and ingest again") from error

    def finish(self, rows: int, schema_id: str) -> Complete:
        """Check what stands and mark it complete; the mark is the last thing written.

        Raises:
            CorruptError: the segments do not hold exactly `rows` rows.
        """
        found = self._sum_up(schema_id)
        left = len(list(self.path.glob("segment-*.arrow"))) - sum(1 for _ in self._segments())
        if found.rows != rows or left:
            raise CorruptError(
                f"{self.path}: {found.rows} rows and {left} segments beyond them, but ingest made {rows}; delete it "
                "and ingest again"
            )
        self.path.mkdir(parents=True, exist_ok=True)
        sweep_partial(self.path)
        write_whole(self.path / _MARK, (json.dumps(asdict(found)) + "\n").encode())
        return found

    def verify(self) -> Complete:
        """Read a complete log through, and compare it with its mark.

        Raises:
            CorruptError: it is not complete, or not what the mark says.
        """
        marked = self.complete
        if marked is None:
            raise CorruptError(f"{self.path}: is not complete; ingest into it again")
        if self._sum_up(marked.schema_id) != marked:
            raise CorruptError(f"{self.path}: does not hold what {_MARK} says; delete it and ingest again")
        return marked

    def _sum_up(self, schema_id: str) -> Complete:
        rows, ids, content = 0, xxhash.xxh64(), xxhash.xxh64()
        for path, start in self._segments():
            data = self._bytes(path)
            batch = decode_segment(data, schema_id, where=str(path))
            ids.update(batch.frame["example_id"].to_numpy().astype("<u8").tobytes())
            content.update(data)
            rows = start + batch.frame.height
        return Complete(rows, schema_id, ids.hexdigest(), content.hexdigest())

    def _segments(self, first_row: int = 0) -> Iterator[tuple[Path, int]]:
        """Path and first row of each segment up to the first gap, from one that begins at or before `first_row`."""
        number = max(bisect_right(self._starts, first_row) - 1, 0)
        row = self._starts[number] if self._starts else 0
        while (path := self.path / segment_file(row)).exists():
            if number == len(self._starts):
                self._starts.append(row)
            yield path, row
            row, number = row + self._height(path), number + 1

    def _height(self, path: Path) -> int:
        """Rows of a segment, from its footer; segments never change, so it is remembered."""
        height = self._heights.get(path.name)
        if height is None:
            try:
                with pa.memory_map(str(path)) as source, ipc.open_file(source) as reader:
                    height = sum(reader.get_batch(i).num_rows for i in range(reader.num_record_batches))
            except (pa.ArrowException, OSError) as error:
                raise CorruptError(f"{path}: not a whole example segment ({error}); ingest again") from error
            if not height:
                raise CorruptError(f"{path}: holds no row; delete it and ingest again")
            self._heights[path.name] = height
        return height

    def _bytes(self, path: Path) -> bytes:
        try:
            return path.read_bytes()
        except OSError as error:
            raise StoreError(f"{path}: cannot be read ({error})") from error
