"""Following a log: each segment once, in order, without looking anywhere twice."""

from pathlib import Path

import polars as pl
import pytest

from contracts.errors import CorruptError, SchemaMismatchError, StoreError
from contracts.names import segment_file
from contracts.segments import FeatureBatch
from nodes.example_log import ExampleDirectory
from nodes.example_logs import ExampleFolder
from nodes.follow_examples import Follower


def write(log: ExampleDirectory, start: int, end: int) -> None:
    log.write(FeatureBatch(pl.DataFrame({"example_id": list(range(start, end))}), start, "s"), "adsim")


def taken(follower: Follower) -> list[int] | None:
    segment = follower.take()
    return None if segment is None else segment.frame["example_id"].to_list()


@pytest.mark.parametrize("kind", ["folder", "opened folder", "topic"])
def test_what_stands_is_read_from_within_a_segment_and_then_what_comes(tmp_path: Path, kind: str) -> None:
    log = ExampleDirectory(tmp_path)
    for start in (0, 3, 6):
        write(log, start, start + 3)

    class Topic:
        """Not a folder."""

        read, rows = log.read, log.rows

    opened = {"folder": log, "opened folder": ExampleFolder(tmp_path, "adsim"), "topic": Topic()}[kind]
    follower = Follower(opened, 4, "s")
    assert taken(follower) == [4, 5]
    assert follower.end() >= 6
    assert (taken(follower), taken(follower), follower.end()) == ([6, 7, 8], None, 9)
    write(log, 9, 10)
    assert (taken(follower), taken(follower), follower.next_row) == ([9], None, 10)


def test_a_look_for_nothing_new_reads_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = ExampleDirectory(tmp_path)
    write(log, 0, 3)
    follower = Follower(log, 0, "s")
    assert (taken(follower), taken(follower)) == ([0, 1, 2], None)
    monkeypatch.setattr(ExampleDirectory, "read", None)
    assert taken(follower) is None
    write(log, 3, 5)
    assert taken(follower) == [3, 4]


def test_a_topic_that_goes_away_is_not_asked_for_its_end(tmp_path: Path) -> None:
    log = ExampleDirectory(tmp_path)
    write(log, 0, 3)
    write(log, 3, 5)

    class Topic:
        """Its broker dies after the first segment."""

        read = log.read

        def rows(self) -> int:
            raise StoreError("no broker answers")

    topic = Topic()
    follower = Follower(topic, 0, "s")
    assert (taken(follower), follower.end()) == ([0, 1, 2], 3)


def test_a_folder_that_is_not_there_yet_is_empty(tmp_path: Path) -> None:
    follower = Follower(ExampleDirectory(tmp_path / "later"), 0, "s")
    assert (taken(follower), follower.end()) == (None, 0)
    write(ExampleDirectory(tmp_path / "later"), 0, 2)
    assert taken(follower) == [0, 1]


def test_a_foreign_or_broken_segment_is_refused(tmp_path: Path) -> None:
    log = ExampleDirectory(tmp_path)
    write(log, 0, 3)
    with pytest.raises(SchemaMismatchError, match=r"written for schema_id s.*the app has t"):
        Follower(log, 0, "t").take()
    (tmp_path / segment_file(3)).write_bytes((tmp_path / segment_file(0)).read_bytes())
    with pytest.raises(CorruptError, match="holds 3 rows from row 0; delete it"):
        Follower(log, 3, "s").take()
    (tmp_path / segment_file(3)).write_bytes(b"cut")
    with pytest.raises(CorruptError, match="not a whole example segment"):
        Follower(log, 3, "s").take()
