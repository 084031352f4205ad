"""What is published: the light net's named arrays and the manifest of a version.

Array names are an API between trainer and scorer (a test pins them), all float32 unless the manifest says fp16:

    embedding        [light_rows, D]   fused table of the light net's id features, in layout order
    wide             [light_rows]      first-order weights of the same rows (absent without `model.light.wide`)
    wide_dense       [N]               first-order weights of the light dense features (absent likewise)
    bias             [1]
    mlp.<i>.weight   [out, in]         layer 0 input: embeddings of `light_ids` in order (F*D), then `light_dense` (N)
    mlp.<i>.bias     [out]             ReLU between layers, none after the last (out = 1)

logit = bias + sum wide[ids] + wide_dense . dense + mlp(concat(embedding[ids], dense))

A click probability is 1 / (1 + exp(-logit)), or with the manifest's link "odds" exp(logit), at most 1.
"""

import hashlib
import json

import msgspec
import numpy as np

from contracts.errors import CorruptError


class Blob(msgspec.Struct, frozen=True):
    """One array of a version, as it lies in the store."""

    name: str
    dtype: str  #: "float16" or "float32", little-endian, C order
    shape: tuple[int, ...]
    sha256: str  #: of the whole array's bytes
    chunks: tuple[int, ...]  #: lengths in bytes; chunk numbers run on over all blobs of the manifest


class WeightManifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a version is; immutable once published."""

    format: int = 1
    model: str
    version: int  #: grows by one with each publish
    kind: str = "full"  #: "full" or "delta"
    base_version: int | None = None
    schema_id: str
    app: str
    trained_until_ms: int  #: event time of the last example learnt
    position: int  #: rows of the example log learnt
    step: int
    epoch: int  #: fence epoch of the publisher
    created_ms: int
    gate: dict[str, float | str | None]  #: figures at the gate
    blobs: tuple[Blob, ...]
    digest: str = ""  #: sha256 over all of the other fields
    link: str = "sigmoid"  #: how a logit becomes a click probability; left out where it is "sigmoid"


def plain(manifest: WeightManifest) -> dict[str, object]:
    """The manifest as JSON-able fields; those of format 1 alone where nothing else was asked for."""
    fields: dict[str, object] = msgspec.to_builtins(manifest)
    if manifest.link == "sigmoid":  # versions published before there was a link keep their digest
        del fields["link"]
    return fields


def digest_of(manifest: WeightManifest) -> str:
    """Sha256 over the manifest's own fields, its digest left out."""
    fields = plain(msgspec.structs.replace(manifest, digest=""))
    return hashlib.sha256(json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


class Weights(msgspec.Struct, frozen=True):
    """A whole version in memory: the manifest and its arrays, dequantised to float32."""

    manifest: WeightManifest
    arrays: dict[str, np.ndarray]
    changed: dict[str, np.ndarray] | None = (
        None  #: table -> rows (int64, ascending) that differ from the weights handed out before
    )


def pack_array(name: str, array: np.ndarray, dtype: str, chunk_bytes: int) -> tuple[Blob, list[bytes]]:
    """An array as chunks of at most `chunk_bytes`, and the Blob that describes them.

    >>> blob, chunks = pack_array("bias", np.ones(1, np.float32), "float16", 4096)
    >>> unpack_array(blob, chunks)
    array([1.], dtype=float32)
    """
    data = np.ascontiguousarray(array, dtype=np.dtype(dtype).newbyteorder("<")).tobytes()
    chunks = [data[start : start + chunk_bytes] for start in range(0, max(len(data), 1), chunk_bytes)]
    blob = Blob(name, dtype, tuple(array.shape), hashlib.sha256(data).hexdigest(), tuple(map(len, chunks)))
    return blob, chunks


def unpack_array(blob: Blob, chunks: list[bytes]) -> np.ndarray:
    """The array back, as float32.

    Raises:
        CorruptError: a missing or extra chunk, a wrong length or digest, an unknown dtype, a NaN or an infinity.
    """
    data = b"".join(chunks)
    if tuple(map(len, chunks)) != tuple(blob.chunks) or hashlib.sha256(data).hexdigest() != blob.sha256:
        raise CorruptError(f"blob '{blob.name}': its bytes do not have the length and digest of the manifest")
    if blob.dtype not in {"float16", "float32"}:
        raise CorruptError(f"blob '{blob.name}': dtype {blob.dtype} is not float16 or float32")
    flat = np.frombuffer(data, np.dtype(blob.dtype).newbyteorder("<"))
    if any(side < 0 for side in blob.shape) or flat.size != int(np.prod(blob.shape, dtype=np.int64)):
        raise CorruptError(f"blob '{blob.name}': {flat.size} numbers do not fill the shape {blob.shape}")
    array = flat.astype(np.float32).reshape(blob.shape)
    if not np.isfinite(array).all():
        raise CorruptError(f"blob '{blob.name}': holds a NaN or an infinity")
    return array
