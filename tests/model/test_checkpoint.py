"""Checkpoints are whole or absent; a broken one is passed over loudly; nothing starts blank; one trainer a folder."""

import json
import logging
import os
import random
import shutil
from pathlib import Path

import polars as pl
import pytest
import torch

from contracts.errors import CorruptError, FencedError, RocketError, SchemaMismatchError, StoreError
from contracts.training import Checkpoint
from model import checkpoint as module
from model.checkpoint import load_checkpoint, load_newest, save_checkpoint
from model.checkpoint_manifest import MANIFEST, encode_manifest, names, read_manifest
from model.checkpoint_writer import CheckpointWriter, Schedule
from model.fence import check_epoch, claim_epoch

TENSORS = {
    "trainer.model.light.bias": torch.arange(5, dtype=torch.float32),
    "trainer.optimizer.dense.m": torch.full((3, 2), 0.5),
    "trainer.model.half": torch.ones(3, dtype=torch.bfloat16),
    "linear.z": torch.linspace(0, 1, 7, dtype=torch.float64),
}
IDS = pl.DataFrame({"example_id": [1, 2**64 - 1], "_row": [0, 1]}, schema_overrides={"example_id": pl.UInt64})


def meta(step: int, epoch: int, **other) -> dict:
    return {
        "app": "adsim", "schema_id": "ab" * 8, "epoch": epoch, "step": step, "position": step * 64,
        "event_time_ms": 1000 + step, "parent": None, "metrics": {"light": {"auc": 0.7}}, "rng": [1, 2], **other,
    }  # fmt: skip


def save(folder: Path, step: int, epoch: int, keep: int = 3, **other) -> Path:
    tensors = {name: tensor + step for name, tensor in TENSORS.items()}
    return save_checkpoint(folder, tensors, meta(step, epoch, **other), {"trained_ids": IDS}, keep=keep)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints"


def test_what_was_saved_comes_back_bit_for_bit(folder: Path) -> None:
    path = save(folder, 3, claim_epoch(folder))
    loaded = load_newest(folder, "ab" * 8)
    assert loaded.path == path
    assert loaded.tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert loaded.tensors[name].dtype == tensor.dtype
        assert torch.equal(loaded.tensors[name], tensor + 3)
    assert loaded.meta == {"rng": [1, 2]}
    assert loaded.tables["trained_ids"].equals(IDS)
    assert (loaded.manifest.position, loaded.manifest.step, loaded.manifest.event_time_ms) == (192, 3, 1003)
    assert loaded.metrics == {"light": {"auc": 0.7}}
    assert set(loaded.part("linear")) == {"z"}


def test_the_files_are_those_that_the_design_names(folder: Path) -> None:
    path = save(folder, 1, claim_epoch(folder))
    assert sorted(file.name for file in path.iterdir()) == [
        "manifest.json", "metrics.json", "model.safetensors",
        "optimizer.safetensors", "state.json", "trained_ids.arrow",
    ]  # fmt: skip
    manifest = json.loads((path / MANIFEST).read_text())
    assert {"format", "step", "position", "event_time_ms", "parent", "epoch", "schema_id", "files"} <= manifest.keys()
    assert b"optimizer.dense.m" in (path / "optimizer.safetensors").read_bytes()
    assert b"optimizer" not in (path / "model.safetensors").read_bytes()


def test_the_same_state_gives_the_same_bytes(tmp_path: Path) -> None:
    one, two = (save(tmp_path / name, 1, claim_epoch(tmp_path / name)) for name in ("a", "b"))
    assert [(f.name, f.read_bytes()) for f in sorted(one.iterdir())] == [
        (f.name, f.read_bytes()) for f in sorted(two.iterdir())
    ]


def test_the_newest_k_are_kept(folder: Path) -> None:
    epoch = claim_epoch(folder)
    for step in range(1, 7):
        save(folder, step, epoch, keep=3)
    assert [name[-1] for name in names(folder)] == ["6", "5", "4"]
    assert not [entry for entry in folder.iterdir() if entry.name.startswith((".writing", ".deleting"))]


def flips(data: bytes, count: int, rng: random.Random):
    """Changed copies: truncated, one bit flipped, lengthened, empty."""
    for at in sorted({0, len(data) - 1, *(rng.randrange(len(data)) for _ in range(count))}):
        flipped = bytearray(data)
        flipped[at] ^= 1 << rng.randrange(8)
        yield bytes(flipped)
        yield data[:at]
    yield data + b"\0"


def test_every_cut_or_flipped_file_sends_it_back_to_the_one_before_loudly(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    epoch, rng = claim_epoch(folder), random.Random(0)
    good, newest = save(folder, 1, epoch), save(folder, 2, epoch)
    for file in sorted(newest.iterdir()):
        data = file.read_bytes()
        for changed in flips(data, 25, rng):
            file.write_bytes(changed)
            caplog.clear()
            with caplog.at_level(logging.WARNING):
                assert load_newest(folder, "ab" * 8).path == good, file.name
            assert str(newest) in caplog.text
            assert "going back" in caplog.text
        file.unlink()
        assert load_newest(folder, "ab" * 8).path == good, f"{file.name} missing"
        file.write_bytes(data)
    assert load_newest(folder, "ab" * 8).path == newest


def test_none_whole_means_refused_and_never_a_blank_start(folder: Path) -> None:
    epoch = claim_epoch(folder)
    for step in (1, 2):
        (save(folder, step, epoch) / "model.safetensors").write_bytes(b"")
    with pytest.raises(CorruptError, match="none of the 2 checkpoints is whole"):
        load_newest(folder, "ab" * 8)


def test_a_folder_without_checkpoints_is_named(folder: Path) -> None:
    with pytest.raises(CorruptError, match="holds no checkpoint"):
        load_newest(folder, "ab" * 8)


def test_another_schema_is_refused_by_both_names(folder: Path) -> None:
    save(folder, 1, claim_epoch(folder))
    with pytest.raises(SchemaMismatchError, match=r"abababababababab.*cdcdcdcdcdcdcdcd"):
        load_newest(folder, "cd" * 8)


def rewrite_manifest(path: Path, **changes) -> None:
    """Forge a manifest that agrees with its own digest."""
    raw = json.loads((path / MANIFEST).read_text()) | changes | {"digest": ""}
    digest = __import__("hashlib").sha256(json.dumps(raw, sort_keys=True).encode()).hexdigest()
    (path / MANIFEST).write_text(json.dumps(raw | {"digest": digest}, indent=1, sort_keys=True) + "\n")


@pytest.mark.parametrize("name", ["../evil.json", "/etc/passwd", "a/b.json", "manifest.json", "evil.pkl", ""])
def test_a_manifest_that_names_a_foreign_file_is_refused(folder: Path, name: str) -> None:
    path = save(folder, 1, claim_epoch(folder))
    files = json.loads((path / MANIFEST).read_text())["files"]
    (folder / "evil.json").write_text("{}")
    rewrite_manifest(path, files={**files, name: {"size_bytes": 2, "sha256": "44136fa355b3678a1146ad16f7e8649e94fb4f"}})
    with pytest.raises(CorruptError, match="names a file"):
        load_checkpoint(path)


def test_links_are_not_followed(folder: Path, tmp_path: Path) -> None:
    path = save(folder, 1, claim_epoch(folder))
    outside = tmp_path / "outside"
    shutil.move(path / "model.safetensors", outside)
    (path / "model.safetensors").symlink_to(outside)
    with pytest.raises(CorruptError, match="cannot be read"):
        load_checkpoint(path)
    (path / "model.safetensors").unlink()
    shutil.move(outside, path / "model.safetensors")
    assert load_checkpoint(path).manifest.step == 1
    real = tmp_path / path.name
    shutil.move(path, real)
    path.symlink_to(real)
    with pytest.raises(CorruptError, match="is a link"):
        load_checkpoint(path)


def test_a_fifo_in_the_place_of_a_file_is_refused_and_does_not_hang(folder: Path) -> None:
    path = save(folder, 1, claim_epoch(folder))
    (path / "state.json").unlink()
    os.mkfifo(path / "state.json")
    with pytest.raises(CorruptError, match="not a plain file"):
        load_checkpoint(path)


def test_a_renamed_folder_is_refused(folder: Path) -> None:
    path = save(folder, 1, claim_epoch(folder))
    later = path.rename(folder / "checkpoint-000001-000000000009")
    with pytest.raises(CorruptError, match="renamed"):
        load_checkpoint(later)


def test_a_checkpoint_of_a_later_release_is_refused_and_not_passed_over(folder: Path) -> None:
    epoch = claim_epoch(folder)
    save(folder, 1, epoch)
    rewrite_manifest(save(folder, 2, epoch), format=2)
    with pytest.raises(RocketError, match="format 2") as caught:
        load_newest(folder, "ab" * 8)
    assert not isinstance(caught.value, CorruptError)


@pytest.mark.parametrize("junk", [b"", b"[]", b"null", b"\xff", b"[" * 60_000, b"{" * 70_000, b'{"format": 1}'])
def test_a_manifest_of_junk_is_refused(folder: Path, junk: bytes) -> None:
    path = save(folder, 1, claim_epoch(folder))
    (path / MANIFEST).write_bytes(junk)
    with pytest.raises(CorruptError):
        load_checkpoint(path)


def test_pickled_bytes_are_never_unpickled(folder: Path) -> None:
    path = save(folder, 1, claim_epoch(folder))
    evil = b"cos\nsystem\n(S'touch evil'\ntR."
    (path / "model.safetensors").write_bytes(evil)
    files = json.loads((path / MANIFEST).read_text())["files"]
    entry = {"size_bytes": len(evil), "sha256": __import__("hashlib").sha256(evil).hexdigest()}
    rewrite_manifest(path, files={**files, "model.safetensors": entry})
    with pytest.raises(CorruptError, match="another format"):
        load_checkpoint(path)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_kill_around_the_rename_leaves_a_whole_newest(
    folder: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    save(folder, 1, claim_epoch(folder))
    rename = Path.rename

    class KilledError(BaseException):
        pass

    def killed(self: Path, target: Path) -> Path:
        if moment == "after":
            rename(self, target)
        raise KilledError

    monkeypatch.setattr(Path, "rename", killed)
    with pytest.raises(KilledError):
        save(folder, 2, 1)
    monkeypatch.undo()
    assert load_newest(folder, "ab" * 8).manifest.step == (1 if moment == "before" else 2)
    epoch = claim_epoch(folder)  # sweeps what the kill left
    assert not list(folder.glob(".writing-*"))
    save(folder, 3, epoch)
    assert load_newest(folder, "ab" * 8).manifest.step == 3


def test_files_are_synced_before_the_rename_and_the_folder_after(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    epoch, done = claim_epoch(folder), []
    fsync, rename = os.fsync, Path.rename
    monkeypatch.setattr(os, "fsync", lambda fd: (done.append(Path(os.readlink(f"/proc/self/fd/{fd}")).name), fsync(fd)))
    monkeypatch.setattr(Path, "rename", lambda self, to: (done.append("rename"), rename(self, to)))
    path = save(folder, 1, epoch)
    at = done.index("rename")
    assert {file.name for file in path.iterdir()} | {f".writing-{path.name}"} == set(done[:at])
    assert done[at + 1 :] == [folder.name]


def test_a_full_disk_leaves_the_checkpoints_before(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    epoch = claim_epoch(folder)
    save(folder, 1, epoch)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="No space left"):
        save(folder, 2, epoch)
    monkeypatch.undo()
    assert load_newest(folder, "ab" * 8).manifest.step == 1
    assert not list(folder.glob(".writing-*"))


def test_a_second_trainer_fences_out_the_first(folder: Path) -> None:
    first = claim_epoch(folder)
    save(folder, 5, first)
    second = claim_epoch(folder)
    assert second > first
    with pytest.raises(FencedError, match=rf"epoch {second}, ours is {first}"):
        save(folder, 6, first)
    save(folder, 1, second)
    assert load_newest(folder, "ab" * 8).manifest.epoch == second


def test_a_trainer_fenced_while_it_writes_does_not_rename(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    epoch = claim_epoch(folder)
    sync = module.sync_folder

    def claimed_meanwhile(path: Path) -> None:
        sync(path)
        if path.name.startswith(".writing-"):
            claim_epoch(folder)

    monkeypatch.setattr(module, "sync_folder", claimed_meanwhile)
    with pytest.raises(FencedError):
        save(folder, 1, epoch)
    assert names(folder) == []


def test_no_two_trainers_get_one_epoch(folder: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as pool:
        epochs = list(pool.map(lambda _: claim_epoch(folder), range(40)))
    assert len(set(epochs)) == 40
    check_epoch(folder, max(epochs))


def test_an_epoch_grows_even_if_the_fence_is_lost(folder: Path) -> None:
    save(folder, 9, claim_epoch(folder))
    (folder / ".epoch-000001").unlink()
    with pytest.raises(FencedError):
        save(folder, 10, 1)
    assert claim_epoch(folder) == 2


def test_the_writer_names_parents_and_tells_of_a_fence(folder: Path) -> None:
    writer = CheckpointWriter(folder, keep=3)
    epoch = claim_epoch(folder)
    for step in (1, 2):
        writer.submit(TENSORS, meta(step, epoch), {"trained_ids": IDS})
    writer.close()
    newest, before = names(folder)
    assert read_manifest(folder / newest).parent == before
    assert read_manifest(folder / before).parent is None
    claim_epoch(folder)
    writer.submit(TENSORS, meta(3, epoch), {"trained_ids": IDS})
    with pytest.raises(FencedError):
        writer.close()


def test_the_writer_goes_on_after_a_full_disk_but_not_at_the_end(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    writer, epoch = CheckpointWriter(folder, keep=3), claim_epoch(folder)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    writer.submit(TENSORS, meta(1, epoch), {})
    writer.submit(TENSORS, meta(2, epoch), {})
    assert "tries again" in caplog.text
    with pytest.raises(StoreError):
        writer.close()
    monkeypatch.undo()
    writer.submit(TENSORS, meta(3, epoch), {})
    writer.close()
    assert load_newest(folder, "ab" * 8).manifest.step == 3


def test_a_checkpoint_is_due_by_whatever_comes_first() -> None:
    now = [0.0]
    schedule = Schedule(Checkpoint(every_batches=100, every_s=30, every_event_min=10), lambda: now[0])
    schedule.taken(0, None)
    assert not schedule.due(1, 5_000_000)  # event time begins here
    assert schedule.due(2, 5_600_000)
    assert schedule.due(100, 5_000_000)
    now[0] = 30.0
    assert schedule.due(3, 5_000_001)
    schedule.taken(3, 5_000_001)
    assert not schedule.due(4, 5_000_002)


def test_a_manifest_has_one_spelling(folder: Path) -> None:
    path = save(folder, 1, claim_epoch(folder))
    assert encode_manifest(read_manifest(path)) == (path / MANIFEST).read_bytes()
    (path / MANIFEST).write_text(json.dumps(json.loads((path / MANIFEST).read_text())))
    with pytest.raises(CorruptError, match="was changed"):
        load_checkpoint(path)
