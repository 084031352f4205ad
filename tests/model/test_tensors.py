"""Example rows as tensors."""

import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from contracts.app import App
from contracts.errors import ContractError
from model.tensors import Batch, to_batch
from tests.random_examples import random_examples, small_app


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> App:
    return small_app(tmp_path_factory.mktemp("app") / "small")


def equal(a: Batch, b: Batch) -> bool:
    tensors = [[*batch[:2], *(t for s in batch.sequences for t in s), *batch[3:]] for batch in (a, b)]
    return all(torch.equal(x, y) for x, y in zip(*tensors, strict=True))


def test_ids_are_rows_of_the_fused_table_the_lights_first(app: App) -> None:
    frame = random_examples(app, 50)
    batch = to_batch(frame, app)
    assert batch.ids_BF[:, : len(app.layout.light_ids)].max() < app.layout.light_rows
    for position, feature in enumerate(app.layout.ids):
        expected = frame[feature.name].to_numpy().astype(np.int64) + app.layout.offsets[feature.name]
        assert batch.ids_BF[:, position].numpy().tolist() == expected.tolist()


def test_a_sequence_has_the_rows_of_the_feature_that_it_names(app: App) -> None:
    frame = random_examples(app, 50)
    sequence, feature = to_batch(frame, app).sequences[0], app.layout.sequences[0]
    offset = app.layout.offsets[feature.of or ""]
    for row, ids in enumerate(frame[feature.name].to_list()):
        start, stop = sequence.starts_B1[row : row + 2].tolist()
        assert sequence.rows_S[start:stop].tolist() == [i + offset for i in ids]


def test_a_slice_of_a_segment_equals_the_batch_of_the_sliced_frame(app: App) -> None:
    frame = random_examples(app, 100)
    whole = to_batch(frame, app)
    for start, stop in [(0, 100), (0, 7), (7, 64), (99, 100), (5, 5)]:
        assert equal(whole.slice(start, stop), to_batch(frame[start:stop], app))


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("user", pl.lit(10**6, pl.UInt32), "feature 'user' holds the bucket 1000000"),
        ("user_rate", pl.lit(math.nan, pl.Float32), "'user_rate' holds a NaN"),
        ("weight", pl.lit(-1.0, pl.Float32), "a weight is negative"),
        ("user", pl.lit(None, pl.UInt32), "column 'user' holds 20 nulls"),
        ("clicked_ads", pl.lit([10**6], pl.List(pl.UInt32)), "feature 'clicked_ads' holds the bucket"),
        ("clicked_ads", pl.lit([None], pl.List(pl.UInt32)), "sequence 'clicked_ads' holds nulls"),
    ],
)
def test_a_number_that_would_spoil_the_nets_is_refused(app: App, column: str, value: pl.Expr, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        to_batch(random_examples(app, 20).with_columns(value.alias(column)), app)


def test_a_missing_column_is_named(app: App) -> None:
    with pytest.raises(ContractError, match="lack the column 'user'"):
        to_batch(random_examples(app, 5).drop("user"), app)


def sampled(app: App, rate: float, weight: float) -> pl.DataFrame:
    negative = pl.col("label") == 0
    return random_examples(app, 40).with_columns(
        pl.when(negative).then(rate).otherwise(1.0).cast(pl.Float32).alias("kept_rate"),
        pl.when(negative).then(weight).otherwise(1.0).cast(pl.Float32).alias("weight"),
    )


def test_the_logit_correction_shifts_every_row_whatever_its_label(tmp_path: Path) -> None:
    app = small_app(tmp_path / "app", {"sampling": {"negative_keep_rate": 0.1, "correction": "logit"}})
    batch = to_batch(sampled(app, 0.1, 1.0), app)
    assert batch.logit_shift_B.unique().tolist() == pytest.approx([math.log(10)])


def test_the_weight_correction_shifts_no_row(tmp_path: Path) -> None:
    app = small_app(tmp_path / "app", {"sampling": {"negative_keep_rate": 0.1, "correction": "weight"}})
    assert to_batch(sampled(app, 0.1, 10.0), app).logit_shift_B.unique().tolist() == [0.0]


def test_two_corrections_at_once_and_a_foreign_rate_are_refused(tmp_path: Path) -> None:
    app = small_app(tmp_path / "app", {"sampling": {"negative_keep_rate": 0.1, "correction": "logit"}})
    with pytest.raises(ContractError, match="would correct twice"):
        to_batch(sampled(app, 0.1, 10.0), app)
    with pytest.raises(ContractError, match=r"kept at the rate 0\.5"):
        to_batch(sampled(app, 0.5, 1.0), app)
