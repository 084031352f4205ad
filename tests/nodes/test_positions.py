"""Positions on disk: whole or passed over, of the same stream or refused."""

import polars as pl
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from contracts.app import load_app
from contracts.errors import ContractError, CorruptError
from contracts.events import FATES, Mark
from contracts.positions import Position
from nodes.log_tail import replay_from_ms
from nodes.positions import ResumeMarks, basis_of, newest, position_file, read_position, write_position
from nodes.prime import accepted_before
from nodes.write import write_part

APP = load_app("adsim", {"labels": {"wait_s": 10, "dedupe_s": 25}, "ingest": {"disorder_s": 4}})
TOPICS = {"ctr.impressions.v1": 4, "ctr.clicks.v1": 4}
BASIS = basis_of(APP, TOPICS)


def at(row: int, state: bytes = b"\x00\nstate\n") -> Position:
    marks = {origin: Mark(origin, row * 2, row * 10 - 1) for origin in ("ctr.clicks.v1:0", "ctr.impressions.v1:3")}
    return Position(
        row, row * 500, (row * 100, f"i{row}") if row else None, marks, {"ctr.clicks.v1:0": row}, BASIS, state
    )


@pytest.fixture
def folder(tmp_path):
    for row in (0, 40, 90):
        write_position(tmp_path / "positions", at(row))
    return tmp_path / "positions"


@pytest.mark.parametrize(("rows", "found"), [(39, 0), (40, 40), (89, 40), (90, 90), (10**9, 90)])
def test_the_newest_position_that_the_log_reaches_is_taken(folder, rows, found):
    assert newest(folder, rows, BASIS, 500) == at(found)


def test_where_nothing_was_followed_there_is_no_position(tmp_path, folder):
    assert newest(tmp_path / "none", 5) is None
    position_file(folder, 0).unlink()
    assert newest(folder, 39) is None


HARMS = [
    lambda data: data[:-1],
    lambda data: data[: len(data) // 2],
    lambda data: b"",
    lambda data: data.replace(b'"row": 90', b'"row": 91'),
    lambda data: data + b"x",
]


@pytest.mark.parametrize("harm", HARMS, ids=range(len(HARMS)))
def test_a_broken_position_is_told_and_the_one_before_taken(folder, caplog, harm):
    path = position_file(folder, 90)
    path.write_bytes(harm(path.read_bytes()))
    assert newest(folder, 100, BASIS) == at(40)
    assert "position-000000000090.bin: its bytes do not have the digest" in caplog.text


def test_when_all_are_broken_nothing_begins_at_row_0_in_silence(folder):
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CorruptError, match="none of its 3 positions is whole"):
        newest(folder, 100)


def test_a_position_of_another_version_is_refused(folder):
    path = position_file(folder, 90)
    write_position(folder, at(90))
    body = path.read_bytes().partition(b"\n")[2].replace(b'"format": 1', b'"format": 9')

    path.write_bytes(xxhash.xxh3_128_hexdigest(body).encode() + b"\n" + body)
    with pytest.raises(CorruptError, match="format 9, but this version reads 1"):
        read_position(path)


def test_what_a_killed_writer_left_is_swept_and_old_ones_are_forgotten(folder):
    (folder / ".position-000000000095.bin.77.partial").write_bytes(b"half")
    newest(folder, 100)
    for row in (100, 110, 120):
        write_position(folder, at(row))
    assert sorted(path.name for path in folder.iterdir()) == [
        position_file(folder, r).name for r in (90, 100, 110, 120)
    ]


@pytest.mark.parametrize(
    ("app", "topics", "said"),
    [
        (load_app("kuairand"), TOPICS, "other app"),
        (APP, TOPICS | {"ctr.clicks.v1": 8}, "other topics .*\"ctr.clicks.v1\": 4.* now .*8"),
        (APP, {"mine.v1": 4, "ctr.clicks.v1": 4}, "other topics"),
        (load_app("adsim", {"labels": {"wait_s": 11, "dedupe_s": 25}, "ingest": {"disorder_s": 4}}), TOPICS, "labels"),
        (load_app("adsim", {"labels": {"wait_s": 10, "dedupe_s": 25}, "ingest": {"disorder_s": 5}}), TOPICS, "ingest"),
    ],
)  # fmt: skip
def test_a_position_of_another_stream_is_refused_in_one_sentence(folder, app, topics, said):
    with pytest.raises(ContractError, match=f"was made with {said if said.startswith('other') else 'other ' + said}"):
        newest(folder, 100, basis_of(app, topics))


def test_settings_that_decide_no_row_may_change(folder):
    changed = load_app(
        "adsim",
        {
            "labels": {"wait_s": 10, "dedupe_s": 25},
            "ingest": {"disorder_s": 4, "shards": 7, "chunk_rows": 99, "segment_rows": 9},
            "live": {"linger_s": 3},
        },
    )
    assert newest(folder, 100, basis_of(changed, dict(reversed(TOPICS.items()))), 250) == at(90)


def test_slots_that_do_not_meet_the_position_are_refused(folder):
    with pytest.raises(ContractError, match=r"45000 ms, which is no multiple of live.slot_s = 0.7"):
        newest(folder, 100, BASIS, 700)


@given(
    reads=st.lists(st.tuples(st.integers(1, 5), st.integers(-30, 60)), max_size=30),
    times=st.lists(st.integers(-50, 400), min_size=1, max_size=6),
    step_ms=st.integers(1, 50),
)
def test_all_events_that_are_new_enough_stand_behind_the_mark(reads, times, step_ms):
    marks, newest_ms, offset = ResumeMarks(step_ms), -(2**62), 0
    events = []  # offset, event time
    for rows, ahead in reads:
        marks.add([Mark("t:0", offset, newest_ms)])
        for n in range(rows):
            time_ms = max(newest_ms, 0) + ahead - n
            events.append((offset, time_ms))
            newest_ms, offset = max(newest_ms, time_ms), offset + 1
    for time_ms in sorted(times):
        found = marks.before(time_ms)
        assert bool(found) == bool(reads)
        for mark in found.values():
            assert mark.newest_ms < time_ms
            assert all(event_ms < time_ms for at_offset, event_ms in events if at_offset < mark.offset)
            assert mark.newest_ms == max((ms for o, ms in events if o < mark.offset), default=-(2**62))


def test_only_what_may_still_be_repeated_is_told_again(tmp_path):
    position = at(200)
    end_ms = replay_from_ms(APP, position.slot_ms_end)
    assert end_ms == 200 * 500 - 10_000 - 4_000
    rows = [
        ("old", end_ms - 25_001, "accepted"),
        ("first", end_ms - 25_000, "accepted"),
        ("last", end_ms - 1, "accepted"),
        ("repeat", end_ms - 2, "duplicate"),
        ("read again", end_ms, "accepted"),
    ]
    shown = [
        {"stream": "impressions", "origin": "t:0", "line": n, "id": name, "event_time_ms": ms, "fate": fate}
        for n, (name, ms, fate) in enumerate(rows)
    ]
    clicked = {"stream": "clicks", "id": "c", "event_time_ms": end_ms - 5, "fate": "accepted"}
    frame = pl.DataFrame([*shown, clicked], schema=FATES)
    write_part(tmp_path, frame, "part-000000000090000")
    write_part(tmp_path, frame.head(3))  # again, by a run that was killed
    (tmp_path / "part-000000000000017-ff.parquet").write_bytes(b"too old to be looked at")
    found = pl.concat(accepted_before(APP, tmp_path, position))
    assert sorted(found["id"]) == ["first", "last"]
    (tmp_path / "part-000000000090001-ff.parquet").write_bytes(b"no parquet")
    with pytest.raises(CorruptError, match=r"part-000000000090001-ff\.parquet: cannot be read"):
        list(accepted_before(APP, tmp_path, position))
