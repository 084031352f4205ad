"""What a checkpoint's folder declares, and reading its files without trusting them."""

import hashlib
import json
import os
import re
import stat
from pathlib import Path
from typing import Any

import msgspec

from contracts.errors import CorruptError, RocketError

FORMAT = 1
MANIFEST = "manifest.json"
_NAME = re.compile(r"checkpoint-(\d{6,})-(\d{12,})")
_FILE = re.compile(r"[a-z][a-z0-9_]{0,63}\.(json|safetensors|arrow)")
_MAX_MANIFEST_BYTES = 65_536


class File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of a checkpoint."""

    size_bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a checkpoint is; its bytes on disk are exactly `encode_manifest` of it."""

    format: int
    app: str
    schema_id: str
    epoch: int  #: fence epoch of the trainer that wrote it
    step: int  #: minibatches learnt
    position: int  #: rows of the example log that are done with
    event_time_ms: int  #: of the last example learnt
    parent: str | None  #: name of the checkpoint that this one goes on from
    files: dict[str, File]
    digest: str = ""  #: sha256 over all of the above

    @property
    def name(self) -> str:
        """The name of the checkpoint's folder: ordered by epoch, then step."""
        return f"checkpoint-{self.epoch:06d}-{self.step:012d}"


def encode_manifest(manifest: Manifest) -> bytes:
    """The one way to write a manifest, with its digest filled in."""
    fields = msgspec.to_builtins(msgspec.structs.replace(manifest, digest=""))
    digest = hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
    return (json.dumps(fields | {"digest": digest}, indent=1, sort_keys=True) + "\n").encode()


def names(folder: Path) -> list[str]:
    """Checkpoints in a folder, whole or broken, the newest first."""
    found = [entry.name for entry in folder.iterdir() if _NAME.fullmatch(entry.name)] if folder.is_dir() else []
    return sorted(found, key=order, reverse=True)


def order(name: str) -> tuple[int, ...]:
    """Epoch and step of a checkpoint's name.

    >>> order("checkpoint-000002-000000000128")
    (2, 128)
    """
    match = _NAME.fullmatch(name)
    return tuple(map(int, match.groups())) if match else (0, 0)


def read_manifest(path: Path) -> Manifest:
    """The manifest in a checkpoint's folder.

    Raises:
        CorruptError: it is missing, changed, or of another folder.
        RocketError: written by a later release of Rocket.
    """
    where = path / MANIFEST
    data = _read_file(where, _MAX_MANIFEST_BYTES)
    try:
        raw = json.loads(data)
        version = raw.get("format") if isinstance(raw, dict) else None
        if isinstance(version, int) and version > FORMAT and _has_own_digest(raw):
            raise RocketError(f"{where}: has format {version}, this release reads up to {FORMAT}; upgrade rocket-ctr")
        manifest = msgspec.convert(raw, Manifest)
    except (ValueError, RecursionError, msgspec.ValidationError) as error:
        raise CorruptError(f"{where}: not a checkpoint manifest ({error})") from error
    if encode_manifest(manifest) != data or path.name != manifest.name:
        raise CorruptError(f"{where}: was changed since it was written, or its folder renamed")
    return manifest


def _has_own_digest(raw: dict[str, Any]) -> bool:
    fields = json.dumps(raw | {"digest": ""}, sort_keys=True).encode()
    return bool(raw.get("digest") == hashlib.sha256(fields).hexdigest())


def read_declared(path: Path, name: str, file: File) -> bytes:
    """The bytes of a file that the manifest of the folder `path` declares.

    Raises:
        CorruptError: a name that no checkpoint has, a link, a missing, cut or changed file.
    """
    if not _FILE.fullmatch(name) or name == MANIFEST:
        raise CorruptError(f"{path / MANIFEST}: names a file {name!r} that no checkpoint has")
    data = _read_file(path / name, file.size_bytes)
    if len(data) != file.size_bytes or hashlib.sha256(data).hexdigest() != file.sha256:
        raise CorruptError(f"{path / name}: its bytes do not have the length and digest of the manifest")
    return data


def _read_file(where: Path, max_bytes: int) -> bytes:
    """A plain file's bytes, at most `max_bytes` + 1; links are not followed."""
    try:
        if where.parent.is_symlink():
            raise CorruptError(f"{where.parent}: is a link; checkpoints are real folders")
        descriptor = os.open(where, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise CorruptError(f"{where}: is not a plain file")
            return file.read(max_bytes + 1)
    except OSError as error:
        raise CorruptError(f"{where}: cannot be read ({error})") from error
