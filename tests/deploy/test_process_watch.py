"""Watching processes, and how growth is told from noise."""

import subprocess
import sys
import time

import numpy as np
import polars as pl
import pytest

from deploy.live.process_watch import SAMPLES, ProcessWatch, files_in, growth, robust_slope


def samples(rss_mb: list[float], name: str = "train", every_s: float = 5) -> pl.DataFrame:
    rows = [(every_s * n, name, 7, value, 9, 3, n * 1.0) for n, value in enumerate(rss_mb)]
    return pl.DataFrame(rows, schema=SAMPLES, orient="row")


def test_a_leak_is_told_as_what_an_hour_adds():
    found = growth(samples([100 + 0.1 * n for n in range(100)]), 0, 500)
    assert found["train"]["rss_mb_per_hour"] == pytest.approx(72)
    assert found["train"]["fds_per_hour"] == found["train"]["threads_per_hour"] == 0
    assert found["train"]["cpu"] == pytest.approx(0.2)


def test_what_fills_up_before_the_end_of_the_warm_up_is_no_growth():
    filling = [min(500.0, 10.0 * n) for n in range(200)]
    assert growth(samples(filling), 0, 300)["train"]["rss_mb_per_hour"] > 1000
    assert growth(samples(filling), 300, 1000)["train"]["rss_mb_per_hour"] == 0


def test_noise_and_spikes_do_not_look_like_a_leak():
    rng = np.random.default_rng(3)
    noisy = 300 + rng.normal(0, 2, 120)
    noisy[rng.integers(0, 120, 25)] += 400
    assert abs(growth(samples(noisy.tolist()), 0, 600)["train"]["rss_mb_per_hour"]) < 20


def test_too_few_points_have_no_slope():
    assert robust_slope([], []) == robust_slope([1], [5]) == robust_slope([1, 1], [5, 6]) == 0


def test_this_process_and_its_children_are_seen():
    words = [sys.executable, "-c", "import time; time.sleep(60)", "deploy.cli", "ingest"]
    with subprocess.Popen(words) as child:
        with ProcessWatch("tests", 0.05) as watch:
            deadline = time.monotonic() + 10
            while "ingest" not in watch.samples["name"].to_list():
                assert time.monotonic() < deadline
                time.sleep(0.05)
        child.kill()
    seen = watch.samples
    assert seen.schema == SAMPLES
    assert set(seen.filter(name="ingest")["pid"]) == {child.pid}
    assert seen.filter(name="tests")["rss_mb"].min() > 10


def test_files_are_counted_on_all_levels(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "x").touch()
    (tmp_path / "a" / "y").touch()
    assert files_in([tmp_path / "a", tmp_path / "none"]) == {"a": 2, "none": 0}
