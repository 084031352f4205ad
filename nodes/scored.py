"""A micro-batch of requests with its scores."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from contracts.serving import AdResponse
from nodes.asked import Asked

#: One row a candidate, as `Scored.frame` gives it.
SCORES = {
    "request_id": pl.String(),
    "candidate": pl.Int64(),  # index in the request
    "item_id": pl.String(),
    "pctr": pl.Float64(),  # null: refused
    "logit": pl.Float32(),
    "model_version": pl.Int64(),
}


@dataclass(frozen=True)
class Scored:
    """A micro-batch, scored."""

    asked: Asked
    pctr: np.ndarray  #: float64, one a candidate; NaN where it is refused
    logit: np.ndarray  #: float32 likewise
    responses: list[AdResponse]  #: one a message, in order
    read_us: int = 0  #: of `took_us`, what parsing and checking took

    def frame(self) -> pl.DataFrame:
        """One row a candidate of the requests that were answered (`SCORES`)."""
        asked = self.asked
        starts = np.searchsorted(asked.request_of, np.arange(len(asked.message_of)))
        message = np.array(asked.message_of, np.int64)[asked.request_of]
        version = next((r.model_version for r in self.responses if r.error is None), None)
        answered = np.array([problem is None for problem in asked.problems], bool)[message]
        rows = {
            "request_id": [asked.ids[place] for place in message],
            "candidate": np.arange(len(asked.item_ids)) - starts[asked.request_of],
            "item_id": asked.item_ids,
            "pctr": self.pctr,
            "logit": self.logit,
            "model_version": [version] * len(asked.item_ids),
        }
        frame = pl.DataFrame(rows, schema=SCORES, strict=False).filter(pl.Series(answered, dtype=pl.Boolean))
        return frame.with_columns(pl.col("pctr", "logit").fill_nan(None))
