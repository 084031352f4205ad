"""What is published: the light net's named arrays and the manifest of a version.

Array names are an API between trainer and scorer (a test pins them), all float32 unless the manifest says fp16:

    embedding        [light_rows, D]   fused table of the light net's id features, in layout order
    wide             [light_rows]      first-order weights of the same rows (absent without `model.light.wide`)
    wide_dense       [N]               first-order weights of the light dense features (absent likewise)
    bias             [1]
    mlp.<i>.weight   [out, in]         layer 0 input: embeddings of `light_ids` in order (F*D), then `light_dense` (N)
    mlp.<i>.bias     [out]             after each layer but the last (out = 1): norm, then activation
    norms.<i>.weight, .bias [out]      a layer norm (eps 1e-5; absent without `model.light.norm = "layer"`)
    slopes.<i>       [out]             PReLU's slopes below 0 (absent with another activation)
    activation       [1]               a number of `ACTIVATION_CODES`; absent: ReLU, or PReLU where there are slopes
    fm               [1]               what the pairs are multiplied by (absent without `model.light.fm`)
    keys             [light_rows]      uint64, only where a feature is dynamic: the hash of the id that owns each row of
                                       its table; 0: nobody. Other features' rows hold 0

A dynamic feature's id reads the row whose key it is, else its table's row 1 (0 for a missing id).

logit = bias + sum wide[ids] + wide_dense . dense + fm * pairs(embedding[ids]) + mlp(concat(embedding[ids], dense))

pairs: the sum of the inner products of every two embeddings. A net without an MLP has no `mlp` array and no pairs
without `fm`.

A click probability is 1 / (1 + exp(-logit)), or with the manifest's link "odds" exp(logit), at most 1.

A *full* version holds these arrays whole. A *delta* holds what differs from its base, another version:

    rows             [U]               uint32, ascending: rows of the tables that are given anew
    evicted          [E]               uint32, ascending, none of `rows`: rows that become zeros
    embedding, wide  [U, D], [U]       the values of `rows`, in their order; `keys` [U] likewise
    all other arrays                   whole

Of either kind, `wide` may leave out its zeros; then it is [K] beside

    wide_rows        [K]               uint32, ascending: rows (a delta's: of `rows`) whose weight is not 0
"""

import hashlib
import json
import math
from collections.abc import Iterable
from typing import NamedTuple

import msgspec
import numpy as np

from contracts.errors import CorruptError

#: What the array `activation` says: gelu is x / 2 (1 + tanh(sqrt(2 / pi) (x + .044715 x^3))), silu x / (1 + exp(-x)).
ACTIVATION_CODES = {"gelu": 1, "silu": 2}
#: Added to the variance in a layer norm.
NORM_EPS = 1e-5
#: Arrays that have a row an id: a delta holds some of their rows, all others whole.
ROW_TABLES = ("embedding", "wide", "keys")
#: The row table that holds whose each row is.
KEYS = "keys"
#: Blobs of a delta that hold row numbers.
ROWS, EVICTED = "rows", "evicted"
#: First-order weights, and the numbers of their rows where they travel without zeros.
WIDE, WIDE_ROWS = "wide", "wide_rows"
#: dtype on the wire -> dtype in memory.
DTYPES = {"float16": "float32", "float32": "float32", "uint32": "int64", "uint64": "uint64"}


class Blob(msgspec.Struct, frozen=True):
    """One array of a version, as it lies in the store."""

    name: str
    dtype: str  #: "float16" or "float32", "uint32" for row numbers, "uint64" for keys; little-endian, C order
    shape: tuple[int, ...]
    sha256: str  #: of the whole array's bytes
    chunks: tuple[int, ...]  #: lengths in bytes; chunk numbers run on over all blobs of the manifest


class WeightManifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a version is; immutable once published."""

    format: int = 1
    model: str
    version: int  #: grows by one with each publish
    kind: str = "full"  #: "full" or "delta"
    base_version: int | None = None  #: of a delta: the version that it is to be applied to
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
    base_digest: str = ""  #: of a delta: its base's, so that a chain holds only what it was made of; else left out
    deltas: int = 0  #: how many deltas there are from the last full version to this one; left out where none
    signature: str = ""  #: HMAC-SHA256 over the digest, hexadecimal; left out where nobody signed

    @property
    def num_bytes(self) -> int:
        """Of all its blobs."""
        return sum(length for blob in self.blobs for length in blob.chunks)


#: Fields that format 1 did not have: versions published without them keep their digest.
_LATER = {"link": "sigmoid", "base_digest": "", "deltas": 0, "signature": ""}


def plain(manifest: WeightManifest) -> dict[str, object]:
    """The manifest as JSON-able fields; those of format 1 alone where nothing else was asked for."""
    fields: dict[str, object] = msgspec.to_builtins(manifest)
    for name, default in _LATER.items():
        if fields[name] == default:
            del fields[name]
    return fields


def digest_of(manifest: WeightManifest) -> str:
    """Sha256 over the manifest's own fields, its digest and signature left out."""
    fields = plain(msgspec.structs.replace(manifest, digest="", signature=""))
    return hashlib.sha256(json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


class Weights(msgspec.Struct, frozen=True):
    """A whole version in memory: the manifest and its arrays, dequantised to float32 (keys are uint64)."""

    manifest: WeightManifest
    arrays: dict[str, np.ndarray]
    #: row table -> its rows (int64, ascending) that may differ from the base, or from the newest that the buffers gave;
    #: None: all may
    changed: dict[str, np.ndarray] | None = None


class TouchedRows(NamedTuple):
    """Rows of the light tables that moved in a stretch of training."""

    since_step: int  #: where the stretch begins: minibatches learnt when they were asked for last
    rows: np.ndarray  #: int64, ascending


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


def unpack_array(blob: Blob, chunks: Iterable[bytes], into: np.ndarray | None = None) -> np.ndarray:
    """The array back, as float32 or int64: decoded chunk by chunk, so that no second copy of it is held.

    Args:
        blob: says how its bytes lie.
        chunks: its own, in order.
        into: memory to decode into, where it has the shape and dtype; it is garbage after an error.

    Raises:
        CorruptError: a missing or extra chunk, a wrong length or digest, an unknown dtype, a NaN or an infinity.
    """
    if blob.dtype not in DTYPES:
        raise CorruptError(f"blob '{blob.name}': dtype {blob.dtype} is none of {', '.join(DTYPES)}")
    wire = np.dtype(blob.dtype).newbyteorder("<")
    if any(side < 0 for side in blob.shape) or math.prod(blob.shape) * wire.itemsize != sum(blob.chunks):
        raise CorruptError(f"blob '{blob.name}': {sum(blob.chunks)} bytes do not fill the shape {blob.shape}")
    if into is None or (into.shape, str(into.dtype)) != (blob.shape, DTYPES[blob.dtype]) or not into.flags.c_contiguous:
        into = np.empty(blob.shape, DTYPES[blob.dtype])
    flat = into.reshape(-1)
    digest, cut, at, lengths = hashlib.sha256(), b"", 0, []
    for chunk in chunks:
        lengths.append(len(chunk))
        if tuple(lengths) != blob.chunks[: len(lengths)]:
            break
        digest.update(chunk)
        data = cut + chunk if cut else chunk
        whole = len(data) // wire.itemsize
        decoded = flat[at : at + whole]
        decoded[:] = np.frombuffer(data, wire, whole)
        if decoded.dtype.kind == "f" and not np.isfinite(decoded).all():
            raise CorruptError(f"blob '{blob.name}': holds a NaN or an infinity")
        at, cut = at + whole, data[whole * wire.itemsize :]  # a chunk may end within a number
    if tuple(lengths) != blob.chunks or digest.hexdigest() != blob.sha256:
        raise CorruptError(f"blob '{blob.name}': its bytes do not have the length and digest of the manifest")
    return into
