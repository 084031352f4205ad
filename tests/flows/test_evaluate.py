"""Figures by model, by segment and by calibration bin, against plain arithmetic."""

import numpy as np
import polars as pl
import pytest

from contracts.app import App
from contracts.errors import ContractError
from flows import evaluate
from flows.run_folder import RunFolder


@pytest.fixture(scope="module")
def predictions() -> pl.DataFrame:
    rng = np.random.default_rng(3)
    truth = rng.beta(1, 9, 2000)
    return pl.DataFrame(
        {
            "impression_id": [f"i{n}" for n in range(2000)],
            "user_id": [f"u{n % 50}" for n in range(2000)],
            "event_time_ms": np.arange(2000),
            "label": (rng.random(2000) < truth).astype(np.uint8),
            "p_light": np.clip(truth * 1.1, 0.001, 0.999),
            "p_booster": np.clip(truth, 0.001, 0.999),
            "p_linear": np.full(2000, 0.1),
            "p_prior": np.full(2000, 0.1),
            "p_truth": truth,
            "device": ["tv" if n % 20 == 0 else "mobile" for n in range(2000)],
        },
        schema_overrides={"label": pl.UInt8},
    )


def test_the_truth_has_the_least_expected_logloss(predictions: pl.DataFrame) -> None:
    got = evaluate.figures(predictions)
    assert set(got) == {"light", "booster", "linear", "prior", "truth"}
    ranked = sorted(got, key=lambda model: got[model]["expected_logloss"])
    assert ranked[0] == "truth"
    assert got["light"]["expected_logloss"] < got["prior"]["expected_logloss"]


def test_models_without_predictions_are_left_out(predictions: pl.DataFrame) -> None:
    without = predictions.with_columns(p_truth=pl.lit(None, pl.Float64)).drop("p_linear")
    got = evaluate.figures(without)
    assert set(got) == {"light", "booster", "prior"}
    assert all(row.get("expected_logloss") is None for row in got.values())


def test_segments_too_small_to_judge_are_left_out(predictions: pl.DataFrame) -> None:
    rows = evaluate.by_segment(predictions, ["device"])
    assert [(row["value"], row["rows"]) for row in rows] == [("mobile", 1900)]
    assert rows[0]["ctr"] == pytest.approx(predictions.filter(pl.col("device") == "mobile")["label"].mean())
    both = evaluate.by_segment(predictions, ["device"], at_least=50)
    assert sum(row["rows"] for row in both) == predictions.height


def test_calibration_bins_hold_every_row_once_in_ascending_order(predictions: pl.DataFrame) -> None:
    bins = evaluate.calibration_bins(predictions, 7)["light"]
    assert sum(b["rows"] for b in bins) == predictions.height
    assert max(b["rows"] for b in bins) - min(b["rows"] for b in bins) <= 1
    predicted = [b["predicted"] for b in bins]
    assert predicted == sorted(predicted)
    clicks = sum(b["observed"] * b["rows"] for b in bins)
    assert clicks == pytest.approx(predictions["label"].sum())


def test_sampled_rows_count_for_those_that_they_stand_for(predictions: pl.DataFrame) -> None:
    kept = predictions.filter((pl.col("label") == 1) | (pl.int_range(pl.len()) % 4 == 0)).with_columns(
        weight=pl.when(pl.col("label") == 1).then(1.0).otherwise(4.0)
    )
    whole, sampled = evaluate.figures(predictions)["booster"], evaluate.figures(kept)["booster"]
    for metric in ("ctr", "auc", "logloss", "ne", "calibration", "expected_logloss"):
        assert sampled[metric] == pytest.approx(whole[metric], rel=0.06), metric
    bins = evaluate.calibration_bins(kept, 1)["booster"][0]
    assert bins["predicted"] / bins["observed"] == pytest.approx(sampled["calibration"])
    (segment,) = evaluate.by_segment(kept.with_columns(all=pl.lit("x")), ["all"])
    assert segment["ctr"] == pytest.approx(sampled["ctr"])


def test_models_are_judged_on_the_rows_that_were_answered(adsim: App, predictions: pl.DataFrame, tmp_path) -> None:
    run = RunFolder(tmp_path)
    p_light = pl.when(pl.int_range(pl.len()) % 2 == 0).then("p_light")
    predictions.with_columns(p_light=p_light).write_parquet(run.predictions)
    assert {row["rows"] for row in evaluate.run(adsim, run)["test"].values()} == {1000}
    predictions.with_columns(p_light=pl.lit(None, pl.Float64)).write_parquet(run.predictions)
    with pytest.raises(ContractError, match="none of the 2,000 held-out impressions"):
        evaluate.run(adsim, run)


def test_a_folder_without_predictions_says_what_writes_them(adsim: App, tmp_path) -> None:
    with pytest.raises(ContractError, match="rocket demo"):
        evaluate.run(adsim, RunFolder(tmp_path))
