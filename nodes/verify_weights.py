"""What makes a version whole: its manifest and every byte are checked before anything is believed or allocated."""

import json
import math
from collections.abc import Sequence

import msgspec
import numpy as np

from contracts.errors import CorruptError, SchemaMismatchError
from contracts.weights import WeightManifest, Weights, digest_of, plain, unpack_array

#: A manifest is a few kB; a longer one is not ours.
MAX_MANIFEST_BYTES = 4_194_304
#: Bytes of all arrays of one version that a reader is ready to hold.
MAX_VERSION_BYTES = 4 * 1024**3
_ITEM_BYTES = {"float16": 2, "float32": 4}
_DECODER = msgspec.json.Decoder(WeightManifest)


def manifest_bytes(manifest: WeightManifest) -> bytes:
    """The manifest as it lies in a store: JSON in a fixed order, its digest filled in.

    >>> made = WeightManifest(
    ...     model="m", version=1, schema_id="s", app="a", trained_until_ms=0, position=0, step=0, epoch=1,
    ...     created_ms=0, gate={}, blobs=(),
    ... )
    >>> read_manifest(manifest_bytes(made), "m", 1).version
    1
    """  # fmt: skip
    gate = {name: float(value) if isinstance(value, int | float) else value for name, value in manifest.gate.items()}
    made = msgspec.structs.replace(manifest, gate=gate)  # as it will be read back: 1 comes back as 1.0
    signed = msgspec.structs.replace(made, digest=digest_of(made))
    return json.dumps(plain(signed), sort_keys=True, separators=(",", ":")).encode()


def read_manifest(data: bytes, model: str, version: int, schema_id: str | None = None) -> WeightManifest:
    """The manifest back, believed only when its digest, its name and its sizes hold.

    Args:
        data: the bytes of `manifest_bytes`.
        model: the model that was asked for.
        version: the version that was asked for.
        schema_id: refuse another one; None takes any.

    Raises:
        CorruptError: cut, changed, another model's or version's, of an unknown format, or larger than bounded.
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
    if manifest.format != 1 or manifest.kind != "full":
        raise CorruptError(
            f"{name}: format {manifest.format}, kind '{manifest.kind}' is unknown here; upgrade this reader"
        )
    if manifest_bytes(manifest) != data:  # byte for byte: a changed key of a field with a default would pass a digest
        raise CorruptError(f"{name}: its manifest does not have the digest it names; publish it again or roll back")
    if (manifest.model, manifest.version) != (model, version):
        raise CorruptError(f"{name}: its manifest is that of version {manifest.version} of model '{manifest.model}'")
    if schema_id is not None:
        check_schema(manifest, schema_id)
    _check_sizes(manifest, name)
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
        if blob.dtype not in _ITEM_BYTES:
            raise CorruptError(f"{name}: array '{blob.name}' has dtype {blob.dtype}, not float16 or float32")
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


def assemble(manifest: WeightManifest, chunks: Sequence[bytes]) -> Weights:
    """The version in memory, dequantised to float32, when each byte is the one that was published.

    Args:
        manifest: as from `read_manifest`.
        chunks: all its chunks in order.

    Raises:
        CorruptError: a chunk too few or too many, a wrong length or digest, a NaN or an infinity.
    """
    name = f"version {manifest.version} of model '{manifest.model}'"
    wanted = sum(len(blob.chunks) for blob in manifest.blobs)
    if len(chunks) != wanted:
        raise CorruptError(f"{name}: {len(chunks)} chunks instead of {wanted}; publish it again or roll back")
    arrays: dict[str, np.ndarray] = {}
    start = 0
    for blob in manifest.blobs:
        stop = start + len(blob.chunks)
        try:
            arrays[blob.name] = unpack_array(blob, list(chunks[start:stop]))
        except CorruptError as error:
            raise CorruptError(f"{name}: {error}; publish it again or roll back") from error
        start = stop
    return Weights(manifest, arrays)
