"""Law 4: the same events give the same stream of example rows, whatever their arrival, shards, chunks and files."""

import json
import random
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from contracts.app import load_app
from flows import ingest
from nodes.example_log import ExampleDirectory
from nodes.ledger import read_fates
from nodes.simulate import Faults, simulate
from tests.flows.ingest_files import example_rows, write_lines
from tests.laws.live_stream import live_once
from tests.live_world import Disk, expected, follow, told, topics_of

CLEAN = Faults(duplicates=0.03, late=0.0, orphans=0.01, malformed=0.0, disorder_s=20.0)


def fading(column: str, half_life_s: float) -> list[dict[str, Any]]:
    """The app's features, and one whose state is no integers: its sums hang on the order of their rows."""
    own = {"name": "fading", "kind": "rate", "columns": [column], "side": "user", "only": "booster"}
    shipped = [feature.model_dump(by_alias=True, exclude_none=True) for feature in load_app("adsim").features]
    return [*shipped, own | {"half_life_s": half_life_s}]


@pytest.fixture(scope="module")
def events(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("events")
    simulate(folder, impressions=3_000, seed=11, rates=CLEAN)
    return folder


def lines_of(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines()


def in_disorder(lines: list[bytes], seed: int, jitter_s: float) -> list[bytes]:
    """Another arrival of the same events, none further than `jitter_s` behind a newer one."""
    draw = random.Random(seed)
    return sorted(lines, key=lambda line: json.loads(line)["event_time_ms"] + draw.uniform(0, jitter_s * 1000))


def rows_of(folder: Path, files: dict[str, list[Path]], **settings: int):
    app = load_app(
        "adsim", {"features": fading("category", 3600), "ingest": {"segment_rows": 512, "chunk_rows": 1024} | settings}
    )
    ingest.run(app, files["impressions"], files["clicks"], folder)
    return example_rows(folder, app)


@pytest.fixture(scope="module")
def rows(events, tmp_path_factory):
    files = {name: [events / f"{name}.ndjson"] for name in ("impressions", "clicks")}
    return rows_of(tmp_path_factory.mktemp("straight") / "out", files)


@pytest.mark.parametrize("seed", [1, 2])
def test_input_shuffled_within_disorder_gives_the_identical_rows(events, rows, tmp_path, seed):
    files = {
        name: [write_lines(tmp_path / f"{name}.ndjson", in_disorder(lines_of(events / f"{name}.ndjson"), seed, 60))]
        for name in ("impressions", "clicks")
    }
    assert lines_of(files["impressions"][0]) != lines_of(events / "impressions.ndjson")
    assert rows_of(tmp_path / "out", files).equals(rows)
    assert rows.height > 2_900
    assert rows["fading"].n_unique() > 2_000


def test_shards_chunks_and_segments_change_nothing(events, rows, tmp_path):
    files = {name: [events / f"{name}.ndjson"] for name in ("impressions", "clicks")}
    assert rows_of(tmp_path / "out", files, shards=1, chunk_rows=331, segment_rows=100).equals(rows)


def test_the_same_events_in_several_files_give_the_same_rows(events, rows, tmp_path):
    draw, files = random.Random(5), {}
    for name in ("impressions", "clicks"):
        parts: list[list[bytes]] = [[], [], []]
        for line in lines_of(events / f"{name}.ndjson"):
            draw.choice(parts).append(line)
        files[name] = [write_lines(tmp_path / f"{name}{n}.ndjson", part) for n, part in enumerate(parts)]
    assert rows_of(tmp_path / "out", files).equals(rows)


LIVE_APP = load_app(
    "adsim",
    {
        "features": fading("user_id", 20),
        "labels": {"wait_s": 10, "dedupe_s": 25},
        "ingest": {"disorder_s": 4, "shards": 2, "segment_rows": 7, "chunk_rows": 21},
        "sampling": {"negative_keep_rate": 0.7},
        "live": {"slot_s": 3, "position_every_s": 1},
    },
)


def test_following_topics_through_a_kill_gives_what_reading_them_at_once_gives(tmp_path):
    draw = random.Random(7)
    topics = topics_of(draw, 40, 2)
    with pytest.raises(Exception, match="killed"):
        live_once(LIVE_APP, topics, tmp_path, draw, 24)
    stood = ExampleDirectory(tmp_path / "examples").rows()
    assert list((tmp_path / "positions").glob("position-*.bin"))
    live_once(LIVE_APP, topics, tmp_path, draw, None)
    rows, fates = expected(LIVE_APP, topics)
    assert 0 < stood < rows.height
    assert example_rows(tmp_path, LIVE_APP).equals(rows)
    assert told(read_fates(tmp_path / "fates").sort("stream", "origin", "line")).equals(told(fates))


def test_going_on_from_any_position_gives_the_same_log():
    """Each position that a run wrote, as if the run had been killed behind it, with the rows after it and without."""
    draw = random.Random(8)
    topics = topics_of(draw, 60, 2)
    whole = follow(LIVE_APP, topics, 3000, draw, crashes=0, doublings=0)
    rows, fates = expected(LIVE_APP, topics)
    assert pl.concat(whole.log).equals(rows)
    assert len(whole.positions) > 4
    assert rows["fading"].n_unique() > 5
    for row, position in whole.positions.items():
        stands = rows.head(draw.randint(row, rows.height))
        disk = Disk([stands], list(whole.fates), {row: position}, stands.height)
        assert pl.concat(follow(LIVE_APP, topics, 3000, draw, crashes=0, disk=disk).log).equals(rows), row
        assert told(disk.all_fates()).equals(told(fates)), row
