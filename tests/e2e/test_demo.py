"""The main job, small: its files agree with each other, and anyone can recompute the summary from them."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from flows.run_folder import RunFolder

pytestmark = pytest.mark.e2e


def rocket(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "deploy.cli", *words], capture_output=True, text=True, check=False, timeout=280
    )


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, dict]:
    out = tmp_path_factory.mktemp("demo")
    done = rocket("demo", "--out", str(out), "--impressions", "30000", "--set", "publish.every_rows=8192", "--json")
    assert done.returncode == 0, done.stderr[-3000:]
    return RunFolder(out), json.loads(done.stdout.splitlines()[-1])


def test_the_last_line_of_stdout_is_the_summary(demo: tuple[RunFolder, dict]) -> None:
    run, summary = demo
    assert json.loads(run.summary.read_text()) == summary


def test_every_event_read_is_in_the_ledger_with_one_fate(demo: tuple[RunFolder, dict]) -> None:
    run, summary = demo
    ledger, rows = pl.read_parquet(run.ledger), summary["rows"]
    lines = sum((run.events / name).read_bytes().count(b"\n") for name in ("impressions.ndjson", "clicks.ndjson"))
    assert ledger.height == lines == rows["impressions_read"] + rows["clicks_read"]
    assert ledger.select("stream", "origin", "line").is_unique().all()
    fates = dict(ledger.group_by("fate").len().iter_rows())
    for fate in ("accepted", "duplicate", "late", "orphan", "dead_lettered"):
        assert fates.get(fate, 0) == rows[fate] > 0, fate


def test_accepted_impressions_become_examples_that_are_trained_pending_or_held_out(
    demo: tuple[RunFolder, dict],
) -> None:
    run, summary = demo
    rows = summary["rows"]
    shown = pl.read_parquet(run.ledger).filter((pl.col("stream") == "impressions") & (pl.col("fate") == "accepted"))
    outcomes = dict(shown.group_by("outcome").len().iter_rows())
    assert outcomes.get("example", 0) == rows["examples"]
    assert shown.height == rows["examples"] + rows["sampled_out"] + rows["waiting"]
    used = dict(shown.group_by("use").len().iter_rows())
    for use in ("trained", "pending", "held_out"):
        assert used.get(use, 0) == rows[use]
    assert rows["trained"] + rows["pending"] + rows["held_out"] == rows["examples"]


def test_the_test_figures_follow_from_the_predictions(demo: tuple[RunFolder, dict]) -> None:
    run, summary = demo
    rows = pl.read_parquet(run.predictions)
    assert rows.columns[:2] == ["impression_id", "user_id"]
    assert rows.height == summary["rows"]["held_out"]
    y, p = rows["label"].to_numpy().astype(float), rows["p_light"].to_numpy()
    assert not np.isnan(p).any(), "every held-out impression was asked for and scored"
    logloss = -np.mean(y * np.log(p) + (1 - y) * np.log(1 - p))
    assert summary["test"]["light"]["logloss"] == pytest.approx(logloss, rel=1e-9)
    assert summary["test"]["light"]["calibration"] == pytest.approx(p.mean() / y.mean(), rel=1e-9)
    ranks = pl.Series(p).rank("average").to_numpy()
    positives = y.sum()
    auc = (ranks[y == 1].sum() - positives * (positives + 1) / 2) / (positives * (len(y) - positives))
    assert summary["test"]["light"]["auc"] == pytest.approx(auc, rel=1e-9)
    assert set(summary["test"]) == {"light", "booster", "linear", "prior", "truth"}
    assert rows["model_version"].unique().to_list() == [summary["serve"]["model_version"]]


def test_the_scorer_gives_torchs_logits_on_the_published_weights(demo: tuple[RunFolder, dict]) -> None:
    assert demo[1]["serve"]["max_abs_logit_diff"] <= 1e-5


def test_the_report_is_one_self_contained_page(demo: tuple[RunFolder, dict]) -> None:
    page = demo[0].report.read_text()
    assert "<script" not in page
    assert not re.findall(r'(?:src|href)="(?!#)([^"]+)"', page)
    assert page.count("<svg") >= 6


def test_evaluate_and_report_work_again_from_the_files_alone(demo: tuple[RunFolder, dict]) -> None:
    run, summary = demo
    judged = rocket("evaluate", "--run", str(run.root), "--json")
    assert judged.returncode == 0, judged.stderr
    again = json.loads(judged.stdout.splitlines()[-1])["test"]
    assert again["light"] == summary["test"]["light"]
    before = run.report.read_bytes()
    run.report.unlink()
    assert rocket("report", "--run", str(run.root)).returncode == 0
    assert run.report.read_bytes() == before


def test_a_later_command_scores_with_the_demos_weights(demo: tuple[RunFolder, dict], tmp_path: Path) -> None:
    run, summary = demo
    done = rocket(
        *("score", "--requests", str(run.requests), "--weights", str(run.weights)),
        *("--out", str(tmp_path / "a.ndjson"), "--json"),
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["model_version"] == summary["serve"]["model_version"]
    again = [json.loads(line)["scores"] for line in (tmp_path / "a.ndjson").read_text().splitlines()]
    assert again == [json.loads(line)["scores"] for line in run.answers.read_text().splitlines()]


def test_an_unknown_run_is_one_clear_sentence(tmp_path: Path) -> None:
    done = rocket("report", "--run", str(tmp_path / "nowhere"))
    assert done.returncode == 1
    assert done.stderr.startswith("rocket: ")
    assert "Traceback" not in done.stderr
