"""The rules of one property of an ODCS file: its options, its allowed values, its role and side."""

import math
import re
from typing import Any

import polars as pl

from contracts.columns import ROLES, SIDES, Role, Side
from contracts.errors import did_you_mean
from contracts.yaml_tree import YamlTree

#: physicalType -> the logicalTypeOptions that are checked for it.
_OPTIONS = {
    "string": {"minLength", "maxLength", "pattern", "format"},
    "int64": {"minimum", "maximum"},
    "double": {"minimum", "maximum"},
    "boolean": set[str](),
    "list<string>": {"minItems", "maxItems"},
}
#: physicalType -> what an allowed value is in YAML.
_VALUES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "int64": (int,),
    "double": (int, float),
    "boolean": (bool,),
    "list<string>": (str,),
}
_EXACT = 2**53 - 1
_MENDS = {
    "nullValues": "write required: true",
    "missingValues": "write required: true",
    "duplicateValues": "write unique: true",
}


class Rules:
    """Reads the rules of one property; its errors name file, line and key."""

    def __init__(self, tree: YamlTree, here: list[str | int], name: str, physical: str) -> None:
        self._tree, self._here, self._name, self._physical = tree, here, name, physical

    def _fail(self, where: list[str | int], what: str) -> Exception:
        return self._tree.fail([*self._here, *where], f"'{self._name}': {what}")

    def options(self, raw: Any) -> dict[str, Any]:
        """The checked logicalTypeOptions.

        Raises:
            ContractError: an unknown option, one that does not go with the type, a wrong value, an empty range.
        """
        if raw is None:
            return {}
        if not isinstance(raw, dict):
            raise self._fail(["logicalTypeOptions"], "is a mapping such as {minimum: 0}")
        for key, value in raw.items():
            self._option(str(key), value)
        for low, high in (("minimum", "maximum"), ("minLength", "maxLength"), ("minItems", "maxItems")):
            if low in raw and high in raw and raw[low] > raw[high]:
                raise self._fail(
                    ["logicalTypeOptions", low], f"{low} {raw[low]} is above {high} {raw[high]}; swap them"
                )
        return raw

    def _option(self, key: str, value: Any) -> None:
        where: list[str | int] = ["logicalTypeOptions", key]
        if not any(key in keys for keys in _OPTIONS.values()):
            known = {word for keys in _OPTIONS.values() for word in keys}
            raise self._fail(where, f"unknown option '{key}'; {did_you_mean(key, known)}")
        fitting = _OPTIONS[self._physical]
        if key not in fitting:
            known_here = ", ".join(sorted(fitting)) or "none"
            raise self._fail(where, f"{key} does not go with physicalType {self._physical} (options: {known_here})")
        if key in {"pattern", "format"}:
            if not isinstance(value, str):
                raise self._fail(where, f"{key} is text, not {value!r}; put it in quotes")
            if key == "pattern":
                self._pattern(value, where)
            return
        is_length = key not in {"minimum", "maximum"}
        whole = is_length or self._physical == "int64"
        if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
            raise self._fail(where, f"{key} is {'a whole number' if whole else 'a number'}, not {value!r}")
        if isinstance(value, float) and not math.isfinite(value):
            raise self._fail(where, f"{key} is a finite number, not {value!r}; leave it out for no bound")
        if isinstance(value, int) and not (0 if is_length else -_EXACT) <= value <= _EXACT:
            least = "be 0 or more" if is_length else "lie between -2^53 and 2^53, where doubles are exact"
            raise self._fail(where, f"{key} must {least}, not {value}; for no bound leave it out")

    def _pattern(self, pattern: str, where: list[str | int]) -> None:
        """Both engines that check rows must know the pattern: Polars (Rust) and Great Expectations (Python)."""
        try:
            re.compile(pattern)
        except (re.error, RecursionError, OverflowError) as error:
            raise self._fail(where, f"not a regex: {error}; test it with Python's re") from error
        try:
            pl.select(pl.lit("").str.contains(f"^(?:{pattern})$"))
        except pl.exceptions.PolarsError as error:
            raise self._fail(where, "a regex that Polars does not know; do without look-around and \\1") from error

    def allowed(self, quality: Any) -> tuple[str, ...] | None:
        """The values of the library rule invalidValues; None where there is none.

        Raises:
            ContractError: a rule that Rocket does not check: a rule that is silently not checked is worse than none.
        """
        if quality is None:
            return None
        if not isinstance(quality, list):
            raise self._fail(["quality"], "is a list of rules")
        found: tuple[str, ...] | None = None
        for index, rule in enumerate(quality):
            where: list[str | int] = ["quality", index]
            if isinstance(rule, dict) and rule.get("type") == "text":
                continue  # prose for people
            metric = str(rule.get("metric")) if isinstance(rule, dict) else ""
            if metric != "invalidValues":
                mend = _MENDS.get(metric, did_you_mean(metric, ["invalidValues"]))
                raise self._fail(where, f"the rule '{metric}' is not checked by Rocket; {mend}")
            arguments = rule.get("arguments")
            values = arguments.get("validValues") if isinstance(arguments, dict) else None
            if not isinstance(values, list) or not values or rule.get("mustBe") != 0:
                raise self._fail(where, "invalidValues needs arguments: {validValues: [...]} and mustBe: 0")
            found = tuple(self._value(value, [*where, "arguments", "validValues"]) for value in values)
        return found

    def _value(self, value: Any, where: list[str | int]) -> str:
        fits = _VALUES[self._physical]
        if not isinstance(value, fits) or (isinstance(value, bool) and bool not in fits):
            mend = f"put it in quotes: YAML reads it as {type(value).__name__}" if fits == (str,) else "mend the value"
            raise self._fail(where, f"the allowed value {value!r} is no {self._physical}; {mend}")
        return str(value)

    def custom(self, properties: Any) -> tuple[Role | None, Side | None]:
        """The role and the side among customProperties; others are left alone, unless they look like a typo of these.

        Raises:
            ContractError: an unknown role or side.
        """
        role: Role | None = None
        side: Side | None = None
        if not isinstance(properties or [], list):
            raise self._fail(["customProperties"], "is a list of {property, value}")
        for index, entry in enumerate(properties or []):
            where: list[str | int] = ["customProperties", index]
            if not isinstance(entry, dict) or not {"property", "value"} <= entry.keys():
                raise self._fail(where, "a custom property is {property: ..., value: ...}")
            key, value = str(entry["property"]), str(entry["value"])
            if key == "role":
                role = next((known for known in ROLES if known == value), None)
                if role is None:
                    raise self._fail(where, f"unknown role '{value}'; {did_you_mean(value, ROLES)}")
            elif key == "side":
                side = next((known for known in SIDES if known == value), None)
                if side is None:
                    raise self._fail(where, f"unknown side '{value}'; {did_you_mean(value, SIDES)}")
            elif (mend := did_you_mean(key, ["role", "side"])).startswith("did"):
                raise self._fail(where, f"unknown custom property '{key}'; {mend}")
        return role, side
