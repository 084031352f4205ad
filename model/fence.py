"""One trainer at a time: who claims a folder fences out whoever worked on it before."""

import os
import re
import shutil
from pathlib import Path

from contracts.errors import FencedError, StoreError
from model.checkpoint_manifest import names, order

_FENCE = re.compile(r"\.epoch-(\d{6,})")


def claim_epoch(folder: Path) -> int:
    """Fence out every trainer that worked on the folder before; returns the new epoch, which no other trainer gets.

    Raises:
        StoreError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        while True:
            epoch = 1 + max([_current_epoch(folder), *(order(name)[0] for name in names(folder))])
            try:
                os.close(os.open(folder / f".epoch-{epoch:06d}", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
            except FileExistsError:
                continue  # another trainer was faster: its epoch is taken
            if _current_epoch(folder) == epoch:  # else it was taken, and swept away since
                sync_folder(folder)
                break
        for entry in list(folder.iterdir()):
            match = _FENCE.fullmatch(entry.name)
            if match and int(match[1]) < epoch:
                entry.unlink(missing_ok=True)
            if entry.name.startswith((".writing-", ".deleting-")):
                shutil.rmtree(entry, ignore_errors=True)  # left behind by a kill
    except OSError as error:
        raise StoreError(f"{folder}: no checkpoints can be written there ({error}); give another folder") from error
    return epoch


def _current_epoch(folder: Path) -> int:
    return max((int(match[1]) for entry in folder.iterdir() if (match := _FENCE.fullmatch(entry.name))), default=0)


def check_epoch(folder: Path, epoch: int) -> None:
    """Refuse to go on after another trainer has claimed the folder.

    Raises:
        FencedError: naming both epochs.
    """
    current = _current_epoch(folder) if folder.is_dir() else 0
    if current != epoch:
        raise FencedError(
            f"{folder}: another trainer has claimed these checkpoints (epoch {current}, ours is {epoch}); "
            "stop one of the two, or give each its own folder"
        )


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
