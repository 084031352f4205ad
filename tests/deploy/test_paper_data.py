"""Images from the usual files, read byte by byte, and files that are not what their name says."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from contracts.errors import CorruptError, RocketError
from deploy.benches.paper_data import digits, names_in, read_set

RNG = np.random.default_rng(7)


def records(labels: list[list[int]]) -> bytes:
    rows = [bytes(row) + RNG.integers(0, 256, 3072, np.uint8).tobytes() for row in labels]
    return b"".join(rows)


def cifar10(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(1, 6):
        (folder / f"data_batch_{number}.bin").write_bytes(records([[number], [number - 1]]))
    (folder / "test_batch.bin").write_bytes(records([[9], [0], [3]]))
    return folder


def cifar100(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.bin").write_bytes(records([[19, 99], [0, 1]]))
    (folder / "test.bin").write_bytes(records([[5, 42]]))
    return folder


def svhn(folder: Path, **changed: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, count in (("train", 4), ("test", 2)):
        X = RNG.integers(0, 256, (32, 32, 3, count), np.uint8)
        y = np.array([[10], [1], [9], [2]], np.uint8)[:count]
        savemat(folder / f"{name}_32x32.mat", {"X": X, "y": y} | changed)
    return folder


def test_cifar_10_is_read_in_the_order_of_its_batches_channel_by_channel(tmp_path) -> None:
    folder = cifar10(tmp_path / "cifar-10-batches-bin")
    assert names_in(tmp_path) == ["CIFAR-10"] == names_in(folder)
    found = read_set(tmp_path, "CIFAR-10")
    assert found.train.labels.tolist() == [1, 0, 2, 1, 3, 2, 4, 3, 5, 4]
    assert found.test.labels.tolist() == [9, 0, 3]
    assert found.classes == 10
    whole = (folder / "data_batch_2.bin").read_bytes()
    assert found.train.images.shape == (10, 3, 32, 32)
    for channel, row, column in ((0, 0, 0), (1, 4, 7), (2, 31, 31)):
        assert found.train.images[3, channel, row, column] == whole[3073 + 1 + channel * 1024 + row * 32 + column]


def test_cifar_100_counts_the_fine_label(tmp_path) -> None:
    cifar100(tmp_path)
    found = read_set(tmp_path, "CIFAR-100")
    assert (found.train.labels.tolist(), found.test.labels.tolist(), found.classes) == ([99, 1], [42], 100)
    assert found.test.images[0, 2, 31, 31] == (tmp_path / "test.bin").read_bytes()[-1]


def test_svhn_turns_its_tens_into_zeros_and_its_axes_around(tmp_path) -> None:
    X = RNG.integers(0, 256, (32, 32, 3, 2), np.uint8)
    svhn(tmp_path / "svhn", X=X, y=np.array([[10], [3]], np.uint8))
    found = read_set(tmp_path, "SVHN")
    assert found.train.labels.tolist() == [0, 3]
    assert all(found.train.images[n, k, 5, 9] == X[5, 9, k, n] for n in range(2) for k in range(3))


def test_all_sets_of_a_folder_are_found(tmp_path) -> None:
    cifar10(tmp_path / "cifar-10-batches-bin")
    cifar100(tmp_path / "cifar-100-binary")
    svhn(tmp_path)
    assert names_in(tmp_path) == ["CIFAR-10", "CIFAR-100", "SVHN"]


def _short(folder: Path) -> None:
    (cifar10(folder) / "data_batch_3.bin").write_bytes(b"\0" * 3072)


def _empty(folder: Path) -> None:
    (cifar10(folder) / "test_batch.bin").write_bytes(b"")


def _missing(folder: Path) -> None:
    (cifar10(folder) / "data_batch_5.bin").unlink()


def _eleventh_class(folder: Path) -> None:
    (cifar10(folder) / "test_batch.bin").write_bytes(records([[3], [10]]))


def _hundredth_class(folder: Path) -> None:
    (cifar100(folder) / "train.bin").write_bytes(records([[3, 100]]))


def _no_matlab(folder: Path) -> None:
    (svhn(folder) / "train_32x32.mat").write_bytes(b"not a MATLAB file" * 100)


def _cut_matlab(folder: Path) -> None:
    path = svhn(folder) / "test_32x32.mat"
    path.write_bytes(path.read_bytes()[:3000])


@pytest.mark.parametrize(
    ("name", "broken", "told"),
    [
        ("CIFAR-10", _short, "3072 bytes are no whole number of records of 3073"),
        ("CIFAR-10", _empty, "0 bytes are no whole number"),
        ("CIFAR-10", _missing, "data_batch_5.bin: this file of the archive is missing"),
        ("CIFAR-10", _eleventh_class, "test_batch.bin: record 1 is of class 10 of 10"),
        ("CIFAR-100", _hundredth_class, "record 0 is of class 100 of 100"),
        ("SVHN", _no_matlab, "train_32x32.mat: not a readable MATLAB 5 file"),
        ("SVHN", _cut_matlab, "test_32x32.mat"),
        ("SVHN", lambda folder: svhn(folder, X=np.zeros((32, 32, 3), np.uint8)), r"needs X \[32, 32, 3, N\]"),
        ("SVHN", lambda folder: svhn(folder, y=np.zeros((9, 1), np.uint8)), "but has"),
        ("SVHN", lambda folder: svhn(folder, X=np.zeros((32, 32, 3, 1)), y=np.ones((1, 1), np.uint8)), "must be bytes"),
        ("SVHN", lambda f: svhn(f, X=np.zeros((32, 32, 3, 1), np.uint8), y=np.array([[11]], np.uint8)), "from 1 to 10"),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_refused_in_a_sentence(
    tmp_path, name: str, broken: Callable[[Path], object], told: str
) -> None:
    broken(tmp_path)
    with pytest.raises(RocketError, match=told) as caught:
        read_set(tmp_path, name)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_without_images_is_refused_and_told_what_it_lacks(tmp_path) -> None:
    with pytest.raises(RocketError, match="no images here; put cifar-10-batches-bin/"):
        names_in(tmp_path)
    with pytest.raises(RocketError, match="not here any more"):
        read_set(tmp_path, "SVHN")


def test_a_file_larger_than_any_of_them_is_not_read(tmp_path, monkeypatch) -> None:
    svhn(tmp_path)
    monkeypatch.setattr("deploy.benches.paper_data._MOST_BYTES", 100)
    with pytest.raises(CorruptError, match="more than such a file has"):
        read_set(tmp_path, "SVHN")


def test_digits_are_parted_anew_with_each_seed_and_never_overlap() -> None:
    one, again, other = digits(1, 300), digits(1, 300), digits(2, 300)
    assert np.array_equal(one.train.images, again.train.images)
    assert not np.array_equal(one.train.labels, other.train.labels)
    together = np.concatenate([one.train.images, one.test.images])
    assert len(together) == 1797
    assert np.array_equal(
        np.sort(together.sum((1, 2, 3))), np.sort(np.concatenate(other.train[:1] + other.test[:1]).sum((1, 2, 3)))
    )
    assert one.train.images.max() == 255
