"""LightGBM on the same rows: gradient-boosted trees over the fields that a net sees."""

import importlib
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from contracts.app import App
from contracts.errors import RocketError
from deploy.benches.quality_study.learn import Learnt
from deploy.benches.quality_study.rows import Rows

#: Usual for CTR data; the number of trees is chosen on the tuning days.
TREES: Mapping[str, Any] = {
    "objective": "binary",
    "learning_rate": 0.05,
    "num_leaves": 63,
    "min_data_in_leaf": 100,
    "feature_fraction": 0.5,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "lambda_l2": 10.0,
    "cat_smooth": 30.0,
    "cat_l2": 10.0,
    "min_data_per_group": 50,
    "max_cat_threshold": 64,
    "num_threads": 1,
    "verbosity": -1,
}
_MOST_TREES, _PATIENCE = 600, 40


def learn_trees(app: App, rows: Rows, seed: int, settings: Mapping[str, Any] | None = None) -> Learnt:
    """Trees over the id and dense features of `app` (ids as categories), and of each sequence its length.

    The number of trees is what early stopping finds when it trains before the tuning days and is judged on them; then
    all rows before the test are learnt. Trees do not go on learning: the test rows are judged frozen only.

    Raises:
        RocketError: LightGBM is not installed.
    """
    try:
        lightgbm = importlib.import_module("lightgbm")
    except ImportError as error:
        raise RocketError(
            "this stage is measured against LightGBM; install it: pip install 'rocket-ctr[bench]'"
        ) from error
    inputs_BX, categories = _inputs(app, rows.frame)
    label_B = rows.frame["label"].to_numpy()
    chosen = {**TREES, **(settings or {}), "seed": seed}

    def dataset(stop: int) -> Any:
        return lightgbm.Dataset(inputs_BX[:stop], label_B[:stop], categorical_feature=categories, free_raw_data=False)

    began = time.process_time()
    first = dataset(rows.tuning)
    judged = lightgbm.Dataset(inputs_BX[rows.tuning : rows.cut], label_B[rows.tuning : rows.cut], reference=first)
    stop = lightgbm.early_stopping(_PATIENCE, verbose=False)
    tuned = lightgbm.train(chosen, first, _MOST_TREES, valid_sets=[judged], callbacks=[stop])
    tuning = np.asarray(tuned.predict(inputs_BX[rows.tuning : rows.cut]))
    trees = lightgbm.train(chosen, dataset(rows.cut), max(tuned.best_iteration, 1))
    cpu_s = time.process_time() - began
    frozen = np.asarray(trees.predict(inputs_BX[rows.cut :]))
    return Learnt({"light": frozen}, {}, {"light": tuning}, cpu_s)


def _inputs(app: App, frame: pl.DataFrame) -> tuple[npt.NDArray[np.float32], list[int]]:
    """One column a feature, and which of them are categories."""
    layout = app.layout
    columns = [frame[feature.name].to_numpy() for feature in (*layout.ids, *layout.dense)]
    columns += [frame[feature.name].list.len().to_numpy() for feature in layout.sequences]
    return np.stack(columns, axis=1).astype(np.float32), list(range(len(layout.ids)))
