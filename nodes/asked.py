"""A micro-batch of ad requests, read and checked."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from contracts.serving import Problem
from nodes.request_side import RequestSide


@dataclass
class Side:
    """What a micro-batch says on one side, one row a request or a candidate."""

    side: RequestSide
    values: list[Sequence[Any]] = field(default_factory=list)  #: of each column
    rows: int = 0
    features: dict[str, np.ndarray] | None = None  #: where all is well and they are known by heart
    later: Callable[[], list[Sequence[Any]]] | None = None  #: makes `values`, where nobody needed them so far

    @cached_property
    def frame(self) -> pl.DataFrame:
        """The columns of the contract."""
        if self.later is not None:
            self.values, self.later = self.later(), None
        return self.side.frame(self.values) if self.rows else pl.DataFrame()


@dataclass
class Asked:
    """A micro-batch of requests, read.

    `request_side` has a row for each request that could be read, `candidate_side` one for each of their candidates, in
    order, but for those that only name an item of the catalogue. What is refused stands beside.
    """

    ids: list[str | None]  #: of each message
    tmax_ms: list[int]  #: of each message
    problems: list[Problem | None]  #: of each message
    request_side: Side
    candidate_side: Side
    message_of: list[int] = field(default_factory=list)  #: request row -> message
    request_of: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))  #: candidate row -> request row
    places: np.ndarray | None = None  #: candidate row -> its place in the catalogue, -1: in `candidate_side`; None: all
    item_ids: list[str | None] = field(default_factory=list)  #: candidate row -> item
    refused: dict[int, str] = field(default_factory=dict)  #: candidate row -> "code: detail"

    @property
    def requests(self) -> pl.DataFrame:
        """One row a request that could be read."""
        return self.request_side.frame

    @property
    def candidates(self) -> pl.DataFrame:
        """One row a candidate that says more than the id of a known item."""
        return self.candidate_side.frame

    def own_rows(self) -> np.ndarray:
        """The candidate row of each row of `candidates`."""
        return np.arange(len(self.item_ids)) if self.places is None else np.flatnonzero(self.places < 0)
