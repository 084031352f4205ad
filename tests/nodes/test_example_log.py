"""The example log on disk: whole segments, one order, a mark at the end."""

from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.errors import ContractError, CorruptError, SchemaMismatchError, StoreError
from contracts.names import segment_file
from contracts.segments import FeatureBatch
from nodes.example_log import ExampleDirectory
from nodes.files import write_whole


def batch(first: int, rows: int = 4, schema_id: str = "s") -> FeatureBatch:
    return FeatureBatch(
        pl.DataFrame({"example_id": pl.Series(range(first, first + rows), dtype=pl.UInt64)}), first, schema_id
    )


@pytest.fixture
def log(tmp_path) -> ExampleDirectory:
    log = ExampleDirectory(tmp_path / "examples")
    for first in (0, 4, 8):
        log.write(batch(first), "adsim")
    return log


def rows_of(log: ExampleDirectory, first: int = 0) -> list[int]:
    return [row for part in log.read(first) for row in part.frame["example_id"]]


@pytest.mark.parametrize("first", range(13))
def test_reading_begins_at_any_row(log, first):
    parts = list(log.read(first))
    assert rows_of(log, first) == list(range(first, 12))
    assert not parts or parts[0].first_row == first


def test_a_log_without_rows_can_be_read_and_finished(tmp_path):
    log = ExampleDirectory(tmp_path / "examples")
    assert (log.rows(), list(log.read(0)), log.complete) == (0, [], None)
    assert log.finish(0, "s").rows == 0


def test_nothing_is_read_beyond_a_gap(log):
    log.write(batch(16), "adsim")
    assert (rows_of(log), log.rows()) == (list(range(12)), 12)


def test_a_reader_that_was_open_sees_what_is_added(log):
    assert log.rows() == 12
    log.write(batch(12), "adsim")
    assert rows_of(log, 12) == [12, 13, 14, 15]


def test_the_same_segment_again_changes_nothing_and_another_is_refused(log):
    path = log.path / segment_file(4)
    before = path.stat().st_mtime_ns
    log.write(batch(4), "adsim")
    assert path.stat().st_mtime_ns == before
    with pytest.raises(ContractError, match="other rows"):
        log.write(batch(4, rows=3), "adsim")


def test_the_mark_says_what_stands_and_verify_holds_it_to_that(log):
    done = log.finish(12, "s")
    assert (log.complete, log.verify()) == (done, done)
    path = log.path / segment_file(8)
    path.write_bytes(path.read_bytes().replace(b"rocket.app", b"rocket.apq"))
    with pytest.raises(CorruptError, match="delete it and ingest again"):
        log.verify()


def test_a_log_with_a_row_too_few_or_a_segment_too_many_is_not_marked(log):
    with pytest.raises(CorruptError, match="12 rows"):
        log.finish(13, "s")
    log.write(batch(16), "adsim")
    with pytest.raises(CorruptError, match="1 segments beyond"):
        log.finish(12, "s")
    assert log.complete is None


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_a_cut_segment_is_called_by_name(log, keep):
    path = log.path / segment_file(4)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CorruptError, match="segment-000000000004"):
        rows_of(ExampleDirectory(log.path))


def test_a_foreign_schema_is_refused(log):
    with pytest.raises(SchemaMismatchError, match="written for schema_id s"):
        list(log.read(0, "other"))


def test_a_broken_mark_is_refused(log):
    (log.path / "complete.json").write_text("{")
    with pytest.raises(CorruptError, match="ingest again"):
        _ = log.complete


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "in the way").write_bytes(b"")
    with pytest.raises(StoreError, match="cannot be written"):
        write_whole(tmp_path / "in the way" / "file", b"x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(StoreError, match="cannot be written"):
        write_whole(tmp_path / "folder", b"x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "in the way"]


@settings(max_examples=30, deadline=None)
@given(cuts=st.lists(st.tuples(st.integers(0, 30), st.integers(1, 12)), min_size=1, max_size=12))
def test_appending_in_any_cuts_again_and_again_gives_each_row_once(cuts):
    with TemporaryDirectory() as folder:
        log, rows = ExampleDirectory(Path(folder)), 0
        for first, height in cuts:
            part = batch(first, height)
            if first > rows:
                with pytest.raises(ContractError, match=f"row {first} comes next"):
                    log.append(part, "adsim")
                continue
            assert log.append(part, "adsim") == max(first + height - rows, 0)
            rows = max(rows, first + height)
            assert (log.rows(), rows_of(ExampleDirectory(Path(folder)))) == (rows, list(range(rows)))


def test_rows_that_stand_there_must_be_those_that_are_appended(log):
    other = FeatureBatch(batch(10, 6).frame.with_columns(example_id=pl.col("example_id").reverse()), 10, "s")
    with pytest.raises(ContractError, match="holds other rows from 10 on"):
        log.append(other, "adsim")
    with pytest.raises(SchemaMismatchError, match="written for schema_id s"):
        log.append(batch(10, 6, "another"), "adsim")
    assert log.rows() == 12


def test_what_is_appended_is_cut_into_segments_that_readers_take(tmp_path):
    log = ExampleDirectory(tmp_path / "examples")
    assert log.append(batch(0, 9000), "adsim") == 9000
    assert [part.frame.height for part in log.read(0)] == [4096, 4096, 808]


def test_a_log_that_was_deleted_under_its_writer_is_empty(log):
    assert log.rows() == 12
    for path in log.path.iterdir():
        path.unlink()
    assert (log.rows(), log.append(batch(0), "adsim"), log.rows()) == (0, 4, 4)
