"""Example rows become tensors: once a segment, then cut into minibatches without copying.

Shapes: B rows, F id features, N dense features, S ids of one sequence over all rows.
"""

import math
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from torch import Tensor

from contracts.app import App
from contracts.errors import ContractError
from contracts.features import Feature


class Ragged(NamedTuple):
    """One sequence feature: row i holds `rows_S[starts_B1[i]:starts_B1[i + 1]]`."""

    rows_S: Tensor  #: int64 rows of the fused table, or hashes as in `Batch.ids_BF`, all rows' ids one after the other
    starts_B1: Tensor  #: int64, one more than rows

    def slice(self, start: int, stop: int) -> "Ragged":
        """The same for a range of rows."""
        starts = self.starts_B1[start : stop + 1]
        return Ragged(self.rows_S[int(starts[0]) : int(starts[-1])], starts - starts[0])


class Batch(NamedTuple):
    """Example rows as tensors."""

    #: int64 rows of the fused table (`Layout.offsets` added), the light net's features first; of dynamic features the
    #: bits of the ids' hashes, until `model.dynamic_ids` has put rows in their place
    ids_BF: Tensor
    dense_BN: Tensor  #: float32, the light net's first
    sequences: tuple[Ragged, ...]  #: in the order of `Layout.sequences`
    label_B: Tensor  #: float32, 0 or 1
    weight_B: Tensor  #: float32: what each row counts in every loss term
    logit_shift_B: Tensor  #: float32, added to every logit inside the label losses, never to a prediction
    role_B: Tensor  #: uint8: `contracts.segments.Role`
    elapsed_B: Tensor  #: float32: impression to click or the span observed, in waits (`labels.wait_s` is 1)
    event_ms_B: Tensor = torch.zeros(0, dtype=torch.int64)  #: event time; empty where no feature is dynamic

    @property
    def rows(self) -> int:
        """How many rows the batch has."""
        return self.label_B.shape[0]

    def slice(self, start: int, stop: int) -> "Batch":
        """Rows `start` to `stop` - 1, as views."""
        return Batch(
            self.ids_BF[start:stop],
            self.dense_BN[start:stop],
            tuple(sequence.slice(start, stop) for sequence in self.sequences),
            self.label_B[start:stop],
            self.weight_B[start:stop],
            self.logit_shift_B[start:stop],
            self.role_B[start:stop],
            self.elapsed_B[start:stop],
            self.event_ms_B[start:stop],
        )

    def to(self, device: torch.device) -> "Batch":
        """The batch on another device; itself when it is there already."""
        if self.label_B.device == device:
            return self
        return Batch(
            self.ids_BF.to(device),
            self.dense_BN.to(device),
            tuple(Ragged(rows.to(device), starts.to(device)) for rows, starts in self.sequences),
            self.label_B.to(device),
            self.weight_B.to(device),
            self.logit_shift_B.to(device),
            self.role_B.to(device),
            self.elapsed_B.to(device),
            self.event_ms_B,  # read on the CPU
        )


def to_batch(frame: pl.DataFrame, app: App) -> Batch:
    """Turn example rows into tensors; one call a segment is much cheaper than one a minibatch.

    With `sampling.correction = "logit"` every row, clicked or not, carries the shift -ln(keep rate): the nets learn the
    odds of the sampled stream, which are those of the whole one divided by the keep rate, and predict without it.

    Args:
        frame: columns of `contracts.segments.example_schema`, any number of rows.
        app: gives the layout and the sampling correction.

    Raises:
        ContractError: a column is missing or holds nulls, a bucket lies outside its feature's rows, a number is not
            finite, or the rows were sampled otherwise than the app says.
    """
    layout, offsets = app.layout, app.layout.offsets
    rows = frame.height
    ids_BF = np.empty((rows, len(layout.ids)), np.int64)
    for position, feature in enumerate(layout.ids):
        if feature.dynamic is None:
            np.add(_buckets(frame, feature), np.int64(offsets[feature.name]), out=ids_BF[:, position])
        else:
            ids_BF[:, position] = _hashes(_whole(frame, feature.name), feature.name)
    dense_BN = np.empty((rows, len(layout.dense)), np.float32)
    for position, feature in enumerate(layout.dense):
        dense_BN[:, position] = _whole(frame, feature.name).to_numpy()
    if not np.isfinite(dense_BN).all():
        names = [f.name for i, f in enumerate(layout.dense) if not np.isfinite(dense_BN[:, i]).all()]
        raise ContractError(f"example rows: feature '{names[0]}' holds a NaN or an infinity; featurize replaces those")
    by_name = {feature.name: feature for feature in layout.ids}
    sequences = tuple(_ragged(frame, f, by_name[f.of or ""], offsets[f.of or ""]) for f in layout.sequences)
    label_B = _whole(frame, "label").cast(pl.Float32).to_numpy()
    weight_B = _whole(frame, "weight").cast(pl.Float32).to_numpy()
    if not (np.isfinite(weight_B).all() and (weight_B >= 0).all()):
        raise ContractError("example rows: a weight is negative, NaN or infinite; one such row would spoil both nets")
    shift = _sampling_shift(frame, app)
    role_B = _whole(frame, "role").to_numpy()
    elapsed_B = _whole(frame, "elapsed_s").to_numpy() / np.float32(app.config.labels.wait_s)
    return Batch(
        torch.from_numpy(ids_BF),
        torch.from_numpy(dense_BN),
        sequences,
        torch.tensor(label_B),
        torch.tensor(weight_B),
        torch.full((rows,), shift),
        torch.tensor(role_B),
        torch.tensor(elapsed_B),
        *_event_times(frame, app),
    )


def _event_times(frame: pl.DataFrame, app: App) -> tuple[Tensor, ...]:
    """Event times where a feature is dynamic; nothing else reads them."""
    if not any(feature.dynamic for feature in app.layout.ids):
        return ()
    return (torch.tensor(_whole(frame, "event_time_ms").to_numpy()),)


def _hashes(column: pl.Series, name: str) -> np.ndarray:
    """The ids' hashes, as the bits of int64."""
    if column.dtype != pl.UInt64:
        raise ContractError(
            f"example rows: feature '{name}' holds {column.dtype}, but its ids own their rows, which asks for "
            "their hashes (UInt64); ingest the events again with this app"
        )
    bits: np.ndarray = column.to_numpy().view(np.int64)
    return bits


def _whole(frame: pl.DataFrame, name: str) -> pl.Series:
    """A column without nulls."""
    if name not in frame.columns:
        raise ContractError(f"example rows lack the column '{name}'; ingest them again with this app")
    column = frame.get_column(name)
    if column.null_count():
        raise ContractError(f"example rows: column '{name}' holds {column.null_count()} nulls; featurize fills them")
    return column


def _buckets(frame: pl.DataFrame, feature: Feature) -> np.ndarray:
    column = _whole(frame, feature.name)
    buckets = column.to_numpy()
    _refuse_outside(buckets, feature.name, feature.rows)
    return buckets


def _refuse_outside(buckets: np.ndarray, name: str, rows: int) -> None:
    if buckets.size and (int(buckets.max()) >= rows or int(buckets.min()) < 0):
        raise ContractError(
            f"example rows: feature '{name}' holds the bucket {buckets.max()}, but its table has {rows} rows "
            "(0 is missing); ingest the events again with this app"
        )


def _ragged(frame: pl.DataFrame, feature: Feature, of: Feature, offset: int) -> Ragged:
    column = _whole(frame, feature.name).rechunk()
    lengths = column.list.len().to_numpy()
    values = column.to_arrow().flatten()
    if values.null_count:
        raise ContractError(f"example rows: sequence '{feature.name}' holds nulls; featurize drops them")
    starts_B1 = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=starts_B1[1:])
    if of.dynamic is not None:
        hashes = _hashes(pl.Series(values), feature.name).copy()
        return Ragged(torch.from_numpy(hashes), torch.from_numpy(starts_B1))
    buckets = pl.Series(values).to_numpy()  # pyarrow's own to_numpy would import pandas
    _refuse_outside(buckets, feature.name, of.rows)
    return Ragged(torch.from_numpy(buckets.astype(np.int64) + offset), torch.from_numpy(starts_B1))


def _sampling_shift(frame: pl.DataFrame, app: App) -> float:
    """What to add to each logit while learning, so that without it the nets predict the unsampled rate.

    Of negatives kept with rate w the odds in the log are p / ((1 - p) w): logit(q) = logit(p) - ln w. The shift belongs
    to the stream and not to the row's class (a clicked row has `kept_rate` 1): a shift by class would tell the label.
    """
    sampling = app.config.sampling
    rate = sampling.negative_keep_rate
    negative = _whole(frame, "label").to_numpy() == 0
    kept_rate = _whole(frame, "kept_rate").to_numpy()[negative]
    weight = _whole(frame, "weight").to_numpy()[negative]
    if kept_rate.size and not np.allclose(kept_rate, rate, rtol=1e-4):
        raise ContractError(
            f"example rows: negatives were kept at the rate {kept_rate[0]:g}, but [sampling] negative_keep_rate is "
            f"{rate:g}; ingest the events again, or set it to the rate of the log"
        )
    if sampling.correction == "logit" and rate < 1:
        if weight.size and not np.allclose(weight, 1.0):
            raise ContractError(
                'example rows: negatives already weigh 1 / rate, and [sampling] correction = "logit" would correct '
                'twice; set correction = "weight" or ingest the events again'
            )
        return -math.log(rate)
    return 0.0
