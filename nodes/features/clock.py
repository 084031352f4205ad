"""When the ad was shown, as the row of an embedding table."""

import polars as pl

from contracts.features import Feature
from nodes.features import kind

_HOUR_MS = 3_600_000
_DAYS_TO_MONDAY = 3  # 1 January 1970 was a Thursday


@kind("time")
def time_bucket(feature: Feature) -> pl.Expr:
    """1 + hour of day, day of week (Monday is 0) or hour of week, in UTC; 0 for a null.

    >>> hour = Feature(name="hour", kind="time", column="event_time_ms", side="context")
    >>> pl.DataFrame({"event_time_ms": [0, 3_600_000, None]}).select(time_bucket(hour))["hour"].to_list()
    [1, 2, 0]
    """
    hours = pl.col(feature.inputs[0]).cast(pl.Int64).floordiv(_HOUR_MS)
    days = hours.floordiv(24) + _DAYS_TO_MONDAY
    value = {
        "hour_of_day": hours.mod(24),
        "day_of_week": days.mod(7),
        "hour_of_week": days.mod(7) * 24 + hours.mod(24),
    }[feature.part]
    return (value + 1).fill_null(0).cast(pl.UInt32).alias(feature.name)
