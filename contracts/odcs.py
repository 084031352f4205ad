"""Open Data Contract Standard v3 files, loaded into typed columns.

One contract is compiled to a Polars schema and row check (`contracts.rowcheck`), a Great Expectations suite
(`contracts.expectations`), JSON Schema (`contracts.jsonschema`) and an AsyncAPI document (`contracts.asyncapi`).
"""

from pathlib import Path
from typing import Any

from contracts.columns import DTYPES, LOGICAL, PARTS, Column, DataContract, Part, Role, Side
from contracts.errors import did_you_mean
from contracts.odcs_rules import Rules
from contracts.yaml_tree import YamlTree

__all__ = ["DTYPES", "LOGICAL", "Column", "DataContract", "Role", "Side", "load_contract"]

_CONTRACT_KEYS = {
    "apiVersion", "kind", "id", "name", "version", "status", "description", "schema", "slaProperties", "tags",
    "tenant", "domain", "dataProduct", "servers", "support", "price", "team", "roles", "slaDefaultElement",
    "authoritativeDefinitions", "customProperties", "contractCreatedTs",
}  # fmt: skip
_OBJECT_KEYS = {
    "name", "logicalType", "physicalType", "physicalName", "description", "businessName", "properties", "tags",
    "customProperties", "authoritativeDefinitions", "dataGranularityDescription",
}  # fmt: skip
_PROPERTY_KEYS = {
    "name", "logicalType", "physicalType", "required", "unique", "description", "logicalTypeOptions",
    "customProperties", "quality", "items", "properties", "businessName", "classification", "examples",
    "primaryKey", "primaryKeyPosition", "tags",
}  # fmt: skip
_SECONDS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_Where = list[str | int]


def load_contract(path: Path) -> DataContract:
    """Read and validate an ODCS v3 file of one schema object.

    Raises:
        ContractError: naming the file, the line and the key that is wrong.
    """
    return _Reader(path).contract()


class _Reader:
    """Turns the YAML tree into a DataContract."""

    def __init__(self, path: Path) -> None:
        self._path, self._tree = path, YamlTree(path)
        self._fail = self._tree.fail

    def contract(self) -> DataContract:
        raw = self._tree.data
        if not isinstance(raw, dict):
            raise self._fail([], "a contract is a mapping with apiVersion, kind, id, version and schema")
        if raw.get("kind") != "DataContract" or not str(raw.get("apiVersion", "")).startswith("v3."):
            raise self._fail(["kind"], "needs kind: DataContract and an apiVersion v3.x (ODCS)")
        self._known(raw, [], _CONTRACT_KEYS)
        for key in ("id", "version", "status"):
            if not isinstance(raw.get(key), str) or not raw[key]:
                raise self._fail([key], f"the standard asks for {key}; give it as text (numbers in quotes)")
        where: _Where = ["schema", 0]
        objects = raw.get("schema")
        if not isinstance(objects, list) or len(objects) != 1 or not isinstance(objects[0], dict):
            raise self._fail(["schema"], "holds exactly one schema object")
        self._known(objects[0], where, _OBJECT_KEYS)
        columns = self._columns(objects[0].get("properties"), [*where, "properties"], part=None)
        self._refuse_twins(columns, where)
        purpose = raw.get("description", {})
        return DataContract(
            path=str(self._path),
            id=raw["id"],
            name=str(objects[0].get("name", "")),
            version=raw["version"],
            columns=tuple(columns),
            freshness_s=self._freshness(raw.get("slaProperties", [])),
            description=str(purpose.get("purpose", "") if isinstance(purpose, dict) else purpose),
        )

    def _known(self, raw: dict[Any, Any], where: _Where, keys: set[str]) -> None:
        for key in raw:
            if key not in keys:
                raise self._fail([*where, key], f"unknown key '{key}'; {did_you_mean(str(key), keys)}")

    def _refuse_twins(self, columns: list[Column], where: _Where) -> None:
        names, roles = [c.name for c in columns], [c.role for c in columns if c.role]
        for name in names:
            if names.count(name) > 1:
                raise self._fail(where, f"the column '{name}' stands twice; remove one")
        for role in roles:
            if roles.count(role) > 1:
                raise self._fail(where, f"two columns have the role '{role}'; take it from one")

    def _columns(self, properties: Any, where: _Where, part: Part | None) -> list[Column]:
        if not isinstance(properties, list) or not properties:
            raise self._fail(where, "needs a list of properties, one a column")
        columns: list[Column] = []
        for index, raw in enumerate(properties):
            here: _Where = [*where, index]
            if not isinstance(raw, dict) or not isinstance(raw.get("name"), str):
                raise self._fail(here, "a property needs a name (words like yes and numbers in quotes)")
            self._known(raw, here, _PROPERTY_KEYS)
            items = raw.get("items")
            if raw.get("logicalType") == "object" or "properties" in raw:
                columns += self._inside(raw["name"], raw.get("properties"), [*here, "properties"], part)
            elif isinstance(items, dict) and "properties" in items:
                columns += self._inside(raw["name"], items["properties"], [*here, "items", "properties"], part)
            else:
                columns.append(self._column(raw, here, part))
        return columns

    def _inside(self, name: str, properties: Any, where: _Where, part: Part | None) -> list[Column]:
        """The columns of an object of a request: their side is what its name says."""
        if part is not None:
            raise self._fail(where, f"'{name}' lies in '{part}'; objects go one level deep")
        for known in PARTS:
            if known == name:
                return self._columns(properties, where, known)
        raise self._fail(where, f"'{name}' is no object of a request; {did_you_mean(name, PARTS)}")

    def _column(self, raw: dict[str, Any], here: _Where, part: Part | None) -> Column:
        name, physical = raw["name"], str(raw.get("physicalType", ""))
        if name.startswith("_") or not name.isprintable() or not name:
            raise self._fail([*here, "name"], "a column's name is printable and does not start with _ (those are ours)")
        if physical not in DTYPES:
            what = f"'{name}': unknown physicalType '{physical}'; {did_you_mean(physical, DTYPES)}"
            raise self._fail([*here, "physicalType"], what)
        if raw.get("logicalType") != LOGICAL[physical]:
            what = f"'{name}': physicalType {physical} goes with logicalType {LOGICAL[physical]}"
            raise self._fail([*here, "logicalType"], what)
        for key in ("required", "unique"):
            if not isinstance(raw.get(key, False), bool):
                raise self._fail([*here, key], f"'{name}': {key} is true or false, not {raw[key]!r}")
        rules = Rules(self._tree, here, name, physical)
        role, side = rules.custom(raw.get("customProperties"))
        options = rules.options(raw.get("logicalTypeOptions"))
        return Column(
            name=name,
            physical=physical,
            required=raw.get("required", False),
            unique=raw.get("unique", False),
            minimum=options.get("minimum"),
            maximum=options.get("maximum"),
            min_length=options.get("minLength", options.get("minItems")),
            max_length=options.get("maxLength", options.get("maxItems")),
            pattern=options.get("pattern"),
            allowed=rules.allowed(raw.get("quality")),
            role=role,
            side=side or (PARTS[part] if part else None),
            within=part,
            description=str(raw.get("description", "")),
        )

    def _freshness(self, promises: Any) -> float | None:
        if not isinstance(promises, list):
            raise self._fail(["slaProperties"], "is a list of {property, value, unit}")
        for index, sla in enumerate(promises):
            if not isinstance(sla, dict) or sla.get("property") != "freshness":
                continue
            here: _Where = ["slaProperties", index]
            unit, value = str(sla.get("unit", "s")), sla.get("value")
            if unit not in _SECONDS:
                raise self._fail([*here, "unit"], f"unknown unit '{unit}'; {did_you_mean(unit, _SECONDS)}")
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
                raise self._fail([*here, "value"], f"freshness is a number above 0, not {value!r}")
            return float(value) * _SECONDS[unit]
        return None
