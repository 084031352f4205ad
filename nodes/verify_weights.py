"""What makes a version whole: its manifest and every byte are checked before anything is believed or allocated."""

import hmac
import json
import math
import re
from collections.abc import Iterable, Mapping
from itertools import islice

import msgspec
import numpy as np

from contracts.errors import CorruptError, SchemaMismatchError, SignatureError
from contracts.weights import (
    EVICTED,
    KEYS,
    ROW_TABLES,
    ROWS,
    WIDE,
    WIDE_ROWS,
    WeightManifest,
    Weights,
    digest_of,
    plain,
    unpack_array,
)
from nodes.thin_wide import check_thin, filled, whole_shapes

#: A manifest is a few kB; a longer one is not ours.
MAX_MANIFEST_BYTES = 4_194_304
#: Bytes of all arrays of one version that a reader is ready to hold.
MAX_VERSION_BYTES = 4 * 1024**3
#: Deltas that may stand between a version and the full one that it needs.
MAX_DELTAS = 1024
_ITEM_BYTES = {"float16": 2, "float32": 4, "uint32": 4, "uint64": 8}
_DECODER = msgspec.json.Decoder(WeightManifest)


def manifest_bytes(manifest: WeightManifest, key: bytes | None = None) -> bytes:
    """The manifest as it lies in a store: JSON in a fixed order, its digest filled in, and signed where there is a key.

    >>> made = WeightManifest(
    ...     model="m", version=1, schema_id="s", app="a", trained_until_ms=0, position=0, step=0, epoch=1,
    ...     created_ms=0, gate={}, blobs=(),
    ... )
    >>> read_manifest(manifest_bytes(made), "m", 1).version
    1
    >>> read_manifest(manifest_bytes(made, b"ours"), "m", 1, key=b"theirs")
    Traceback (most recent call last):
    contracts.errors.SignatureError: version 1 of model 'm': is signed with another key; ...
    """  # fmt: skip
    gate = {name: float(value) if isinstance(value, int | float) else value for name, value in manifest.gate.items()}
    made = msgspec.structs.replace(manifest, gate=gate)  # as it will be read back: 1 comes back as 1.0
    digest = digest_of(made)
    signature = "" if key is None else _signature(digest, key)
    return encoded(msgspec.structs.replace(made, digest=digest, signature=signature))


def encoded(manifest: WeightManifest) -> bytes:
    """The manifest as it lies in a store, with the digest and the signature that it has."""
    return json.dumps(plain(manifest), sort_keys=True, separators=(",", ":")).encode()


def _signature(digest: str, key: bytes) -> str:
    """HMAC (RFC 2104) with SHA-256 over the digest, which stands for all else."""
    return hmac.new(key, f"rocket-weights:{digest}".encode(), "sha256").hexdigest()


def read_manifest(
    data: bytes, model: str, version: int, schema_id: str | None = None, *, key: bytes | None = None
) -> WeightManifest:
    """The manifest back, believed only when its digest, its signature, its name and its sizes hold.

    Args:
        data: the bytes of `manifest_bytes`.
        model: the model that was asked for.
        version: the version that was asked for.
        schema_id: refuse another one; None takes any.
        key: refuse what was not signed with it; None takes signed and unsigned ones.

    Raises:
        CorruptError: cut, changed, another model's or version's, of an unknown format, or larger than bounded.
        SignatureError: not signed, or with another key.
        SchemaMismatchError: made for another feature table.
    """
    name = f"version {version} of model '{model}'"
    if len(data) > MAX_MANIFEST_BYTES:
        raise CorruptError(
            f"{name}: its manifest has {len(data)} bytes, more than {MAX_MANIFEST_BYTES}; publish it again"
        )
    try:
        manifest = _DECODER.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptError(f"{name}: its manifest is not one ({error}); publish it again or roll back") from error
    if manifest.format != 1 or manifest.kind not in {"full", "delta"}:
        raise CorruptError(
            f"{name}: format {manifest.format}, kind '{manifest.kind}' is unknown here; upgrade this reader"
        )
    digest = digest_of(manifest)
    # byte for byte: a changed key of a field with a default would pass a digest
    if manifest.digest != digest or encoded(manifest) != data:
        raise CorruptError(f"{name}: its manifest does not have the digest it names; publish it again or roll back")
    if key is not None and not hmac.compare_digest(manifest.signature.encode(), _signature(digest, key).encode()):
        state = "is signed with another key" if manifest.signature else "is not signed"
        raise SignatureError(f"{name}: {state}; publish with the publish.key of this reader, or give it theirs")
    if (manifest.model, manifest.version) != (model, version):
        raise CorruptError(f"{name}: its manifest is that of version {manifest.version} of model '{manifest.model}'")
    if schema_id is not None:
        check_schema(manifest, schema_id)
    _check_sizes(manifest, name)
    check_thin(manifest, name)
    if manifest.kind == "delta":
        _check_delta(manifest, name)
    elif manifest.base_version is not None or manifest.base_digest or manifest.deltas:
        raise CorruptError(f"{name}: is full and yet names a base; publish it again")
    return manifest


def check_schema(manifest: WeightManifest, schema_id: str) -> None:
    """Refuse a version that was made for another feature table (law 7).

    Raises:
        SchemaMismatchError: naming the version and both ids.
    """
    if manifest.schema_id != schema_id:
        raise SchemaMismatchError(
            f"version {manifest.version} of model '{manifest.model}' was trained for schema_id {manifest.schema_id}, "
            f"but the app has {schema_id}; use the app that trained it, or train and publish with this one"
        )


def _check_sizes(manifest: WeightManifest, name: str) -> None:
    """Shapes, dtypes and chunk lengths agree and are bounded, so that reading allocates what is declared, no more."""
    names = [blob.name for blob in manifest.blobs]
    if len(set(names)) != len(names):
        raise CorruptError(f"{name}: an array stands twice in its manifest; publish it again")
    total = 0
    for blob in manifest.blobs:
        wanted = _dtypes(manifest.kind, blob.name)
        if blob.dtype not in wanted:
            raise CorruptError(f"{name}: array '{blob.name}' has dtype {blob.dtype}, not {' or '.join(wanted)}")
        if any(side < 0 for side in blob.shape) or any(length < 0 for length in blob.chunks) or len(blob.shape) > 8:
            raise CorruptError(f"{name}: array '{blob.name}' has the impossible shape {blob.shape}")
        declared = math.prod(blob.shape) * _ITEM_BYTES[blob.dtype]
        if declared != sum(blob.chunks):
            raise CorruptError(
                f"{name}: array '{blob.name}' of shape {blob.shape} needs {declared} bytes, but its chunks have "
                f"{sum(blob.chunks)}; publish it again"
            )
        total += declared
    if total > MAX_VERSION_BYTES:
        raise CorruptError(f"{name}: its arrays have {total} bytes, more than {MAX_VERSION_BYTES} are accepted")


def _dtypes(kind: str, name: str) -> tuple[str, ...]:
    if name == KEYS:
        return ("uint64",)
    numbers = {ROWS, EVICTED, WIDE_ROWS} if kind == "delta" else {WIDE_ROWS}
    return ("uint32",) if name in numbers else ("float16", "float32")


def _check_delta(manifest: WeightManifest, name: str) -> None:
    """A delta names an earlier base, and the values of its tables have a row for each row number."""
    base, shapes = manifest.base_version, whole_shapes(manifest)
    if base is None or not 0 < base < manifest.version or not re.fullmatch("[0-9a-f]{64}", manifest.base_digest):
        raise CorruptError(f"{name}: is a delta without an earlier base; publish it again")
    if not 0 < manifest.deltas <= MAX_DELTAS:
        raise CorruptError(f"{name}: says that {manifest.deltas} deltas lead to it, not 1 to {MAX_DELTAS}")
    for needed in (ROWS, EVICTED, ROW_TABLES[0]):
        if needed not in shapes:
            raise CorruptError(f"{name}: is a delta without the array '{needed}'; publish it again")
    if len(shapes[ROWS]) != 1 or len(shapes[EVICTED]) != 1:
        raise CorruptError(f"{name}: its row numbers are no lists; publish it again")
    for table in ROW_TABLES:
        if table in shapes and shapes[table][:1] != shapes[ROWS]:
            raise CorruptError(
                f"{name}: array '{table}' of shape {shapes[table]} does not fit its {shapes[ROWS][0]} row numbers; "
                "publish it again"
            )


def assemble(
    manifest: WeightManifest, chunks: Iterable[bytes], into: Mapping[str, np.ndarray] | None = None
) -> Weights:
    """A full version in memory, dequantised to float32, when each byte is the one that was published.

    Args:
        manifest: as from `read_manifest`.
        chunks: all its chunks in order; drawn one by one.
        into: arrays that nobody reads any more, to be written over; garbage after an error.

    Raises:
        CorruptError: a chunk too few or too many, a wrong length or digest, a NaN or an infinity, row numbers of
            weights that do not ascend or lie beyond the table.
    """
    name = f"version {manifest.version} of model '{manifest.model}'"
    arrays = read_arrays(manifest, chunks, into)
    return Weights(manifest, filled(arrays, name, into=(into or {}).get(WIDE)))


def read_arrays(
    manifest: WeightManifest, chunks: Iterable[bytes], into: Mapping[str, np.ndarray] | None = None
) -> dict[str, np.ndarray]:
    """The arrays of a manifest, whole or some rows of them.

    Raises:
        CorruptError: as `assemble`.
    """
    name, drawn = f"version {manifest.version} of model '{manifest.model}'", iter(chunks)
    try:
        arrays = {
            blob.name: unpack_array(blob, islice(drawn, len(blob.chunks)), (into or {}).get(blob.name))
            for blob in manifest.blobs
        }
    except CorruptError as error:
        raise CorruptError(f"{name}: {error}; publish it again or roll back") from error
    if next(drawn, None) is not None:
        raise CorruptError(f"{name}: has more chunks than its manifest declares; publish it again or roll back")
    return arrays
