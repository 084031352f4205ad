"""A file is cut into lines in bounded memory, and no cut shows."""

import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts.errors import ContractError
from nodes.lines import read_lines


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.lists(st.sampled_from([b"", b"a", b"\r", b"bcd", b"x" * 9, b"\n", b"\n\n"]), max_size=20).map(b"".join),
    read_bytes=st.integers(1, 9),
    max_lines=st.integers(1, 4),
    max_line_bytes=st.integers(1, 12),
    block_bytes=st.integers(1, 30),
)
def test_the_lines_are_those_of_a_split_whatever_the_reads_and_blocks(
    tmp_path: Path, data, read_bytes, max_lines, max_line_bytes, block_bytes
):
    path = tmp_path / "events.ndjson"
    path.write_bytes(data)
    blocks = list(
        read_lines(
            path, max_lines=max_lines, max_line_bytes=max_line_bytes, read_bytes=read_bytes, block_bytes=block_bytes
        )
    )
    wanted = data.removesuffix(b"\n").split(b"\n") if data else []
    got = [line for block in blocks for line in block.lines]
    lengths = [block.whole_bytes.get(index, len(line)) for block in blocks for index, line in enumerate(block.lines)]
    assert got == [line[: max_line_bytes + 1] for line in wanted]
    assert lengths == [len(line) for line in wanted]
    starts = [block.first_line for block in blocks]
    assert starts == [sum(len(block.lines) for block in blocks[:index]) for index in range(len(blocks))]
    for block in blocks:
        assert 1 <= len(block.lines) <= max_lines
        assert sum(map(len, block.lines[:-1])) < block_bytes


def test_a_huge_line_is_counted_but_not_kept(tmp_path: Path):
    path = tmp_path / "events.ndjson"
    with path.open("wb") as file:
        file.write(b"first\n")
        for _ in range(64):
            file.write(b"x" * (1 << 20))
        file.write(b"\nlast")
    tracemalloc.start()
    [block] = read_lines(path, max_lines=100, max_line_bytes=1000, read_bytes=1 << 20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert block.lines == [b"first", b"x" * 1001, b"last"]
    assert block.whole_bytes == {1: 64 << 20}
    assert peak < 8 << 20


def test_a_file_that_cannot_be_read_is_a_contract_error(tmp_path: Path):
    with pytest.raises(ContractError, match=r"cannot be read \(No such file"):
        list(read_lines(tmp_path / "none", max_lines=1, max_line_bytes=1))
