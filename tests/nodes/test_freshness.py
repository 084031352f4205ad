"""Freshness: each example counts for the first version that contains it, whatever is killed in between."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.app import App, load_app
from contracts.errors import CorruptError
from contracts.segments import FeatureBatch
from contracts.weights import WeightManifest
from nodes.freshness import BIN_MS, Freshness, Published, quantile_s, read_versions, settle_ms, summed

DUE_MS = 12_000


@pytest.fixture(scope="module")
def app() -> App:
    return load_app("adsim", {"labels": {"wait_s": 10}, "ingest": {"disorder_s": 2}})


def rows(start: int, end: int, step_ms: int = 1000) -> pl.DataFrame:
    return pl.DataFrame({"_row": np.arange(start, end), "event_time_ms": np.arange(start, end) * step_ms})


def manifest(version: int, position: int, created_ms: int) -> WeightManifest:
    return WeightManifest(
        model="m", version=version, schema_id="s", app="a", trained_until_ms=(position - 1) * 1000, position=position,
        step=position, epoch=3, created_ms=created_ms, gate={}, blobs=(),
    )  # fmt: skip


def test_an_example_is_due_when_its_label_is_known_and_nothing_earlier_can_come(app: App) -> None:
    assert settle_ms(app) == DUE_MS
    assert settle_ms(load_app("adsim", {"labels": {"mode": "fnc", "wait_s": 10}, "ingest": {"disorder_s": 2}})) == 2000


def test_each_example_waits_from_due_to_the_first_version_that_contains_it(app: App, tmp_path: Path) -> None:
    fresh = Freshness(app, tmp_path / "versions.ndjson")
    fresh.learnt(rows(0, 10))
    one = fresh.published(manifest(1, 8, 7000 + DUE_MS))
    assert one is not None
    assert (one.freshness_s, one.after_wait_s, one.rows) == (12.0, 0.0, 8)
    assert one.waits == {str(1000 * n // BIN_MS): 1 for n in range(8)}
    assert (one.wait_s_p50, one.wait_s_p99) == (3.05, 7.05)
    fresh.learnt(rows(10, 12))
    two = fresh.published(manifest(2, 12, 11_400 + DUE_MS))
    assert two is not None
    assert (two.rows, two.wait_s_p99) == (4, 3.45)
    assert read_versions(tmp_path / "versions.ndjson") == [one, two]
    assert summed([one, two])["examples"] == 12


def test_the_same_version_again_is_not_told_again(app: App, tmp_path: Path) -> None:
    fresh = Freshness(app, tmp_path / "versions.ndjson")
    assert fresh.published(manifest(4, 8, 20_000)) is not None
    assert fresh.published(manifest(4, 8, 30_000)) is None
    assert len(read_versions(tmp_path / "versions.ndjson")) == 1


def test_what_is_learnt_again_after_a_kill_counts_once(app: App, tmp_path: Path) -> None:
    path = tmp_path / "versions.ndjson"
    fresh = Freshness(app, path)
    fresh.learnt(rows(0, 10))
    fresh.published(manifest(1, 8, 20_000))
    again = Freshness(app, path)
    assert (again.position, again.newest and again.newest.version) == (8, 1)
    again.learnt_before(FeatureBatch(rows(4, 9).drop("_row"), 4, "s"), 6)  # the checkpoint stood at row 6
    again.learnt(rows(6, 12))
    two = again.published(manifest(2, 12, 30_000))
    assert two is not None
    assert two.rows == 4
    assert Freshness(app, path, anew=True).position == 0


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_kills_and_cuts_lose_and_double_no_example(app: App, tmp_path_factory: pytest.TempPathFactory, data) -> None:
    path = tmp_path_factory.mktemp("fresh") / "versions.ndjson"
    fresh, at, version = Freshness(app, path), 0, 0
    for _ in range(data.draw(st.integers(1, 12))):
        move = data.draw(st.sampled_from(["learn", "publish", "kill"]))
        if move == "learn":
            end = at + data.draw(st.integers(1, 20))
            fresh.learnt(rows(at, end))
            at = end
        elif move == "publish" and at > fresh.position:
            version += 1
            fresh.published(manifest(version, data.draw(st.integers(fresh.position + 1, at)), 10**6))
        elif move == "kill":
            at = data.draw(st.integers(0, at))  # the newest checkpoint
            fresh = Freshness(app, path)
            fresh.learnt_before(FeatureBatch(rows(fresh.position, max(at, fresh.position)), fresh.position, "s"), at)
    if at > fresh.position:
        fresh.published(manifest(version + 1, at, 10**6))
    told = read_versions(path)
    assert sum(one.rows for one in told) == (told[-1].position if told else 0)


def test_a_line_that_a_kill_cut_short_is_left_out_and_another_is_refused(app: App, tmp_path: Path) -> None:
    path = tmp_path / "versions.ndjson"
    fresh = Freshness(app, path)
    fresh.published(manifest(1, 8, 20_000))
    path.write_bytes(path.read_bytes() + b'{"version":2,"epo')
    Freshness(app, path).published(manifest(3, 12, 30_000))
    assert [one.version for one in read_versions(path)] == [1, 3]
    path.write_bytes(b'{"version": 1}\n')
    with pytest.raises(CorruptError, match=r"versions.ndjson, line 1: not a version .*move the file away"):
        read_versions(path)
    assert read_versions(tmp_path / "none") == []


def test_a_full_disk_is_warned_of_and_stops_nothing(app: App, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fresh = Freshness(app, tmp_path / "no folder" / "versions.ndjson")
    assert fresh.published(manifest(1, 8, 20_000)) is not None
    assert "version 1 is left out of it" in caplog.text


@given(waits=st.dictionaries(st.integers(0, 500), st.integers(1, 50), min_size=1), share=st.sampled_from([0.5, 0.99]))
@settings(max_examples=50, deadline=None)
def test_quantiles_are_those_of_the_rows_up_to_a_bin(waits: dict[int, int], share: float) -> None:
    each = np.repeat(sorted(waits), [waits[number] for number in sorted(waits)])
    exact = np.quantile(each, share, method="inverted_cdf")
    assert quantile_s({str(number): count for number, count in waits.items()}, share) == (exact + 1) * BIN_MS / 1000


def test_figures_leave_out_the_histogram() -> None:
    one = Published(
        version=1, epoch=1, position=1, step=1, trained_until_ms=0, created_ms=1, freshness_s=0.001, after_wait_s=0.0,
        rows=0, wait_s_p50=None, wait_s_p99=None, waits={},
    )  # fmt: skip
    assert "waits" not in one.figures()
    assert one.figures()["version"] == 1
