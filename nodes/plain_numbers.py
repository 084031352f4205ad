"""Features of one number, made in NumPy: a micro-batch has few values, and a frame takes half a millisecond for any.

The same bits as `nodes.features.dense` and `nodes.features.clock` give. A logarithm stays with the frames: libraries
differ in its last bit.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from contracts.columns import Column
from contracts.features import Feature

#: From the values of a column, in which None stands for a null, to the feature's, [rows] each.
Made = Callable[[Sequence[Any]], np.ndarray]
_LARGEST = float(np.finfo(np.float32).max)
_HOUR_MS, _DAYS_TO_MONDAY = 3_600_000, 3  # 1 January 1970 was a Thursday


def plainly(feature: Feature, column: Column) -> Made | None:
    """How to make a feature of a column's values without a frame; None where it takes one.

    Args:
        feature: a light feature.
        column: the only one that it reads, whose values are good.

    >>> bid = Feature(name="bid", kind="dense", transform="standardise", column="bid", side="item", mean=2, std=4)
    >>> made = plainly(bid, Column(name="bid", physical="double"))
    >>> made([4.0, None]).tolist() if made else None
    [0.5, 0.0]
    """
    if feature.kind == "dense" and feature.transform != "log1p" and column.physical in {"int64", "double"}:
        return _bucketised(feature) if feature.transform == "bucketise" else _scaled(feature)
    if feature.kind == "time" and column.physical == "int64":
        return _clock(feature)
    return None


def _bucketised(feature: Feature) -> Made:
    edges = np.array(feature.boundaries, np.float64)

    def made(values: Sequence[Any]) -> np.ndarray:
        numbers = np.array(values, np.float64)  # a null becomes NaN
        buckets: np.ndarray = (np.searchsorted(edges, numbers, side="right") + 1).astype(np.uint32)
        buckets[~np.isfinite(numbers)] = 0
        return buckets

    return made


def _scaled(feature: Feature) -> Made:
    def made(values: Sequence[Any]) -> np.ndarray:
        numbers = np.array(values, np.float64)
        numbers[~np.isfinite(numbers)] = np.nan
        if feature.transform == "standardise":
            with np.errstate(over="ignore"):
                numbers = (numbers - feature.mean) / feature.std
        numbers[np.isnan(numbers)] = feature.default
        return np.clip(numbers, -_LARGEST, _LARGEST).astype(np.float32)

    return made


def _clock(feature: Feature) -> Made:
    def made(values: Sequence[Any]) -> np.ndarray:
        hours = np.array([0 if value is None else value for value in values], np.int64) // _HOUR_MS
        days = hours // 24 + _DAYS_TO_MONDAY
        part = {
            "hour_of_day": hours % 24,
            "day_of_week": days % 7,
            "hour_of_week": days % 7 * 24 + hours % 24,
        }[feature.part]
        buckets: np.ndarray = (part + 1).astype(np.uint32)
        if None in values:
            buckets[[value is None for value in values]] = 0
        return buckets

    return made
