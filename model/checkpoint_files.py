"""The files of a checkpoint, written piece by piece: the memory of what they hold is read, and never copied whole."""

import hashlib
import io
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

import polars as pl
import torch

from model.checkpoint_manifest import File

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

Fill = Callable[[IO[bytes]], object]
#: Safetensors' names of dtypes, in the order in which its own writer puts them into a file.
_DTYPES = {
    torch.uint64: "U64",
    torch.int64: "I64",
    torch.float64: "F64",
    torch.complex64: "C64",
    torch.float32: "F32",
    torch.uint32: "U32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.uint16: "U16",
    torch.int16: "I16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_RANKS = {dtype: rank for rank, dtype in enumerate(_DTYPES)}
_ALIGNED = 8  # bytes: of where the tensors begin


def write_file(path: Path, fill: Fill) -> File:
    """Let `fill` write a new file, and sync it; returns its length and digest, taken on the way.

    Raises:
        OSError: it stands there already, or cannot be written.
    """
    with path.open("xb") as file:
        digested = _Digested(file)
        fill(cast("IO[bytes]", digested))
        file.flush()
        os.fsync(file.fileno())
    return File(digested.size_bytes, digested.sha256.hexdigest())


class _Digested(io.RawIOBase):
    """Passes bytes on to a file, and knows how many they were and what they hash to."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.size_bytes, self.sha256 = 0, hashlib.sha256()

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, data: "ReadableBuffer", /) -> int:
        """All of it."""
        view = memoryview(data).cast("B")
        self._file.write(view)
        self.sha256.update(view)
        self.size_bytes += len(view)
        return len(view)


def tensors_into(tensors: Mapping[str, torch.Tensor]) -> Fill:
    """Writes tensors, byte for byte as `safetensors.torch.save` would, whose copies are twice as large as they are.

    Args:
        tensors: on the CPU.

    >>> told = io.BytesIO()
    >>> _ = tensors_into({"a": torch.zeros(1)})(told)
    >>> told.getvalue()[8:-4]
    b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}  '
    """

    def fill(sink: IO[bytes]) -> None:
        ordered = sorted(tensors.items(), key=lambda each: (_RANKS[each[1].dtype], each[0]))
        header, at = {}, 0
        for name, tensor in ordered:
            offsets = [at, at := at + tensor.nbytes]
            header[name] = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": offsets}
        told = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        told += b" " * (-len(told) % _ALIGNED)
        sink.write(len(told).to_bytes(8, "little") + told)
        for _, tensor in ordered:
            sink.write(_bytes_of(tensor))

    return fill


def _bytes_of(tensor: torch.Tensor) -> memoryview:
    """Its elements in order, where they lie if they lie so; one element is contiguous whatever its stride says."""
    flat = tensor.detach().contiguous()
    flat = flat.as_strided((flat.numel(),), (1,), flat.storage_offset())
    return flat.view(torch.uint8).numpy().data


def table_into(table: pl.DataFrame) -> Fill:
    """Writes a table as an Arrow IPC file."""
    return lambda sink: table.write_ipc(sink, compression="lz4")
