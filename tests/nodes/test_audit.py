"""The audit works out by itself what ingest found, on traffic with every planted fault."""

import polars as pl
import pytest

from contracts.app import load_app
from flows import ingest
from nodes.audit import Raw, truth
from nodes.example_log import ExampleDirectory
from nodes.ledger import read_fates
from nodes.simulate import Faults, simulate


@pytest.fixture(scope="module")
def ingested(tmp_path_factory):
    folder = tmp_path_factory.mktemp("audit")
    app = load_app("adsim", {"labels": {"wait_s": 60, "dedupe_s": 300}, "ingest": {"disorder_s": 20}})
    rates = Faults(0.03, 0.01, 0.02, 0.01, disorder_s=20, wait_s=60, dedupe_s=300)
    simulate(folder / "events", impressions=6000, seed=3, days=0.05, rates=rates)
    impressions, clicks = folder / "events/impressions.ndjson", folder / "events/clicks.ndjson"
    ingest.run(app, [impressions], [clicks], folder / "out")
    records = {
        (stream, str(path)): [Raw(line, value) for line, value in enumerate(path.read_bytes().splitlines())]
        for stream, path in (("impressions", impressions), ("clicks", clicks))
    }
    return app, records, folder / "out"


def test_an_audit_finds_the_fate_of_every_event_and_the_label_of_every_example(ingested):
    app, records, out = ingested
    fates = read_fates(out / "fates")
    told = {(row["stream"], row["origin"], row["line"]): row["fate"] for row in fates.iter_rows(named=True)}
    dead = {(row["origin"], row["line"]) for row in fates.iter_rows(named=True) if row["fate"] == "dead_lettered"}
    found = truth(app, records, dead)
    assert found.fates == told
    assert set(found.read("clicks")) == {"accepted", "duplicate", "late", "orphan", "dead_lettered"}
    log = pl.concat([batch.frame for batch in ExampleDirectory(out / "examples").read(0)])
    labels = {(row[0], row[1]): row[2] for row in log.select("impression_id", "event_time_ms", "label").iter_rows()}
    assert found.labels == labels


def test_what_the_flow_should_have_refused_is_seen(ingested):
    app, records, _ = ingested
    assert truth(app, records, set()).unreadable > 20


def test_an_audit_says_which_label_mode_it_knows(ingested):
    _, records, _ = ingested
    other = load_app("adsim", {"labels": {"mode": "fake_negative"}})
    with pytest.raises(ValueError, match="fake_negative"):
        truth(other, records, set())
