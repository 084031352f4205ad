"""Files of a checkpoint: the bytes that they always had, known by digest, and written without a copy in memory."""

import hashlib
import io
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.checkpoint_files import _DTYPES, table_into, tensors_into, write_file

NAMES = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=8).filter(
    lambda name: name != "__metadata__"
)
SHAPES = st.lists(st.integers(0, 3), max_size=3)

SAVED = """
import re, sys
from pathlib import Path
import torch
from model.checkpoint_writer import CheckpointWriter
from model.fence import claim_epoch

def peak_mb():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

folder = Path(sys.argv[1])
meta = {"app": "a", "schema_id": "s", "epoch": claim_epoch(folder), "position": 0, "event_time_ms": 0, "metrics": {}}
tensors, peaks = {f"table.{n}": torch.ones(2_500_000) for n in range(5)}, []  # 50 MB
for step, written in enumerate(({"table.0": torch.ones(1)}, tensors)):  # the small one loads what is loaded late
    with CheckpointWriter(folder, keep=1) as writer:
        writer.submit(written, meta | {"step": step}, {})
    peaks.append(peak_mb())
print(peaks[1] - peaks[0])
"""


@pytest.mark.parametrize("whole", [torch.arange(6.0).view(2, 3), torch.arange(6).view(3, 2).t(), torch.ones(4)[1:3]])
@pytest.mark.parametrize("part", [slice(None), slice(0, 1), slice(0, 0)])
def test_strides_of_a_tensor_do_not_matter(whole: torch.Tensor, part: slice) -> None:
    """One element counts as contiguous with any stride: NumPy hands out such arrays."""
    for tensor in (whole[part], whole[part].flatten()[:1], torch.ones((), dtype=whole.dtype).expand(1)):
        told = io.BytesIO()
        tensors_into({"a": tensor})(told)
        assert told.getvalue() == safetensors.torch.save({"a": tensor.clone(memory_format=torch.contiguous_format)})


@given(
    st.dictionaries(NAMES, st.tuples(st.sampled_from(list(_DTYPES)), SHAPES), max_size=6),
    st.integers(0, 2**31),
)
@settings(max_examples=60, deadline=None)
def test_tensors_are_written_as_safetensors_writes_them(drawn: dict, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        name: torch.randint(0, 2, shape, generator=generator).to(dtype) for name, (dtype, shape) in drawn.items()
    }
    told = io.BytesIO()
    tensors_into(tensors)(told)
    assert told.getvalue() == safetensors.torch.save(tensors)
    back = safetensors.torch.load(told.getvalue())
    assert {name: (tensor.dtype, tensor.shape) for name, tensor in back.items()} == {
        name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()
    }


def test_every_dtype_stands_where_safetensors_puts_it() -> None:
    tensors = {str(n): torch.ones(n + 1).to(dtype) for n, dtype in enumerate(_DTYPES)}
    told = io.BytesIO()
    tensors_into(tensors)(told)
    assert told.getvalue() == safetensors.torch.save(tensors)


@given(st.lists(st.binary(max_size=64), max_size=8))
@settings(max_examples=30, deadline=None)
def test_a_file_is_known_by_the_length_and_digest_of_its_bytes(tmp_path_factory, parts: list[bytes]) -> None:
    path = tmp_path_factory.mktemp("file") / "state.json"
    made = write_file(path, lambda sink: [sink.write(part) for part in parts])
    data = path.read_bytes()
    assert data == b"".join(parts)
    assert (made.size_bytes, made.sha256) == (len(data), hashlib.sha256(data).hexdigest())


def test_a_file_that_stands_there_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(FileExistsError):
        write_file(tmp_path / "a", lambda sink: sink.write(b"new"))
    assert (tmp_path / "a").read_bytes() == b"old"


def test_a_table_is_written_as_polars_writes_it(tmp_path: Path) -> None:
    table = pl.DataFrame({"example_id": pl.int_range(300_000, eager=True).hash(), "event_time_ms": [1] * 300_000})
    whole = io.BytesIO()
    table.write_ipc(whole, compression="lz4")
    made = write_file(tmp_path / "ids.arrow", table_into(table))
    assert (tmp_path / "ids.arrow").read_bytes() == whole.getvalue()
    assert made.size_bytes == len(whole.getvalue())


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for the peak of memory")
def test_writing_a_checkpoint_takes_no_memory_of_its_size(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", SAVED, tmp_path / "c"], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 20  # MB, of 50
