"""The page of a live run shows each version's way to the scorer, and what the gate held."""

import json
from pathlib import Path

import polars as pl

from contracts.app import App
from contracts.weights import WeightManifest
from flows import train
from flows.live_report import write_live_report
from flows.run_folder import RunFolder
from flows.watch_report import watch_section, watched
from nodes.freshness import Freshness, read_versions, settle_ms, summed
from tests.random_examples import random_examples, small_app, write_log

DUE_MS = 1_000_000


def write_page(folder: RunFolder, app: App) -> str:
    """The page of a run that published version 1, with a candidate held."""
    figures = summed(read_versions(folder.versions))
    held = {"at_ms": DUE_MS, "position": 77, "kind": "labels", "reason": "the labels of <window> are wrong"}
    live = {
        "impressions_per_s": 10.0, "seconds": 5.0, "lost": 0, "doubled": 0, "longest_s_between_versions": 2.0,
        **{name: figures[name] for name in figures if name != "examples"},
    }  # fmt: skip
    audit = {"exact": True, "streams": {}, "examples": 2, "lost": 0, "doubled": 0, "mislabelled": 0}
    requests = {"requests": 2, "unanswered": 0, "answer_ms_p50": 1.0, "answer_ms_p99": 2.0}
    summary = {
        "app": "adsim", "schema_id": app.schema_id, "live": live, "requests": requests, "audit": audit,
        "held": [held], "peak_rss_mb": 1.0,
    }  # fmt: skip
    folder.write_json("summary.json", summary)
    asked = pl.DataFrame(
        {"asked_ms": [DUE_MS, DUE_MS + 4000], "answered_ms": [DUE_MS + 1, DUE_MS + 4700], "model_version": [None, 1]}
    )
    write_live_report(folder, app, asked)
    return folder.report.read_text()


def test_each_version_says_how_long_it_learnt_waited_at_the_gate_and_was_served(adsim: App, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.checkpoints.mkdir()
    fresh, event_ms = Freshness(adsim, folder.versions), DUE_MS - settle_ms(adsim)
    fresh.learnt(pl.DataFrame({"_row": [0, 1], "event_time_ms": [event_ms - 1000, event_ms]}))
    gate: dict[str, float | str | None] = {"gate_wait_s": 1.5}
    fresh.published(
        WeightManifest(
            model="adsim", version=1, schema_id=adsim.schema_id, app="adsim", trained_until_ms=event_ms, position=2,
            step=1, epoch=1, created_ms=DUE_MS + 4000, gate=gate, blobs=(),
        )
    )  # fmt: skip
    (one,) = read_versions(folder.versions)
    assert (one.after_wait_s, one.gate_wait_s) == (4.0, 1.5), "the gate's wait is part of it"
    figures = summed([one])
    assert figures["gate_wait_s_p50"] == 1.5
    assert 4.0 <= figures["freshness_after_wait_s_p50"] <= 5.1
    page = write_page(folder, adsim)
    cells = "".join(f"<td>{value} s</td>" for value in (2.5, 1.5, 4.0, 0.7))
    assert cells in page, "due to offered, gate, due to published, published to first answer"
    assert "<td>77</td><td>labels</td>" in page
    assert "the labels of &lt;window&gt; are wrong" in page


def test_a_line_from_before_there_was_a_gate_wait_is_read(adsim: App, tmp_path: Path) -> None:
    path = tmp_path / "versions.ndjson"
    path.write_text(
        '{"version":1,"epoch":1,"position":2,"step":1,"trained_until_ms":1,"created_ms":2,"freshness_s":1.0,'
        '"after_wait_s":1.0,"rows":2,"wait_s_p50":null,"wait_s_p99":null,"waits":{}}\n'
    )
    assert read_versions(path)[0].gate_wait_s is None
    assert summed(read_versions(path))["gate_wait_s_p50"] is None


def test_what_training_watched_is_told_as_in_the_report_of_files(tmp_path: Path) -> None:
    app = small_app(tmp_path / "app", {"rocket": {"watch_every": 2}})
    folder, log = RunFolder(tmp_path / "run"), write_log(tmp_path / "log", app, random_examples(app, 640))
    folder.checkpoints.mkdir(parents=True)
    assert watched(folder.checkpoints) == []
    assert "What each term of the loss does" not in write_page(folder, app)
    seen = train.run(app, log, folder.checkpoints)["watch"]
    assert watched(folder.checkpoints) == seen
    section = watch_section(seen)
    assert section.count("<svg") >= 3
    assert section in write_page(folder, app)
    newest, before, *_ = sorted(folder.checkpoints.glob("checkpoint-*"), reverse=True)
    (newest / "state.json").write_bytes(b"{}")
    assert (
        watched(folder.checkpoints) == json.loads((before / "state.json").read_bytes())["trainer"]["watch"]["history"]
    )
