"""Checkpoints: folders that are whole or absent, each file with its digest, and a fence between trainers.

    checkpoint-<epoch>-<step>/  manifest.json  state.json  metrics.json  model.safetensors  optimizer.safetensors
                                <table>.arrow

Written beside, synced, renamed, the parent synced: a kill at any moment leaves the newest whole one. Loading checks
every byte; a broken one is passed over loudly, and nothing is ever started blank because of it. No pickle anywhere.
"""

import io
import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import safetensors.torch
import torch
from safetensors import SafetensorError

from contracts.errors import CorruptError, SchemaMismatchError, StoreError
from model.checkpoint_files import Fill, table_into, tensors_into, write_file
from model.checkpoint_manifest import (
    FORMAT,
    MANIFEST,
    Manifest,
    encode_manifest,
    names,
    order,
    read_declared,
    read_manifest,
)
from model.fence import check_epoch, sync_folder
from model.state import part_of

log = logging.getLogger(__name__)

#: What a checkpoint's `meta` must hold beside the caller's own keys, which go to state.json.
REQUIRED = ("app", "schema_id", "epoch", "step", "position", "event_time_ms", "parent", "metrics")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A whole, verified checkpoint."""

    path: Path
    manifest: Manifest
    tensors: dict[str, torch.Tensor]
    meta: dict[str, Any]  #: the caller's own keys, as given to `save_checkpoint`
    tables: dict[str, pl.DataFrame]
    metrics: dict[str, Any]

    def part(self, name: str) -> dict[str, torch.Tensor]:
        """The tensors of one part of the state (`model.state.part_of`)."""
        return part_of(self.tensors, name)


def save_checkpoint(
    folder: Path,
    tensors: Mapping[str, torch.Tensor],
    meta: Mapping[str, Any],
    tables: Mapping[str, pl.DataFrame],
    *,
    keep: int,
) -> Path:
    """Write one checkpoint, whole or not at all, and remove those beyond the newest `keep`.

    Args:
        folder: holds the checkpoints of one trainer; its epoch was claimed with `claim_epoch`.
        tensors: by name; names with a part `optimizer` go to optimizer.safetensors, the rest to model.safetensors.
        meta: JSON-able; must hold `REQUIRED`, and whatever else the trainer needs.
        tables: name -> rows, each stored as <name>.arrow.
        keep: at least 1; the one just written counts.

    Raises:
        FencedError: another trainer has claimed the folder.
        StoreError: it cannot be written; the checkpoints before it are untouched.
    """
    parts = _parts(tensors, meta, tables)
    manifest = Manifest(format=FORMAT, **{key: meta[key] for key in REQUIRED if key != "metrics"}, files={})
    final, beside = folder / manifest.name, folder / f".writing-{manifest.name}"
    check_epoch(folder, manifest.epoch)
    if final.exists():
        return final  # same epoch and step: nothing was learnt since
    try:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir()
        files = {name: write_file(beside / name, fill) for name, fill in parts.items()}
        whole = msgspec.structs.replace(manifest, files=dict(sorted(files.items())))
        write_file(beside / MANIFEST, lambda sink: sink.write(encode_manifest(whole)))
        sync_folder(beside)
        check_epoch(folder, manifest.epoch)
        beside.rename(final)
        sync_folder(folder)
        _prune(folder, manifest.name, keep)
    except OSError as error:
        shutil.rmtree(beside, ignore_errors=True)
        check_epoch(folder, manifest.epoch)  # a new owner sweeps away what the old one was writing
        raise StoreError(
            f"{final}: cannot be written ({error}); the checkpoints before it are whole: make room and go on"
        ) from error
    return final


def _parts(
    tensors: Mapping[str, torch.Tensor], meta: Mapping[str, Any], tables: Mapping[str, pl.DataFrame]
) -> dict[str, Fill]:
    """File name -> what writes it, of everything but the manifest."""
    model = {key: tensor for key, tensor in tensors.items() if "optimizer" not in key.split(".")}
    optimizer = {key: tensor for key, tensor in tensors.items() if key not in model}
    state = _json({key: value for key, value in meta.items() if key not in REQUIRED})
    metrics = _json(meta["metrics"])
    return {
        "state.json": lambda sink: sink.write(state),
        "metrics.json": lambda sink: sink.write(metrics),
        "model.safetensors": tensors_into(model),
        "optimizer.safetensors": tensors_into(optimizer),
    } | {f"{name}.arrow": table_into(table) for name, table in tables.items()}


def _json(value: Any) -> bytes:
    return (json.dumps(value, sort_keys=True, indent=1) + "\n").encode()


def _prune(folder: Path, newest: str, keep: int) -> None:
    """Remove the checkpoints that are older than the newest `keep`; `newest` was just written, so it is good."""
    older = [name for name in names(folder) if order(name) < order(newest)]
    for name in older[keep - 1 :]:
        going = folder / f".deleting-{name}"
        (folder / name).rename(going)  # at once: a half deleted one never looks like a broken one
        shutil.rmtree(going, ignore_errors=True)


def load_newest(folder: Path, schema_id: str) -> Loaded:
    """The newest whole checkpoint of a folder; a broken one is passed over with a warning.

    Raises:
        CorruptError: there is none, or all are broken.
        SchemaMismatchError: the newest whole one was trained on another feature table.
    """
    found = names(folder)
    broken: list[str] = []
    for name in found:
        try:
            loaded = load_checkpoint(folder / name)
        except CorruptError as error:
            broken.append(str(error))
            continue
        if loaded.manifest.schema_id != schema_id:
            raise SchemaMismatchError(
                f"{loaded.path}: trained for schema_id {loaded.manifest.schema_id}, but the app has {schema_id}; "
                "use the app that trained it, or another folder"
            )
        for why in broken:
            log.warning("%s; going back to the checkpoint before it", why)
        return loaded
    if broken:
        raise CorruptError(
            f"{folder}: none of the {len(found)} checkpoints is whole ({broken[0]}); restore one from a backup, "
            "or train anew with --fresh"
        )
    raise CorruptError(f"{folder}: holds no checkpoint; `rocket train` writes one")


def load_checkpoint(path: Path) -> Loaded:
    """One checkpoint, every byte verified.

    Raises:
        CorruptError: naming the file that is missing, foreign, cut or changed.
        RocketError: written by a later release of Rocket.
    """
    manifest = read_manifest(path)
    contents = {name: read_declared(path, name, file) for name, file in manifest.files.items()}
    try:
        tensors = safetensors.torch.load(contents.pop("model.safetensors"))
        tensors |= safetensors.torch.load(contents.pop("optimizer.safetensors"))
        meta, metrics = json.loads(contents.pop("state.json")), json.loads(contents.pop("metrics.json"))
        tables = {name.removesuffix(".arrow"): pl.read_ipc(io.BytesIO(data)) for name, data in contents.items()}
    except (KeyError, ValueError, SafetensorError, pl.exceptions.PolarsError, OSError) as error:
        raise CorruptError(f"{path}: a file is missing or in another format ({error})") from error
    return Loaded(path, manifest, tensors, meta, tables, metrics)
