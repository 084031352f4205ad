"""The report shows what the figures say, and nothing from outside."""

import re
from pathlib import Path

import polars as pl
import pytest

from contracts.errors import ContractError
from contracts.events import DEAD_LETTERS
from flows.report import write_report
from flows.run_folder import RunFolder


def _figures(auc: float) -> dict[str, float | None]:
    return {"auc": auc, "gauc": auc - 0.1, "logloss": 0.7 - auc / 2, "ne": 0.9, "calibration": 1.01}


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path)
    test = {"light": _figures(0.74), "booster": _figures(0.76), "linear": _figures(0.71), "prior": _figures(0.5)}
    folder.write_json(
        "summary.json",
        {
            "app": "adsim",
            "schema_id": "0123456789abcdef",
            "rows": {"examples": 900, "trained": 700, "pending": 20, "held_out": 180, "sampled_out": 3, "waiting": 2},
            "test": test,
            "train": {"examples": 700, "checkpoints": 2, "versions": 1, "wall_seconds": 3.2, "cpu_seconds": 3.0},
            "serve": {
                "requests": 60, "candidates": 180, "p50_us": 900.0, "p99_us": 2100.0, "model_version": 1,
                "max_abs_logit_diff": 2e-7,
            },
            "peak_rss_mb": 1234.5,
        },
    )  # fmt: skip
    bins = [{"predicted": 0.01 * i, "observed": 0.011 * i, "rows": 9} for i in range(1, 11)]
    segment = {"segment": "device", "value": "<b>tv</b>", "rows": 400, "ctr": 0.05, **test}
    folder.write_json(
        "evaluation.json", {"test": test, "segments": [segment], "calibration": {"light": bins, "booster": bins}}
    )
    curve = [
        {
            "window_ms": 1_700_000_000_000 + hour * 3_600_000,
            **{
                name: {"rows": 500, "logloss": 0.3 - 0.01 * hour + shift, "auc": 0.7 + 0.005 * hour, "calibration": 1.0}
                for name, shift in (("light", 0.0), ("booster", -0.01), ("linear", 0.02))
            },
        }
        for hour in range(12)
    ]
    gate = {"logloss": 0.21, "live_logloss": None, "calibration": 1.02}
    good = {"outcome": "published", "version": 1, "step": 4, "position": 512, "figures": gate, "reason": "passed"}
    held = {**good, "outcome": "held", "version": None, "reason": "calibration 3.1 is outside 0.7 to 1.4"}
    folder.write_json("train.json", {"decisions": [good, held], "curve": curve, "steps": 7})
    fates = {"read": 1000, "accepted": 905, "duplicate": 40, "late": 20, "orphan": 5, "dead_lettered": 30}
    folder.write_json(
        "run.json",
        {
            "description": "A test.",
            "cut_ms": 1_700_040_000_000,
            "ingest": {"streams": {"impressions": fates, "clicks": fates}},
            "stages": {"ingest": {"rows": 2000, "seconds": 1.5, "cpu_seconds": 1.4}},
        },
    )
    letters = pl.DataFrame(
        {name: [None, None] for name in DEAD_LETTERS} | {"reason": ["not_json", "bad_time"]}, schema=DEAD_LETTERS
    )
    (folder.ingest / "dead_letters").mkdir(parents=True)
    letters.write_parquet(folder.ingest / "dead_letters" / "part-0.parquet")
    return folder


def test_the_page_holds_every_figure_and_escapes_what_users_wrote(run: RunFolder) -> None:
    write_report(run)
    page = run.report.read_text()
    for wanted in ("0.7400", "0.7600", "schema <code>0123456789abcdef", "calibration 3.1 is outside", "not_json"):
        assert wanted in page, wanted
    assert "&lt;b&gt;tv&lt;/b&gt;" in page
    assert "<b>tv</b>" not in page
    assert "<script" not in page
    assert "http" not in page.replace("http://www.w3.org", "").replace("https://www.w3.org", "")


def test_the_same_figures_give_the_same_page(run: RunFolder) -> None:
    write_report(run)
    first = run.report.read_bytes()
    write_report(run)
    assert run.report.read_bytes() == first


def test_a_missing_figure_shows_as_a_dash_not_a_nan(run: RunFolder) -> None:
    summary = run.read_json("summary.json")
    summary["test"]["prior"]["auc"] = None
    run.write_json("summary.json", summary)
    write_report(run)
    page = run.report.read_text()
    assert "<td>-</td>" in page
    assert not re.search(r">\s*(nan|None)\s*<", page)


def test_what_training_watched_stands_in_the_page(run: RunFolder) -> None:
    train = run.read_json("train.json")
    looks = [
        {"rows": 64.0 * at, "hint_share": 0.1 * at, "grad_light_light": 0.5, "new_shared": 0.25} for at in range(3)
    ]
    write_report(run)
    assert "What each term of the loss does" not in run.report.read_text()
    run.write_json("train.json", train | {"watch": looks})
    write_report(run)
    page = run.report.read_text()
    for wanted in (
        "What each term of the loss does",
        "<td>0.2000</td>",
        "gradient of own label on light",
        "shared table",
    ):
        assert wanted in page, wanted


def test_a_folder_without_figures_says_what_writes_them(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="rocket demo"):
        write_report(RunFolder(tmp_path))
