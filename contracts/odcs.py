"""Open Data Contract Standard v3 files, loaded into typed columns.

One contract is compiled to a Polars schema and row check (`contracts.rowcheck`), a Great Expectations suite
(`contracts.expectations`), JSON Schema (`contracts.jsonschema`) and an AsyncAPI document (`contracts.asyncapi`).
"""

import re
from pathlib import Path
from typing import Any, Literal

import polars as pl
import yaml
from pydantic import BaseModel, ConfigDict

from contracts.errors import ContractError, did_you_mean

Role = Literal["impression_id", "click_id", "user_id", "item_id", "event_time", "label_source"]
Side = Literal["user", "context", "item"]

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
_PROPERTY_KEYS = {
    "name", "logicalType", "physicalType", "required", "unique", "description", "logicalTypeOptions",
    "customProperties", "quality", "items", "properties", "businessName", "classification", "examples",
    "primaryKey", "primaryKeyPosition", "tags",
}  # fmt: skip
_OPTION_KEYS = {
    "minimum", "maximum", "minLength", "maxLength", "pattern", "minItems", "maxItems", "format",
}  # fmt: skip


class Column(BaseModel):
    """One property of a contract: what a value may be."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    physical: str
    required: bool = False
    unique: bool = False
    minimum: float | None = None
    maximum: float | None = None
    min_length: int | None = None  #: characters of a string, items of a list
    max_length: int | None = None
    pattern: str | None = None  #: the whole string must match (Rust regex and Python re agree on it)
    allowed: tuple[str, ...] | None = None
    role: Role | None = None
    side: Side | None = None
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


def load_contract(path: Path) -> DataContract:
    """Read and validate an ODCS v3 file of one schema object.

    Raises:
        ContractError: naming the file, the line and the key that is wrong.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ContractError(f"{path}: cannot be read ({error}); every app needs this contract") from error
    try:
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ContractError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    return _Reader(path, tree).contract(raw)


class _Reader:
    """Turns the YAML tree into a DataContract; knows the line of every key for its errors."""

    def __init__(self, path: Path, tree: Any) -> None:
        self._path, self._tree = path, tree

    def _fail(self, where: list[str | int], what: str) -> ContractError:
        node, line = self._tree, 1
        for step in where:
            if isinstance(node, yaml.MappingNode):
                found = [(k, v) for k, v in node.value if k.value == step]
                if not found:
                    break
                line, node = found[0][0].start_mark.line + 1, found[0][1]
            elif isinstance(node, yaml.SequenceNode) and isinstance(step, int):
                node = node.value[step]
                line = node.start_mark.line + 1
        dotted = ".".join(str(step) for step in where)
        return ContractError(f"{self._path}, line {line}, key {dotted}: {what}")

    def contract(self, raw: Any) -> DataContract:
        if not isinstance(raw, dict):
            raise self._fail([], "a contract is a mapping with apiVersion, kind, id, version and schema")
        if raw.get("kind") != "DataContract" or not str(raw.get("apiVersion", "")).startswith("v3."):
            raise self._fail(["kind"], "needs kind: DataContract and an apiVersion v3.x (ODCS)")
        objects = raw.get("schema")
        if not isinstance(objects, list) or len(objects) != 1:
            raise self._fail(["schema"], "holds exactly one schema object")
        where: list[str | int] = ["schema", 0, "properties"]
        columns = self._columns(objects[0].get("properties"), where, side=None)
        names = [column.name for column in columns]
        for name in names:
            if names.count(name) > 1:
                raise self._fail(where, f"the column '{name}' stands twice; remove one")
        freshness = [_seconds(sla) for sla in raw.get("slaProperties", []) if sla.get("property") == "freshness"]
        purpose = raw.get("description", {})
        return DataContract(
            path=str(self._path),
            id=str(raw.get("id", "")),
            name=str(objects[0].get("name", "")),
            version=str(raw.get("version", "")),
            columns=tuple(columns),
            freshness_s=freshness[0] if freshness else None,
            description=purpose.get("purpose", "") if isinstance(purpose, dict) else str(purpose),
        )

    def _columns(self, properties: Any, where: list[str | int], side: Side | None) -> list[Column]:
        if not isinstance(properties, list) or not properties:
            raise self._fail(where, "needs a list of properties, one a column")
        columns: list[Column] = []
        for index, raw in enumerate(properties):
            here: list[str | int] = [*where, index]
            if not isinstance(raw, dict) or "name" not in raw:
                raise self._fail(here, "a property needs a name")
            nested = raw.get("properties") or (raw.get("items") or {}).get("properties")
            if nested:  # an object of a request: its side is what its name says
                inner: list[str | int] = [*here, "items", "properties"] if "items" in raw else [*here, "properties"]
                columns += self._columns(nested, inner, _side_of(str(raw["name"])))
            else:
                columns.append(self._column(raw, here, side))
        return columns

    def _column(self, raw: dict[str, Any], here: list[str | int], side: Side | None) -> Column:
        for key in raw:
            if key not in _PROPERTY_KEYS:
                raise self._fail([*here, key], f"unknown key '{key}'; {did_you_mean(key, _PROPERTY_KEYS)}")
        physical = str(raw.get("physicalType", ""))
        if physical not in DTYPES:
            raise self._fail(
                [*here, "physicalType"],
                f"unknown physicalType '{physical}'; {did_you_mean(physical, DTYPES)}",
            )
        if raw.get("logicalType") != LOGICAL[physical]:
            raise self._fail(
                [*here, "logicalType"],
                f"physicalType {physical} goes with logicalType {LOGICAL[physical]}",
            )
        options = raw.get("logicalTypeOptions") or {}
        for key in options:
            if key not in _OPTION_KEYS:
                raise self._fail(
                    [*here, "logicalTypeOptions", key],
                    f"unknown option '{key}'; {did_you_mean(key, _OPTION_KEYS)}",
                )
        pattern = options.get("pattern")
        if pattern is not None:
            try:
                re.compile(pattern)
            except re.error as error:
                raise self._fail([*here, "logicalTypeOptions", "pattern"], f"not a regex: {error}") from error
        custom = {entry["property"]: entry["value"] for entry in raw.get("customProperties") or []}
        try:
            return Column(
                name=str(raw["name"]),
                physical=physical,
                required=bool(raw.get("required", False)),
                unique=bool(raw.get("unique", False)),
                minimum=options.get("minimum"),
                maximum=options.get("maximum"),
                min_length=options.get("minLength", options.get("minItems")),
                max_length=options.get("maxLength", options.get("maxItems")),
                pattern=pattern,
                allowed=_allowed(raw.get("quality") or []),
                role=custom.get("role"),
                side=custom.get("side", side),
                description=str(raw.get("description", "")),
            )
        except ValueError as error:
            first = str(error).splitlines()
            raise self._fail(here, f"{raw['name']}: {' '.join(first[1:3])}") from error


def _side_of(name: str) -> Side:
    sides: dict[str, Side] = {"user": "user", "context": "context", "candidates": "item"}
    return sides.get(name, "context")


def _allowed(quality: list[dict[str, Any]]) -> tuple[str, ...] | None:
    for rule in quality:
        if rule.get("metric") == "invalidValues":
            return tuple(str(value) for value in rule["arguments"]["validValues"])
    return None


def _seconds(sla: dict[str, Any]) -> float:
    units = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
    return float(sla["value"]) * units.get(str(sla.get("unit", "s")), 1.0)
