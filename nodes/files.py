"""Files that are whole or absent, whatever is killed: written beside, synced, renamed."""

import contextlib
import io
import os
from pathlib import Path

import polars as pl

from contracts.errors import StoreError

#: A file that is still being written; no reader looks at it.
PARTIAL = ".partial"


def write_whole(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that a reader, or a kill at any moment, sees all of it or none.

    The bytes are on the disk when it returns, and so is the name. Folders are made as needed.

    Args:
        path: replaced if it exists.
        data: the whole content.

    Raises:
        StoreError: the folder cannot be written.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> write_whole(folder / "a" / "b.txt", b"whole")
    >>> (folder / "a" / "b.txt").read_bytes(), [path.name for path in (folder / "a").iterdir()]
    (b'whole', ['b.txt'])
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as sink:
            sink.write(data)
            sink.flush()
            os.fsync(sink.fileno())
        beside.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise StoreError(
            f"{path}: cannot be written ({error}); free the space, or give a folder that you own"
        ) from error


def write_whole_frame(path: Path, frame: pl.DataFrame) -> None:
    """A frame as one Parquet file, whole or absent; the same rows give the same bytes.

    Raises:
        StoreError: the folder cannot be written.
    """
    sink = io.BytesIO()
    frame.write_parquet(sink, compression="zstd", compression_level=1, statistics=True)
    write_whole(path, sink.getvalue())


def sync_folder(folder: Path) -> None:
    """Make a rename inside `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sweep_partial(folder: Path) -> None:
    """Remove what killed writers left in `folder`; call it only when no other writer is at work there."""
    for left in folder.glob(f".*{PARTIAL}"):
        left.unlink(missing_ok=True)
