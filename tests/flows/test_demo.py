"""The whole loop on small events of one's own."""

import random
from pathlib import Path

import polars as pl
import pytest

from contracts.app import App, load_app
from contracts.errors import ContractError
from flows import demo
from flows.progress import Silent
from tests.flows.ingest_files import click, impression, write_lines

LAX = {"publish": {"gate": {"window_rows": 64, "max_logloss_increase": 9.0, "calibration": [0.001, 999.0]}}}


def events(folder: Path) -> Path:
    """900 impressions over 15 hours, of which the last 20 bear ids that were held out 90 minutes before."""
    draw = random.Random(3)
    shown = [(n, n * 60.0) for n in range(880)] + [(n, (n + 90) * 60.0 + 1) for n in range(790, 810)]
    rows = sorted(shown, key=lambda row: row[1])
    lines = [impression(n, at, item_id=f"a{draw.randrange(5)}") for n, at in rows]
    clicks = [click(n, n, at + 5) for n, at in rows if draw.random() < 0.3]
    write_lines(folder / "impressions.ndjson", lines)
    write_lines(folder / "clicks.ndjson", clicks)
    return folder


def small(overrides: dict[str, dict[str, object]]) -> App:
    return load_app("adsim", LAX | overrides)


def test_an_id_held_out_twice_is_judged_as_two_impressions(tmp_path: Path) -> None:
    data, out = events(tmp_path / "data"), tmp_path / "run"
    summary = demo.run(small({"train": {"batch_rows": 64}}), out, Silent(), data=data)
    predictions = pl.read_parquet(out / "predictions.parquet")
    assert predictions.height == summary["rows"]["held_out"] == summary["serve"]["candidates"]
    assert predictions["impression_id"].n_unique() == predictions.height - 20
    assert predictions["p_light"].null_count() == 0
    assert summary["serve"]["max_abs_logit_diff"] <= 1e-5


def test_without_a_version_it_says_why(tmp_path: Path) -> None:
    data = events(tmp_path / "data")
    with pytest.raises(ContractError, match=r"only \d+ examples to train on, fewer than one minibatch of 4,096"):
        demo.run(small({"train": {"batch_rows": 4096}}), tmp_path / "few", Silent(), data=data)
    tight = {"publish": {"gate": {"window_rows": 64, "calibration": [0.0, 0.000001]}}, "train": {"batch_rows": 64}}
    with pytest.raises(ContractError, match=r"no version was published.*calibration .* is outside"):
        demo.run(small(tight), tmp_path / "held", Silent(), data=data)
