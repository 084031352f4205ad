"""Files as the stream that they once were: order of arrival, pace, and times moved without touching the rest."""

import json

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kafka.partitioner.default import murmur2

from contracts.errors import ContractError
from nodes.fakes import ManualClock
from nodes.kafka_partition import hashes, partitions_for
from nodes.produce import EventFile, Pacer, arrivals, parse, shifted

BOUNDS = {"time_min_ms": 1_000, "time_max_ms": 9_000, "max_line_bytes": 1_000}


def event(at_ms: object, name: str = "i") -> bytes:
    return json.dumps({"impression_id": name, "event_time_ms": at_ms}).encode()


def replayed(tmp_path, *files: list[bytes], **over) -> pl.DataFrame:
    given_files = []
    for number, lines in enumerate(files):
        path = tmp_path / f"{number}.ndjson"
        path.write_bytes(b"".join(line + b"\n" for line in lines))
        given_files.append(EventFile("impressions", path))
    return pl.concat(arrivals(given_files, **(BOUNDS | over)))


@pytest.mark.parametrize("block_lines", [1, 2, 3, 100])
def test_files_are_merged_by_the_time_that_each_has_reached(tmp_path, block_lines):
    shown = [event(2_000, "a"), event(4_000, "b"), event(3_000, "late"), event(6_000, "c")]
    clicked = [event(2_500, "a"), event(4_500, "b"), event(8_000, "z")]
    found = replayed(tmp_path, shown, clicked, block_lines=block_lines)
    assert found["key"].to_list() == ["a", "a", "b", "late", "b", "c", "z"]
    assert found["arrival_ms"].to_list() == [2_000, 2_500, 4_000, 4_000, 4_500, 6_000, 8_000]
    assert found["file"].to_list() == [0, 1, 0, 0, 1, 0, 1]


def test_bad_lines_stay_next_to_their_neighbours_and_implausible_times_move_nothing(tmp_path):
    lines = [b"\xff", event(2_000), b"{", event(10_000), event(-5), event("3000"), event(3_000), b""]
    found = replayed(tmp_path, lines, [event(2_500)])
    assert found.filter(pl.col("file") == 0)["line"].to_list() == lines
    assert found["arrival_ms"].to_list() == [2_000] * 6 + [2_500, 3_000, 3_000]
    assert found.filter(pl.col("file") == 0)["event_time_ms"].to_list() == [
        None, 2_000, None, 10_000, -5, None, 3_000, None,
    ]  # fmt: skip


@given(st.lists(st.lists(st.integers(0, 10_000), max_size=12), min_size=1, max_size=3), st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_every_line_comes_once_in_its_files_order_and_time_never_falls(tmp_path_factory, times, block_lines):
    files = [[event(at, f"{n}-{k}") for k, at in enumerate(file)] for n, file in enumerate(times)]
    if not any(files):
        return
    found = replayed(tmp_path_factory.mktemp("replay"), *files, block_lines=block_lines)
    for number, lines in enumerate(files):
        assert found.filter(pl.col("file") == number)["line"].to_list() == lines
    assert found["arrival_ms"].is_sorted()


def test_a_line_that_no_message_can_hold_is_refused_by_its_number(tmp_path):
    with pytest.raises(ContractError, match=r"0\.ndjson: line 2 has 2,000 bytes, and a message holds 1,000"):
        replayed(tmp_path, [event(2_000), b"x" * 2_000])


def test_a_missing_file_is_called_by_its_name(tmp_path):
    with pytest.raises(ContractError, match="absent"):
        list(arrivals([EventFile("clicks", tmp_path / "absent")], **BOUNDS))


@pytest.mark.parametrize(
    ("line", "key", "time"),
    [
        (b'{"event_time_ms":7,"impression_id":"a\\"b"}', 'a\\"b', 7),
        (b'{ "impression_id" : "" , "event_time_ms" : -7 }', "", -7),
        (b'{"event_time_ms":7.5}', None, None),
        (b'{"event_time_ms":7e3}', None, None),
        (b'{"event_time_ms":99999999999999999999}', None, None),
        (b'{"text":"\\"event_time_ms\\":5","event_time_ms":7}', None, 7),
    ],
)
def test_key_and_time_are_found_without_decoding(line, key, time):
    assert parse([line]).select("key", "event_time_ms").rows() == [(key, time)]


@given(st.lists(st.integers(-(10**17), 10**17), min_size=1, max_size=20), st.integers(-(10**17), 10**17))
@settings(max_examples=60, deadline=None)
def test_moving_times_changes_times_only(times, delta_ms):
    lines = [json.dumps({"a": "$1 ${1}", "event_time_ms": at, "b": [at]}).encode() for at in times]
    moved = [json.loads(line) for line in shifted([*lines, b"\xff$1"], delta_ms)[:-1]]
    assert moved == [{"a": "$1 ${1}", "event_time_ms": at + delta_ms, "b": [at]} for at in times]
    assert shifted([b"\xff$1"], delta_ms) == [b"\xff$1"]
    assert shifted(lines, 0) == lines


def test_a_pace_keeps_to_the_clock():
    clock = ManualClock(7)
    pacer = Pacer(2, clock)
    assert pacer.reached_ms(5_000) == 5_000
    assert pacer.wait_ms(6_001) == 501
    clock.advance(500)
    assert (pacer.reached_ms(9_999), pacer.wait_ms(6_000), pacer.wait_ms(5_000)) == (6_000, 0, 0)


def test_no_pace_lets_everything_go():
    pacer = Pacer(None, ManualClock())
    assert (pacer.reached_ms(5_000) > 10**15, pacer.wait_ms(10**15)) == (True, 0)


@given(st.lists(st.binary(max_size=40), max_size=30))
@settings(max_examples=60, deadline=None)
def test_keys_go_where_javas_producers_send_them(keys):
    assert hashes(keys).tolist() == [murmur2(key) & 0xFFFFFFFF for key in keys]


def test_a_huge_key_has_its_partition_too():
    assert partitions_for([b"k", b"x" * 5_000], 7).tolist() == [
        (murmur2(key) & 0x7FFFFFFF) % 7 for key in (b"k", b"x" * 5_000)
    ]
