"""The one table of features, and what the nets derive from it."""

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from contracts.columns import Side
from contracts.dynamic import DynamicTable
from contracts.errors import did_you_mean

Output = Literal["id", "dense", "ids"]
_OUTPUT: dict[str, Output] = {
    "id": "id", "cross": "id", "time": "id", "dense": "dense", "sequence": "ids",
    "count": "dense", "rate": "dense", "recent": "ids",
}  # fmt: skip
#: Kinds computed in log order from settled labels; their state is the flow's state.
STATEFUL = frozenset({"count", "rate", "recent"})
_TIME_BUCKETS = {"hour_of_day": 25, "day_of_week": 8, "hour_of_week": 169}


class Feature(BaseModel):
    """One row of the feature table of an `app.toml`.

    An `id` output is a bucket in 0 .. `rows` - 1 (0: missing), a `dense` output one float32, an `ids` output a
    list of at most `length` buckets of the `id` feature named in `of`. With `dynamic` there are 64-bit hashes in place
    of buckets (0: missing), and the nets' tables know which row is whose.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    kind: str
    side: Side
    column: str | None = None  #: the contract column that it reads
    columns: tuple[str, ...] = ()  #: cross, count and rate: the columns that make the key together
    only: Literal["booster"] | None = None  #: privileged: the light net does not see it, the scorer not compute it
    buckets: int | None = Field(default=None, ge=2)
    dynamic: DynamicTable | None = None  #: id and cross, in place of `buckets`: each id has a row of its own
    transform: Literal["raw", "log1p", "standardise", "bucketise"] = "raw"
    mean: float = 0.0
    std: float = Field(default=1.0, gt=0)
    boundaries: tuple[float, ...] = ()  #: bucketise: ascending edges; bucket 0 is missing
    part: Literal["hour_of_day", "day_of_week", "hour_of_week"] = "hour_of_day"
    length: int = Field(default=20, ge=1, le=1000)  #: ids: keep the last that many
    of: str | None = None  #: ids: the id feature whose buckets and table it uses
    clicked: bool = True  #: recent: only items that were clicked (False: all shown)
    prior: float = Field(default=0.05, gt=0, lt=1)  #: rate: the rate before any evidence
    strength: float = Field(default=20.0, gt=0)  #: rate: impressions that the prior is worth
    #: count, rate, recent: seconds for which a settled row does not count yet, as in a table that is refreshed so late.
    #: Left out of the schema where it is 0
    delay_s: float = Field(default=0.0, ge=0, exclude_if=lambda delay_s: delay_s == 0)
    #: count, rate: seconds of event time after which a settled row counts half. Left out of the schema where it is None
    half_life_s: float | None = Field(default=None, exclude_if=lambda half_life_s: half_life_s is None)
    default: float = 0.0  #: dense: stands in for a null
    serve_default: str | float | None = None  #: stands in when a request does not carry the column
    output_: Output | None = Field(default=None, alias="output")  #: for kinds of your own
    options: dict[str, Any] = {}  #: for kinds of your own
    description: str = ""

    @model_validator(mode="after")
    def _complete(self) -> "Feature":
        kind = self.kind
        if kind not in _OUTPUT and self.output_ is None:
            raise ValueError(
                f"feature '{self.name}': the kind '{kind}' is not built in ({did_you_mean(kind, _OUTPUT)}); "
                'a kind of your own needs output = "id", "dense" or "ids"'
            )
        if kind in {"id", "dense", "sequence"} and self.column is None:
            raise ValueError(f"feature '{self.name}': kind '{kind}' needs column")
        if kind in {"cross", "count", "rate", "recent"} and not self.columns:
            raise ValueError(f"feature '{self.name}': kind '{kind}' needs columns = [...]")
        self._check_table()
        if self.output == "ids" and self.of is None:
            raise ValueError(f"feature '{self.name}': kind '{kind}' needs of = the id feature whose table it uses")
        if kind == "dense" and self.transform == "bucketise" and not self.boundaries:
            raise ValueError(f"feature '{self.name}': bucketise needs boundaries")
        if list(self.boundaries) != sorted(set(self.boundaries)):
            raise ValueError(f"feature '{self.name}': boundaries must ascend")
        if self.delay_s and kind not in STATEFUL:
            raise ValueError(f"feature '{self.name}': kind '{kind}' has no evidence to delay; take delay_s away")
        self._check_half_life()
        if kind in STATEFUL and self.only != "booster":
            raise ValueError(
                f"feature '{self.name}': a streaming feature is not in the request, so it needs only = \"booster\""
            )
        return self

    def _check_table(self) -> None:
        if self.kind in {"id", "cross"} and (self.buckets is None) == (self.dynamic is None):
            wrong = "needs buckets" if self.dynamic is None else "has either buckets or dynamic = { ... }; keep one"
            raise ValueError(f"feature '{self.name}': kind '{self.kind}' {wrong}")
        if self.dynamic is not None and self.kind not in {"id", "cross"}:
            raise ValueError(
                f"feature '{self.name}': kind '{self.kind}' has no ids that could own rows; take dynamic away"
            )

    def _check_half_life(self) -> None:
        if self.half_life_s is None:
            return
        if self.kind not in {"count", "rate"}:
            raise ValueError(f"feature '{self.name}': kind '{self.kind}' has no counts to decay; take half_life_s away")
        if not 0.001 <= self.half_life_s <= 1e11:
            raise ValueError(
                f"feature '{self.name}': half_life_s = {self.half_life_s:g} is not within 0.001 and 1e11 seconds; "
                "give one that is, or leave it out for counts that never fade"
            )

    @property
    def output(self) -> Output:
        """What the feature gives to the nets."""
        if self.output_ is not None:
            return self.output_
        if self.kind == "dense" and self.transform == "bucketise":
            return "id"
        return _OUTPUT[self.kind]

    @property
    def rows(self) -> int:
        """How many embedding rows an `id` output needs."""
        if self.kind == "time":
            return _TIME_BUCKETS[self.part]
        if self.kind == "dense":
            return len(self.boundaries) + 2
        return self.buckets or 0 if self.dynamic is None else self.dynamic.rows

    @property
    def inputs(self) -> tuple[str, ...]:
        """The contract columns that it reads."""
        return self.columns or ((self.column,) if self.column else ())


@dataclass(frozen=True, slots=True)
class Layout:
    """Where each feature lies in the tensors, derived from the table.

    The fused embedding table holds the light net's id features first, so that the published light table is its
    prefix: rows 0 .. `light_rows` - 1.
    """

    light_ids: tuple[Feature, ...]
    booster_ids: tuple[Feature, ...]  #: only = "booster"
    light_dense: tuple[Feature, ...]
    booster_dense: tuple[Feature, ...]  #: only = "booster"
    sequences: tuple[Feature, ...]  #: always the booster's

    @property
    def ids(self) -> tuple[Feature, ...]:
        """All id features in table order of the fused table."""
        return self.light_ids + self.booster_ids

    @property
    def dense(self) -> tuple[Feature, ...]:
        """All dense features, the light net's first."""
        return self.light_dense + self.booster_dense

    @property
    def offsets(self) -> dict[str, int]:
        """Id feature name -> its first row in the fused table."""
        offsets, start = {}, 0
        for feature in self.ids:
            offsets[feature.name] = start
            start += feature.rows
        return offsets

    @property
    def dynamic(self) -> tuple[Feature, ...]:
        """The light net's features whose ids own their rows."""
        return tuple(feature for feature in self.light_ids if feature.dynamic is not None)

    @property
    def light_rows(self) -> int:
        """Rows of the fused table that the light net uses."""
        return sum(feature.rows for feature in self.light_ids)

    @property
    def rows(self) -> int:
        """Rows of the whole fused table."""
        return sum(feature.rows for feature in self.ids)


def layout_of(features: tuple[Feature, ...]) -> Layout:
    """Derive the layout from the feature table."""

    def pick(output: Output, only: str | None) -> tuple[Feature, ...]:
        return tuple(f for f in features if f.output == output and f.only == only)

    return Layout(
        light_ids=pick("id", None),
        booster_ids=pick("id", "booster"),
        light_dense=pick("dense", None),
        booster_dense=pick("dense", "booster"),
        sequences=tuple(f for f in features if f.output == "ids"),
    )
