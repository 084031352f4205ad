"""The audit finds what was lost, doubled, mislabelled or forgotten, and nothing where all is right."""

import json
import shutil

import polars as pl
import pytest

from contracts.app import load_app
from contracts.segments import FeatureBatch
from flows import audit, ingest
from nodes.example_log import ExampleDirectory
from nodes.files import write_whole_frame
from nodes.ledger import read_fates
from nodes.simulate import Faults, simulate


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("audit")
    app = load_app("adsim", {"labels": {"wait_s": 60, "dedupe_s": 300}, "ingest": {"disorder_s": 20}})
    rates = Faults(0.03, 0.01, 0.02, 0.02, disorder_s=20, wait_s=60, dedupe_s=300)
    simulate(folder, impressions=3000, seed=5, days=0.03, rates=rates)
    ingest.run(app, [folder / "impressions.ndjson"], [folder / "clicks.ndjson"], folder / "out")
    log = list(ExampleDirectory(folder / "out/examples").read(0))
    return app, folder, log


def _audit(run, log=None, out=None, **more):
    app, folder, whole = run
    sources = str(folder / "impressions.ndjson"), str(folder / "clicks.ndjson")
    return audit.run(app, *sources, out or folder / "out", whole if log is None else log, **more)


def test_where_all_is_right_an_audit_finds_nothing(run, tmp_path):
    (tmp_path / "checkpoint-1").mkdir()
    (tmp_path / "checkpoint-1/manifest.json").write_text(json.dumps({"position": 1024}))
    found = _audit(run, checkpoints=tmp_path, ledger=tmp_path / "ledger.parquet")
    assert found["exact"]
    assert found["trained"] == 1024
    assert found["trained"] + found["pending"] == found["examples"] > 2900
    read = sum(rows["read"] for rows in found["streams"].values())
    ledger = pl.read_parquet(tmp_path / "ledger.parquet")
    assert (ledger.height, ledger["use"].drop_nulls().len()) == (read, found["examples"])


def test_an_example_that_is_missing_twice_there_or_of_another_label_is_found(run):
    (batch,) = run[2]
    frame = batch.frame

    def figures(changed):
        found = _audit(run, [FeatureBatch(changed, 0, batch.schema_id)])
        return {name: found[name] for name in ("lost", "doubled", "mislabelled", "unordered") if found[name]}

    assert figures(frame.slice(1)) == {"lost": 1}
    assert figures(pl.concat([frame.head(7), frame.slice(6)])) == {"doubled": 1, "unordered": 1}
    flipped = frame.with_columns(
        label=pl.when(pl.int_range(pl.len()) == 9).then(1 - pl.col("label")).otherwise("label")
    )
    assert figures(flipped.cast({"label": pl.UInt8})) == {"mislabelled": 1}
    assert figures(pl.concat([frame.slice(1, 1), frame.head(1), frame.slice(2)])) == {"unordered": 1}


def test_an_event_without_its_fate_and_a_good_one_that_was_refused_are_found(run, tmp_path):
    fates = read_fates(run[1] / "out/fates")

    def of(changed, name):
        shutil.rmtree(tmp_path / "fates", ignore_errors=True)
        (tmp_path / "fates").mkdir()
        write_whole_frame(tmp_path / "fates/part.parquet", changed)
        found = _audit(run, out=tmp_path)
        assert not found["exact"]
        return found[name]

    late = (pl.col("fate") == "late") & (pl.col("stream") == "impressions")
    assert of(fates.slice(1), "unaccounted") == 1
    assert of(pl.concat([fates, fates.head(1).with_columns(line=pl.lit(10**6, pl.Int64))]), "unaccounted") == 1
    assert of(fates.with_columns(fate=pl.when(late).then(pl.lit("orphan")).otherwise("fate")), "unaccounted") > 3
    assert (
        of(fates.with_columns(fate=pl.when(late).then(pl.lit("dead_lettered")).otherwise("fate")), "wrongly_refused")
        > 3
    )
