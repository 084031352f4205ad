"""Example logs that go bad at some row, and a small app that learns them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from contracts.app import App
from tests.random_examples import random_examples, small_app

WINDOW = 256
GATE = {"window_rows": WINDOW}
Poison = Callable[[App, pl.DataFrame, np.ndarray], pl.DataFrame]


def poison_app(folder: Path, overrides: dict[str, Any] | None = None) -> App:
    """It offers a candidate every 512 rows, and publishes what the nets have learnt by then."""
    settings = {"publish": {"every_rows": 512, "gate": GATE}, "serving": {"prior_ctr": 0.12}}
    quick = {"train": {"average_rows": 0, "linear": False, "embedding_lr": 0.1, "wide_lr": 0.1}}
    return small_app(folder, settings | quick | (overrides or {}))


def rare_clicks(app: App, rows: int, seed: int = 0) -> pl.DataFrame:
    """Examples with a click in ten that hang on two features."""
    frame, rng = random_examples(app, rows, seed), np.random.default_rng(seed + 7)
    logit = np.full(rows, -3.0)
    for feature in (f for f in app.layout.light_ids if f.name in ("user_segment", "ad_category")):
        logit += np.random.default_rng(5).normal(0, 1.3, feature.rows)[frame[feature.name].to_numpy()]
    label = (rng.random(rows) < 1 / (1 + np.exp(-logit))).astype(np.uint8)
    return frame.with_columns(label=pl.Series(label))


def flipped(app: App, frame: pl.DataFrame, bad: np.ndarray) -> pl.DataFrame:
    """Labels say the opposite where `bad`."""
    del app
    return frame.with_columns(label=pl.when(pl.Series(bad)).then(1 - pl.col("label")).otherwise("label"))


def frozen(app: App, frame: pl.DataFrame, bad: np.ndarray) -> pl.DataFrame:
    """An id feature has one value where `bad`."""
    del app
    return frame.with_columns(ad_category=pl.when(pl.Series(bad)).then(pl.lit(3, pl.UInt32)).otherwise("ad_category"))


def missing(app: App, frame: pl.DataFrame, bad: np.ndarray) -> pl.DataFrame:
    """A dense feature is no longer sent where `bad`."""
    default = next(f for f in app.features if f.name == "bid_level").default
    return frame.with_columns(
        bid_level=pl.when(pl.Series(bad)).then(pl.lit(default, pl.Float32)).otherwise("bid_level")
    )


def ramp(rows: int, begin: int, gradual: int, end: int, seed: int = 0) -> np.ndarray:
    """Which rows are bad: none before `begin`, a growing share over `gradual` rows, all until `end`: bool [rows]."""
    at = np.arange(rows)
    share = np.clip((at - begin + 1) / max(gradual, 1), 0.0, 1.0) * (at >= begin) * (at < end)
    return np.random.default_rng(seed).random(rows) < share
