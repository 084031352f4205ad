"""Law 1: no event vanishes. Each event read has exactly one fate, counted where it happened."""

from collections import Counter

import pytest

from contracts.app import load_app
from contracts.errors import CorruptError
from contracts.events import Fate
from contracts.segments import ORDER, Role
from flows import ingest
from nodes.join_clicks import _SettleAll
from nodes.simulate import Faults, simulate
from tests.flows.ingest_files import example_rows, fates

FAULTS = Faults(duplicates=0.05, late=0.02, orphans=0.02, malformed=0.02)
APP = load_app("adsim", {"sampling": {"negative_keep_rate": 0.5}, "ingest": {"chunk_rows": 700, "segment_rows": 256}})


@pytest.fixture(scope="module")
def ingested(tmp_path_factory):
    events, out = tmp_path_factory.mktemp("events"), tmp_path_factory.mktemp("run") / "out"
    told = simulate(events, impressions=4_000, seed=7, rates=FAULTS)
    files = events / "impressions.ndjson", events / "clicks.ndjson"
    return files, told, ingest.run(APP, [files[0]], [files[1]], out), out


def test_each_line_of_each_file_has_one_fate(ingested):
    (impressions, clicks), _, _, out = ingested
    lines = {
        (stream, str(path), line)
        for stream, path in (("impressions", impressions), ("clicks", clicks))
        for line in range(path.read_bytes().count(b"\n"))
    }
    keys = fates(out).select("stream", "origin", "line").rows()
    assert len(keys) == len(lines)
    assert set(keys) == lines


@pytest.mark.parametrize("stream", ["impressions", "clicks"])
def test_the_counters_add_up_to_what_was_read_and_agree_with_the_ledger(ingested, stream):
    _, told, figures, out = ingested
    counted = dict(figures["streams"][stream])
    assert counted.pop("read") == sum(counted.values()) == told["expected"][stream]["read"]
    written = Counter(fates(out).filter(stream=stream)["fate"])
    assert counted == {fate.value: written.get(fate.value, 0) for fate in Fate}
    assert min(counted["duplicate"], counted["late"], counted["dead_lettered"]) > 0


def test_each_accepted_impression_is_an_example_or_sampled_out(ingested):
    _, _, figures, out = ingested
    outcomes = Counter(fates(out).filter(stream="impressions", fate="accepted")["outcome"])
    assert outcomes == {"example": figures["examples"], "sampled_out": figures["sampled_out"]}
    assert figures["streams"]["impressions"]["accepted"] == sum(outcomes.values()) + figures["waiting"]
    assert (
        fates(out).filter(fate="accepted", stream="clicks")["outcome"].null_count()
        == figures["streams"]["clicks"]["accepted"]
    )


@pytest.mark.parametrize("mode", ["fake_negative", "dfm"])
def test_corrections_are_counted_apart_and_are_the_clicks_that_came_after_the_first_row(ingested, tmp_path, mode):
    (impressions, clicks), told, *_ = ingested
    labels = {"mode": mode, "observe_s": 8}
    app = load_app("adsim", {"labels": labels, "ingest": {"chunk_rows": 700, "segment_rows": 256}})
    figures = ingest.run(app, [impressions], [clicks], tmp_path / "out")
    assert figures["streams"]["impressions"]["accepted"] == figures["examples"] + figures["waiting"]
    log = example_rows(tmp_path / "out", app)
    roles = log.group_by("role", "label").len()
    rows = {(role, label): count for role, label, count in roles.rows()}
    positives = rows.get((Role.SETTLED, 1), 0)
    assert figures["examples"] == positives + rows[Role.PROVISIONAL, 0]
    assert figures["corrections"] == rows[Role.CORRECTION, 1] > 50
    assert figures["corrections"] + positives == figures["streams"]["clicks"]["accepted"]
    ends = rows.get((Role.SETTLED, 0), 0)
    assert figures["ended"] == ends == (rows[Role.PROVISIONAL, 0] - figures["corrections"] if mode == "dfm" else 0)
    assert log["example_id"].n_unique() == log.height
    order = log.select(ORDER)
    assert order.equals(order.sort(ORDER)), "the log stands in its order"
    assert told["expected"]["impressions"]["accepted"] == figures["streams"]["impressions"]["accepted"]


def test_what_the_simulator_planted_is_what_ingest_found(ingested):
    _, told, figures, _ = ingested
    for stream in ("impressions", "clicks"):
        expected = told["expected"][stream]
        assert {name: figures["streams"][stream][name] for name in expected if name != "proper"} == {
            name: rows for name, rows in expected.items() if name != "proper"
        }


def test_a_run_that_loses_events_fails_and_is_not_marked_complete(ingested, tmp_path, monkeypatch):
    (impressions, clicks), *_ = ingested
    whole = _SettleAll.process
    monkeypatch.setattr(_SettleAll, "process", lambda self, keyed: () if keyed[0] == 1 else whole(self, keyed))
    with pytest.raises(CorruptError, match="not each has one fate"):
        ingest.run(APP, [impressions], [clicks], tmp_path / "out")
    assert not (tmp_path / "out" / "examples" / "complete.json").exists()
