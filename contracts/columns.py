"""What a data contract says: columns, their types and rules, and the roles that some of them play."""

from typing import Literal, get_args

import polars as pl
from pydantic import BaseModel, ConfigDict

from contracts.errors import ContractError

Role = Literal["impression_id", "click_id", "user_id", "item_id", "event_time", "label_source"]
Side = Literal["user", "context", "item"]
Part = Literal["user", "context", "candidates"]

ROLES: tuple[Role, ...] = get_args(Role)
SIDES: tuple[Side, ...] = get_args(Side)
#: Object inside a request -> the side of its columns.
PARTS: dict[Part, Side] = {"user": "user", "context": "context", "candidates": "item"}

#: physicalType in a contract file -> Polars type of the column.
DTYPES: dict[str, pl.DataType] = {
    "string": pl.String(),
    "int64": pl.Int64(),
    "double": pl.Float64(),
    "boolean": pl.Boolean(),
    "list<string>": pl.List(pl.String()),
}
#: physicalType -> the logicalType that ODCS asks for beside it.
LOGICAL = {
    "string": "string",
    "int64": "integer",
    "double": "number",
    "boolean": "boolean",
    "list<string>": "array",
}


class Column(BaseModel):
    """One property of a contract: what a value may be."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    physical: str
    required: bool = False
    unique: bool = False
    minimum: int | float | None = None
    maximum: int | float | None = None
    min_length: int | None = None  #: characters of a string, items of a list
    max_length: int | None = None
    pattern: str | None = None  #: the whole string must match (Rust regex and Python re agree on it)
    allowed: tuple[str, ...] | None = None
    role: Role | None = None
    side: Side | None = None
    within: Part | None = None  #: the object of a request that it stands in; None: on top
    description: str = ""

    @property
    def dtype(self) -> pl.DataType:
        """The Polars type of the column."""
        return DTYPES[self.physical]


class DataContract(BaseModel):
    """A loaded contract: one event or request type, its columns and its freshness."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    id: str
    name: str
    version: str
    columns: tuple[Column, ...]
    freshness_s: float | None = None
    description: str = ""

    @property
    def schema_(self) -> dict[str, pl.DataType]:
        """Column name -> Polars type, in contract order."""
        return {column.name: column.dtype for column in self.columns}

    def role(self, role: Role) -> str:
        """The name of the column that plays `role`.

        Raises:
            ContractError: no column has it.
        """
        for column in self.columns:
            if column.role == role:
                return column.name
        raise ContractError(
            f"{self.path}: no column has the role '{role}'; give one column "
            f"customProperties [{{property: role, value: {role}}}]"
        )
