"""The live demo, small: real Kafka and Valkey, every process, and a count of every event at the end."""

import json

import polars as pl
import pytest

from deploy.live import demo
from flows.progress import Silent
from flows.run_folder import RunFolder
from flows.settings import load_app_with_settings

_SETS = [
    *demo.LIVE,
    "name=adsim-live-test",
    "labels.wait_s=3",
    "live.idle_s=2",
    "publish.gate.window_rows=128",
    "publish.gate.max_logloss_increase=9.0",
    "publish.gate.calibration=[0.0, 100.0]",
]


@pytest.fixture(scope="module")
def run(kafka, valkey_url, tmp_path_factory):
    folder = tmp_path_factory.mktemp("live")
    plan = demo.Plan(seconds=12, per_s=250, seed=1)
    stack = {"kafka": kafka.brokers, "redis": valkey_url}
    summary = demo.run(load_app_with_settings("adsim", _SETS), folder, stack, plan, _SETS, Silent())
    return RunFolder(folder), summary


def test_nothing_is_lost_doubled_or_left_unanswered(run):
    _, summary = run
    live = summary["live"]
    assert (live["exact"], live["lost"], live["doubled"], live["unanswered"]) == (True, 0, 0, 0)
    assert summary["audit"]["examples"] == summary["audit"]["trained"] + summary["audit"]["pending"] == 3000
    assert live["requests"] > 300
    assert live["versions"] >= 1
    assert 0 < live["freshness_after_wait_s_p50"] <= live["freshness_after_wait_s_p99"]


def test_the_ledger_has_every_event_and_the_use_of_every_example(run):
    folder, summary = run
    ledger = pl.read_parquet(folder.ledger)
    assert ledger.height == sum(rows["read"] for rows in summary["audit"]["streams"].values())
    assert ledger["use"].value_counts().filter(use="trained")["count"].item() == summary["audit"]["trained"]
    assert json.loads(folder.summary.read_text())["live"] == summary["live"]


def test_the_page_shows_the_run_without_an_outside_host(run):
    folder, _ = run
    page = folder.report.read_text()
    assert "each example stands in the log once" in page
    assert "src=" not in page
    assert "<script" not in page
