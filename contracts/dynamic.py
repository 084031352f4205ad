"""How an id feature's own table lives: which ids get a row, and which give theirs up."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

#: Rows of every dynamic table that no id owns: of a missing id, and of ids that have no row of their own.
MISSING_ROW, OOV_ROW, FIRST_ROW = 0, 1, 2


class DynamicTable(BaseModel):
    """Rows that are handed out to ids as they come, so that no two ids share one; `capacity` of them at most.

    Everything here is counted in rows learnt or in event time, never by the clock. A *sighting* is a row of the log
    that holds the id in the feature's own column; sequences only look up.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    #: Ids that may have a row at once; the memory is taken at the start.
    capacity: int = Field(ge=1, le=2**30)
    #: Sightings since the last barrier but one, before an id gets a row; until then it reads the row of unknown ids.
    admit_after: int = Field(default=1, ge=1, le=2**31 - 1)
    #: What counts them: "exact" (12 to 30 bytes an id that waits) or "bloom" (a counting Bloom filter of
    #: `bloom_cells`: it may admit an id early, never late).
    admission: Literal["exact", "bloom"] = "exact"
    #: Bytes of one of the two filters, a power of two; 8 cells an id that waits make 1 early admission in 40.
    bloom_cells: int = Field(default=4_194_304, ge=64, le=2**32)
    #: Rows learnt between two barriers, at which ids give up their rows.
    barrier_rows: int = Field(default=1_000_000, ge=1, le=2**29)
    #: Seconds of event time between two barriers, in place of `barrier_rows`.
    barrier_s: float | None = Field(default=None, ge=0.001)
    #: At a barrier, ids not seen for more than that many rows learnt go.
    evict_after_rows: int | None = Field(default=None, ge=1)
    #: Likewise in seconds of event time.
    evict_after_s: float | None = Field(default=None, ge=0.001)
    #: At a barrier, ids with fewer sightings go; what was counted before each barrier counts half after it.
    min_count: int = Field(default=0, ge=0)
    #: Share of `capacity` that a barrier leaves free, if need be by taking the rows of the ids seen least (counted as
    #: for `min_count`; among equals the oldest). 0: a full table admits nobody until others go.
    free_share: float = Field(default=0.1, ge=0, lt=1)

    @model_validator(mode="after")
    def _fits(self) -> "DynamicTable":
        if self.barrier_s is not None and "barrier_rows" in self.model_fields_set:
            raise ValueError("barrier_rows and barrier_s are two clocks for the same barriers; keep one")
        if self.evict_after_rows is not None and self.evict_after_s is not None:
            raise ValueError("evict_after_rows and evict_after_s are two clocks for the same age; keep one")
        if self.min_count > self.admit_after:
            raise ValueError(
                f"min_count = {self.min_count} takes rows from ids that admit_after = {self.admit_after} has just let "
                "in; make min_count at most admit_after"
            )
        if self.admission == "bloom" and self.admit_after > 255:
            raise ValueError(
                f"admit_after = {self.admit_after} is more than the 255 that a Bloom filter's cell can count; make it "
                'smaller or set admission = "exact"'
            )
        if self.admission == "bloom" and self.admit_after == 1:
            raise ValueError('admission = "bloom" counts nothing with admit_after = 1; make that 2 or more')
        if self.bloom_cells & (self.bloom_cells - 1):
            raise ValueError(f"bloom_cells = {self.bloom_cells} is no power of two; take {_power(self.bloom_cells)}")
        return self

    @property
    def rows(self) -> int:
        """Rows of the table: one an id, and the two that nobody owns."""
        return self.capacity + FIRST_ROW

    @property
    def by_event_time(self) -> bool:
        """Whether an id's age is counted in milliseconds of event time, and not in rows."""
        return self.evict_after_s is not None

    @property
    def oldest(self) -> int | None:
        """The age beyond which an id goes, in rows or milliseconds; None: none is too old."""
        return self.evict_after_rows if self.evict_after_s is None else round(self.evict_after_s * 1000)


def _power(number: int) -> int:
    return 1 << number.bit_length()
