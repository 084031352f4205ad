"""A file as blocks of lines, in bounded memory: no str is built, and a huge line is counted, not kept."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from contracts.errors import ContractError

_READ_BYTES = 4 << 20
_BLOCK_BYTES = 32 << 20  # a block ends at that many bytes too, however many lines it may have


@dataclass(frozen=True, slots=True)
class Block:
    """Some lines that follow each other."""

    lines: list[bytes]  #: without newline; cut to `max_line_bytes` + 1 bytes where longer
    first_line: int  #: number of the first of them in the file, from 0
    whole_bytes: dict[int, int]  #: index in `lines` -> whole length, of each line that was cut


def read_lines(
    path: Path, *, max_lines: int, max_line_bytes: int, read_bytes: int = _READ_BYTES, block_bytes: int = _BLOCK_BYTES
) -> Iterator[Block]:
    r"""The lines of a file, in blocks of at most `max_lines` and about `block_bytes`.

    Only b"\n" ends a line. Memory: about `block_bytes` + `read_bytes` + 2 `max_line_bytes`, whatever the file holds.

    Args:
        path: the file; a last line without newline counts, nothing after a last newline does not.
        max_lines: lines a block.
        max_line_bytes: what is longer is cut to one byte more, so that its reader sees that it is too long.
        read_bytes: how much is read at a time.
        block_bytes: a block ends where its lines have that many bytes.

    Raises:
        ContractError: the file cannot be read.
    """
    lines: list[bytes] = []
    whole: dict[int, int] = {}
    first, size = 0, 0
    for line, length in _lines(path, max_line_bytes + 1, read_bytes):
        if length != len(line):
            whole[len(lines)] = length
        lines.append(line)
        size += len(line)
        if len(lines) >= max_lines or size >= block_bytes:
            yield Block(lines, first, whole)
            first, size, lines, whole = first + len(lines), 0, [], {}
    if lines:
        yield Block(lines, first, whole)


def _lines(path: Path, keep: int, read_bytes: int) -> Iterator[tuple[bytes, int]]:
    """Each line cut to `keep` bytes, and its whole length."""
    head, length = b"", 0  # of the line that the last read left open
    for data in _reads(path, read_bytes):
        first, *others = data.split(b"\n")
        head, length = head + first[: keep - len(head)], length + len(first)
        for part in others:
            yield head, length
            head, length = part[:keep], len(part)
    if length:
        yield head, length


def _reads(path: Path, read_bytes: int) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while data := file.read(read_bytes):
                yield data
    except OSError as error:
        raise ContractError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from error
