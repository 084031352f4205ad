"""Files of separated fields: the same records whatever the block, and no bad record costs another one."""

import csv
import gzip
import io
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.errors import ContractError
from contracts.events import DEAD_LETTERS
from nodes.imports.delimited import Layout, Rows, read_delimited
from nodes.imports.time_order import in_time_order

CHARACTERS = st.sampled_from('ab",\n é') | st.characters(codec="utf-8", exclude_characters="\x00\r\ufdd0")
FIELD = st.text(CHARACTERS, max_size=8)
RECORDS = st.lists(st.lists(FIELD, min_size=1, max_size=5), min_size=1, max_size=12)
NAMES = ("a", "b", "c")


def read(path: Path, layout: Layout, block_bytes: int = 1 << 20) -> tuple[list[tuple[str, ...]], list[tuple[int, str]]]:
    """Good records with their number first, and dead letters as (line, reason)."""
    good, dead = [], []
    for rows in read_delimited(path, layout, stream="s", block_bytes=block_bytes):
        good += rows.frame.select("_line", pl.exclude("_line")).rows()
        dead += rows.dead.select("line", "reason").rows()
    return good, dead


@settings(deadline=None, max_examples=60)
@given(RECORDS, st.integers(8, 200))
def test_csv_records_are_those_of_the_csv_module_in_blocks_of_any_size(
    tmp_path_factory: pytest.TempPathFactory, records: list[list[str]], block_bytes: int
) -> None:
    sink = io.StringIO()
    csv.writer(sink, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows(records)
    path = tmp_path_factory.mktemp("csv") / "log.csv"
    path.write_bytes(sink.getvalue().encode())
    good, dead = read(path, Layout(names=NAMES), block_bytes)
    wanted = list(csv.reader(io.StringIO(sink.getvalue(), newline="")))
    assert good == [(line, *record) for line, record in enumerate(wanted) if len(record) == 3]
    assert dead == [(line, "ragged") for line, record in enumerate(wanted) if len(record) != 3]


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.binary(max_size=20).filter(lambda b: b"\n" not in b and b"\r" not in b), min_size=1), st.integers(1, 80)
)
def test_any_bytes_give_every_line_one_fate(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], block_bytes: int
) -> None:
    path = tmp_path_factory.mktemp("bytes") / "log.tsv"
    path.write_bytes(b"".join(b"\t" + line + b"\n" for line in lines))  # a first byte that is no gzip's
    good, dead = read(path, Layout("\t", "", NAMES), block_bytes)
    fates: dict[int, str] = dict(dead) | {line: "good" for line, *_ in good}
    assert sorted(fates) == list(range(len(lines)))
    assert len(good) + len(dead) == len(lines)
    for number, line in enumerate(lines):
        if line.count(b"\t") != 1:
            assert fates[number] == "ragged"
            continue
        try:
            line.decode()
        except UnicodeDecodeError:
            assert fates[number] == "not_utf8"
        else:
            assert fates[number] == "good"
    assert [record[1:] for record in good] == [
        tuple((b"\t" + lines[number]).decode().split("\t")) for number, *_ in good
    ]


def test_a_gzip_file_in_several_members_reads_as_the_plain_one(tmp_path: Path) -> None:
    text = b"".join(b"%d,x,y\n" % n for n in range(5000))
    (tmp_path / "plain.csv").write_bytes(text)
    (tmp_path / "packed").write_bytes(gzip.compress(text[:100]) + gzip.compress(text[100:]))
    layout = Layout(names=NAMES)
    assert read(tmp_path / "packed", layout, 999) == read(tmp_path / "plain.csv", layout)


def test_a_header_names_the_columns_and_is_counted_as_a_record(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(b'\xef\xbb\xbfa,"b ",c\r\n1,2,3\r\n4,5\r\n6,7,8')
    good, dead = read(path, Layout())
    assert (good, dead) == ([(1, "1", "2", "3"), (3, "6", "7", "8")], [(2, "ragged")])
    only = list(read_delimited(path, Layout(), stream="s", wanted=["b"]))
    assert [row for rows in only for row in rows.frame.rows()] == [("2", 1), ("7", 3)]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "is empty"),
        (gzip.compress(b"a,b,c\n" * 9000)[:-20], "gzip file is cut off or damaged"),
        (b"PK\x03\x04 and more", "is a zip archive; unpack it first"),
        (b"a,b,a\n1,2,3\n", "two columns 'a'"),
        (b"a,b\n1,2\n", "has no column 'c'; its columns: a, b"),
        (b'a,b,c\n1,"' + b"x" * 5_000_000, "a quote is opened and never closed"),
        (b"a,b,c\n" + b"x" * 5_000_000, "a line never ends"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path: Path, content: bytes, complaint: str) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(content)
    with pytest.raises(ContractError, match=complaint) as told:
        list(read_delimited(path, Layout(), stream="s", wanted=["c"]))
    assert str(path) in str(told.value)
    with pytest.raises(ContractError, match="cannot be read"):
        list(read_delimited(tmp_path / "nowhere.csv", Layout(), stream="s"))


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.lists(st.integers(0, 300).map(lambda n: n * 20_000), max_size=20), max_size=8),
    st.integers(1, 2000),
)
def test_sorting_on_disk_is_a_stable_sort(
    tmp_path_factory: pytest.TempPathFactory, parts: list[list[int]], buffer_bytes: int
) -> None:
    dead = pl.DataFrame(schema=DEAD_LETTERS)
    count = 0
    chunks = []
    for part in parts:
        names = [f"{n}" for n in range(count, count + len(part))]
        count += len(part)
        frame = pl.DataFrame(
            {"event_time_ms": part, "name": names}, schema={"event_time_ms": pl.Int64, "name": pl.String}
        )
        chunks.append(Rows(frame, dead))
    folder = tmp_path_factory.mktemp("sorting")
    out = [row for rows in in_time_order(chunks, folder, buffer_bytes=buffer_bytes) for row in rows.frame.rows()]
    flat = [row for rows in chunks for row in rows.frame.rows()]
    assert out == sorted(flat, key=lambda row: row[0])


def test_windows_bound_what_is_held_at_once(tmp_path: Path) -> None:
    dead = pl.DataFrame(schema=DEAD_LETTERS)
    frame = pl.DataFrame({"event_time_ms": [(n * 7919) % 1000 * 60_000 for n in range(20_000)]})
    chunks = [Rows(part, dead) for part in frame.iter_slices(500)]
    heights = [rows.frame.height for rows in in_time_order(chunks, tmp_path, buffer_bytes=16_000)]
    assert sum(heights) == 20_000
    assert max(heights) <= 2000  # 16,000 bytes of 8 each
    assert len(list(tmp_path.glob("*.parquet"))) == 10
