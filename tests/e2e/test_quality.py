"""What the demos promise, on whole runs: the nets' order, their calibration, the ledger, the memory.

The figures have wide margins over their bounds, so no bound hangs on the seed.
"""

import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

pytestmark = pytest.mark.e2e


def demo(out: Path, *words: str) -> dict:
    done = subprocess.run(
        [sys.executable, "-m", "deploy.cli", "demo", "--out", str(out), "--json", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_on_the_real_log_light_beats_linear_and_the_booster_beats_light(kuairand_dir: Path, tmp_path: Path) -> None:
    summary = demo(tmp_path, "--app", "kuairand", "--data", str(kuairand_dir))
    test = summary["test"]
    assert test["light"]["auc"] >= test["linear"]["auc"] + 0.005
    assert test["light"]["logloss"] < test["linear"]["logloss"]
    assert test["booster"]["auc"] > test["light"]["auc"]
    assert test["booster"]["logloss"] < test["light"]["logloss"]
    assert 0.95 <= test["light"]["calibration"] <= 1.05
    ledger = pl.read_parquet(tmp_path / "ledger.parquet")
    assert ledger.filter(pl.col("stream") == "impressions").height == 171_671
    assert summary["serve"]["max_abs_logit_diff"] <= 1e-5
    assert summary["peak_rss_mb"] <= 2500


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)])
def test_on_simulated_ads_each_net_comes_closer_to_the_truth(seed: int, tmp_path: Path) -> None:
    summary = demo(tmp_path, "--set", f"train.seed={seed}")
    test = summary["test"]
    loss = {model: test[model]["expected_logloss"] for model in test}
    assert loss["truth"] < loss["booster"] < loss["light"] < loss["linear"] < loss["prior"]
    assert test["light"]["auc"] - 0.5 >= 0.8 * (test["truth"]["auc"] - 0.5)
    assert summary["train"]["checkpoints"] >= 3
    assert summary["train"]["versions"] >= 3
    assert summary["peak_rss_mb"] <= 2500
