"""Images to train on: CIFAR-10, CIFAR-100 and SVHN from their own files, scikit-learn's digits without any.

Where a folder is given, it or a folder of the archive's name in it holds

    cifar-10-batches-bin/   data_batch_1.bin ... data_batch_5.bin, test_batch.bin    label byte, 3072 pixels, a record
    cifar-100-binary/       train.bin, test.bin                                      coarse, fine label, 3072 pixels
    svhn/                   train_32x32.mat, test_32x32.mat                          X [32, 32, 3, N], y [N, 1]

Shapes: N images, K channels, H x W pixels.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from contracts.errors import CorruptError, RocketError

Bytes = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]
_PIXELS = 3 * 32 * 32
_MOST_BYTES = 1 << 30  # of one file; the largest of these is under 200 MB
_MOST_IMAGES = 1_000_000


class Split(NamedTuple):
    """Images [N, K, H, W] and their classes [N], from 0."""

    images: Bytes
    labels: Labels


class ImageSet(NamedTuple):
    """What one experiment is made on."""

    name: str
    train: Split
    test: Split
    classes: int


def digits(seed: int, train: int) -> ImageSet:
    """scikit-learn's 1797 handwritten digits of 8 x 8 pixels, parted at random: `train` to learn, the rest to judge.

    >>> parted = digits(1, 500)
    >>> parted.train.images.shape, parted.test.images.shape
    ((500, 1, 8, 8), (1297, 1, 8, 8))
    """
    from sklearn.datasets import load_digits  # noqa: PLC0415  # only where no other images are given

    loaded = load_digits()
    images = np.round(loaded.images * (255 / 16)).astype(np.uint8)[:, None]
    order = np.random.default_rng(seed).permutation(len(images))
    labels = loaded.target.astype(np.int64)
    learnt, judged = order[:train], order[train:]
    return ImageSet("digits", Split(images[learnt], labels[learnt]), Split(images[judged], labels[judged]), 10)


def names_in(folder: Path) -> list[str]:
    """The data sets whose files are in the folder.

    Raises:
        RocketError: there is none.
    """
    names = [name for name in _READERS if _place(folder, name) is not None]
    if not names:
        raise RocketError(
            f"--data {folder}: no images here; put cifar-10-batches-bin/, cifar-100-binary/ (*.bin) or svhn/ "
            "(*_32x32.mat) into it, or leave --data out for scikit-learn's digits"
        )
    return names


def read_set(folder: Path, name: str) -> ImageSet:
    """One of `names_in`.

    Raises:
        RocketError: a file of it is missing.
        CorruptError: a file is not what its name says.
    """
    place = _place(folder, name)
    if place is None:
        raise RocketError(f"--data {folder}: the files of {name} are not here any more; put them back")
    return _READERS[name][2](place)


def _place(folder: Path, name: str) -> Path | None:
    own, mark, _ = _READERS[name]
    return next((place for place in (folder / own, folder) if (place / mark).is_file()), None)


def _cifar10(folder: Path) -> ImageSet:
    parts = [_records(folder / f"data_batch_{number}.bin", 1, 10) for number in range(1, 6)]
    train = Split(np.concatenate([part.images for part in parts]), np.concatenate([part.labels for part in parts]))
    return ImageSet("CIFAR-10", train, _records(folder / "test_batch.bin", 1, 10), 10)


def _cifar100(folder: Path) -> ImageSet:
    train, test = (_records(folder / name, 2, 100) for name in ("train.bin", "test.bin"))
    return ImageSet("CIFAR-100", train, test, 100)


def _records(path: Path, label_bytes: int, classes: int) -> Split:
    """Records of label bytes (the last one counts) and 3072 pixels, channel by channel, row by row."""
    size, record = _size(path), label_bytes + _PIXELS
    if not size or size % record:
        raise CorruptError(f"{path}: {size} bytes are no whole number of records of {record}; fetch the archive again")
    rows = np.fromfile(path, np.uint8).reshape(-1, record)
    labels = rows[:, label_bytes - 1].astype(np.int64)
    if labels.max() >= classes:
        at = int(labels.argmax())
        raise CorruptError(f"{path}: record {at} is of class {labels[at]} of {classes}; fetch the archive again")
    return Split(rows[:, label_bytes:].reshape(-1, 3, 32, 32), labels)


def _svhn(folder: Path) -> ImageSet:
    train, test = (_matlab(folder / f"{name}_32x32.mat") for name in ("train", "test"))
    return ImageSet("SVHN", train, test, 10)


def _matlab(path: Path) -> Split:
    """MATLAB 5: `X` [32, 32, 3, N] of bytes, `y` [N, 1] from 1 to 10, where 10 is the digit 0."""
    from scipy.io import loadmat, whosmat  # noqa: PLC0415  # only for these files

    _size(path)
    try:
        shapes = {name: shape for name, shape, _kind in whosmat(path)}
        images = shapes.get("X", ())
        whole = len(images) == 4 and images[:3] == (32, 32, 3) and shapes.get("y") == (images[3], 1)
        if not whole or not 0 < images[3] <= _MOST_IMAGES:
            raise CorruptError(f"{path}: needs X [32, 32, 3, N] and y [N, 1], but has {shapes}; fetch the file again")
        held: dict[str, Any] = loadmat(path, variable_names=["X", "y"])
    except CorruptError:
        raise
    except Exception as error:  # scipy has no error of its own for bytes that are no MATLAB file
        raise CorruptError(f"{path}: not a readable MATLAB 5 file ({error}); fetch the file again") from error
    labels = held["y"].ravel()
    if held["X"].dtype != np.uint8 or not np.isin(labels, np.arange(1, 11)).all():
        raise CorruptError(f"{path}: X must be bytes and y digits from 1 to 10; fetch the file again")
    return Split(np.ascontiguousarray(held["X"].transpose(3, 2, 0, 1)), labels.astype(np.int64) % 10)


def _size(path: Path) -> int:
    """Bytes of the file, if it is there and no larger than any of these files can be."""
    if not path.is_file():
        raise RocketError(f"{path}: this file of the archive is missing; unpack the archive again")
    size = path.stat().st_size
    if size > _MOST_BYTES:
        raise CorruptError(f"{path}: {size} bytes are more than such a file has; fetch the archive again")
    return size


#: Name -> its own folder, a file by which it is known, its reader.
_READERS: dict[str, tuple[str, str, Callable[[Path], ImageSet]]] = {
    "CIFAR-10": ("cifar-10-batches-bin", "test_batch.bin", _cifar10),
    "CIFAR-100": ("cifar-100-binary", "test.bin", _cifar100),
    "SVHN": ("svhn", "test_32x32.mat", _svhn),
}
