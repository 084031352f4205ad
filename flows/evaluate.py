"""Held-out examples are judged: light as the scorer answered, booster and linear from the checkpoint, beside the truth.

answers ──────┐
example log ──┼─▶ predictions.parquet ─▶ figures a model, a segment, a calibration bin
checkpoint ───┤
truth ────────┘
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from contracts.app import App
from contracts.errors import ContractError
from contracts.segments import FeatureBatch
from contracts.weights import Weights
from flows.run_folder import RunFolder
from model.checkpoint import load_newest
from model.metrics import summarise
from model.published import PublishedLight
from model.tensors import to_batch
from nodes.cotrain import CoTrainer
from nodes.delayed import final_labels, first_rows
from nodes.example_log import ExampleDirectory

#: Model -> its column in predictions.parquet.
MODELS = {"light": "p_light", "booster": "p_booster", "linear": "p_linear", "prior": "p_prior", "truth": "p_truth"}


def held_out(examples: Path, from_ms: int, schema_id: str) -> Iterator[FeatureBatch]:
    """The segments of the example log from event time `from_ms` on, the first one cut to begin there.

    Raises:
        SchemaMismatchError: the log is another app's.
    """
    for batch in ExampleDirectory(examples).read(0, schema_id):
        frame = batch.frame.filter(pl.col("event_time_ms") >= from_ms)
        if frame.height:
            yield FeatureBatch(frame, batch.next_row - frame.height, batch.schema_id)


def predict(app: App, examples: Path, checkpoints: Path, from_ms: int, prior: float) -> pl.DataFrame:
    """One row a held-out impression: what the booster and the linear yardstick of the newest checkpoint give it.

    Columns: impression_id, user_id, item_id, event_time_ms, label, weight (how many impressions it stands for: more
    than 1 where negatives were sampled), p_booster, p_linear, p_prior.

    Raises:
        ContractError: nothing is held out.
        CorruptError: no checkpoint can be read.
    """
    both = CoTrainer(app)
    both.restore(load_newest(checkpoints, app.schema_id))
    parts: list[pl.DataFrame] = []
    for batch in held_out(examples, from_ms, app.schema_id):
        booster = both.trainer.predict(batch.frame, averaged=True).booster
        linear = None if both.linear is None else both.linear.predict(batch.frame)
        parts.append(
            batch.frame.select("impression_id", "user_id", "item_id", "event_time_ms", "label", "role").with_columns(
                weight=1 / batch.frame["kept_rate"].cast(pl.Float64),
                p_booster=_column(booster),
                p_linear=_column(linear),
                p_prior=pl.lit(prior, pl.Float64),
            )
        )
    if not parts:
        raise ContractError(
            f"{examples}: holds no example from event time {from_ms} ms on, so there is nothing to judge"
        )
    return final_labels(pl.concat(parts), app.config.labels).drop("role")


def _column(p: np.ndarray | None) -> pl.Series | pl.Expr:
    """Probabilities as a column; nulls where there is no such net."""
    return pl.lit(None, pl.Float64) if p is None else pl.Series(p, dtype=pl.Float64)


def logit_difference(app: App, examples: Path, from_ms: int, weights: Weights, scored: pl.DataFrame) -> float:
    """Law 5 on this run: the largest |scorer's logit - torch's| over the held-out examples, on the same weights.

    Args:
        app: the app.
        examples: the example log.
        from_ms: where the held-out part begins.
        weights: the published version, dequantised.
        scored: impression_id, event_time_ms and logit, as the scorer gave them from requests.
    """
    light = PublishedLight(weights.arrays, app)
    worst = 0.0
    logits = scored.select("impression_id", "event_time_ms", scorer="logit").drop_nulls("scorer")
    for batch in held_out(examples, from_ms, app.schema_id):
        torch_logit = light.logits(to_batch(batch.frame, app))
        both = (
            first_rows(batch.frame.with_columns(torch=pl.Series(torch_logit)), app.config.labels)
            .select("impression_id", "event_time_ms", "torch")
            .join(logits, on=["impression_id", "event_time_ms"], how="inner")
        )
        if both.height:
            worst = max(worst, float(np.abs(both["torch"].to_numpy() - both["scorer"].to_numpy()).max()))
    return worst


def figures(predictions: pl.DataFrame) -> dict[str, dict[str, Any]]:
    """AUC, GAUC, logloss, NE, calibration (and expected logloss where the truth is known) of every model.

    Where negatives were sampled each row counts for those that it stands for, so that figures are those of all traffic.
    """
    label, user, weight = predictions["label"].to_numpy(), predictions["user_id"], _weight(predictions).to_numpy()
    truth = predictions["p_truth"].to_numpy() if _known(predictions, "p_truth") else None
    return {
        model: summarise(label, predictions[column].to_numpy(), user=user, weight=weight, truth=truth)
        for model, column in MODELS.items()
        if _known(predictions, column)
    }


def by_segment(predictions: pl.DataFrame, columns: Sequence[str], *, at_least: int = 200) -> list[dict[str, Any]]:
    """`figures` for each value of each segment column that has `at_least` rows."""
    rows: list[dict[str, Any]] = []
    for column in columns:
        for (value,), part in sorted(predictions.group_by(column), key=lambda pair: -pair[1].height):
            if part.height >= at_least and part["label"].n_unique() == 2:
                rows.append(
                    {
                        "segment": column,
                        "value": value,
                        "rows": part.height,
                        "ctr": float(np.average(part["label"].to_numpy(), weights=_weight(part).to_numpy())),
                        **figures(part),
                    }
                )
    return rows


def calibration_bins(predictions: pl.DataFrame, num_bins: int) -> dict[str, list[dict[str, float]]]:
    """Mean prediction and observed CTR in bins of equal size, for light, booster and linear."""
    bins: dict[str, list[dict[str, float]]] = {}
    weight = pl.col("weight")
    for model in ("light", "booster", "linear"):
        if not _known(predictions, MODELS[model]):
            continue
        column = pl.col(MODELS[model])
        bins[model] = (
            predictions.with_columns(_weight(predictions))
            .sort(column)
            .with_columns(bin=pl.int_range(pl.len()) * num_bins // pl.len())
            .group_by("bin")
            .agg(
                predicted=(column * weight).sum() / weight.sum(),
                observed=(pl.col("label") * weight).sum() / weight.sum(),
                rows=pl.len(),
            )
            .sort("bin")
            .drop("bin")
            .to_dicts()
        )
    return bins


def _weight(predictions: pl.DataFrame) -> pl.Series:
    """How many impressions each row stands for; 1 where that is not said."""
    if "weight" in predictions.columns:
        return predictions["weight"]
    return pl.Series("weight", np.ones(predictions.height))


def _known(predictions: pl.DataFrame, column: str) -> bool:
    return column in predictions.columns and predictions[column].null_count() < predictions.height


def run(app: App, run: RunFolder) -> dict[str, Any]:
    """Judge a run's predictions again from its files alone.

    Returns:
        `test` (figures a model), `segments` and `calibration`, as `rocket demo` put them into evaluation.json.

    Raises:
        ContractError: the folder holds no predictions, or none by the light net.
    """
    if not run.predictions.is_file():
        raise ContractError(f"{run.predictions}: is missing; `rocket demo --out {run.root}` writes it")
    held = pl.read_parquet(run.predictions)
    predictions = held.filter(pl.col("p_light").is_not_null())  # every model is judged on the rows that were answered
    if not predictions.height:
        raise ContractError(
            f"{run.predictions}: the scorer gave none of the {held.height:,} held-out impressions a prediction; "
            f"{run.answers} says why it refused them"
        )
    return {
        "test": figures(predictions),
        "segments": by_segment(predictions, [s for s in app.config.evaluate.segments if s in predictions.columns]),
        "calibration": calibration_bins(predictions, app.config.evaluate.calibration_bins),
    }
