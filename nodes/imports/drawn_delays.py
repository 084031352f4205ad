"""When a click came, where a log does not say: drawn from a seeded distribution, and the import says so."""

from typing import Any

import numpy as np
import polars as pl

MEDIAN_S, SIGMA = 8.0, 1.3
#: What an import says of them.
NOTE: dict[str, Any] = {
    "note": "The log has no click times: each click's delay is drawn, not observed.",
    "distribution": "lognormal",
    "median_s": MEDIAN_S,
    "sigma": SIGMA,
}


def drawn_delays_ms(rng: np.random.Generator, count: int) -> pl.Series:
    """So many delays, whole milliseconds of 1 or more; log-normal, 99.95 % of them within 600 s.

    Draws go on where the last ones ended: however a log is cut into chunks, each click gets the same delay.

    >>> whole, parts = np.random.default_rng(1), np.random.default_rng(1)
    >>> cut = [*drawn_delays_ms(parts, 3), *drawn_delays_ms(parts, 2)]
    >>> drawn_delays_ms(whole, 5).to_list() == cut
    True
    """
    delay_s = rng.lognormal(np.log(MEDIAN_S), SIGMA, count)
    return pl.Series(1 + delay_s * 1000).cast(pl.Int64)
