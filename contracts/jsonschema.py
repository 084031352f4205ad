"""A contract as JSON Schema (2020-12): what a message of it looks like on the wire.

A message that the schema refuses is refused by Rocket too, and the other way round; but for what JSON Schema cannot
say: it counts 1.0 as an integer, and where one number is not finite it never gets to see it.
"""

import json
from typing import Any

from contracts.columns import PARTS, Column, DataContract

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_TYPES = {"string": "string", "int64": "integer", "double": "number", "boolean": "boolean", "list<string>": "array"}
_INT64 = (-(2**63), 2**63 - 1)


def json_schema(contract: DataContract) -> dict[str, Any]:
    """The schema of one event (flat), or of one request (with its `user`, `context` and `candidates`).

    Args:
        contract: columns that lie in an object of a request make it nested.

    >>> bid = Column(name="bid", physical="double", minimum=0)
    >>> schema = json_schema(DataContract(path="p", id="p", name="bids", version="1.0.0", columns=(bid,)))
    >>> schema["properties"]["bid"], schema["additionalProperties"]
    ({'type': ['number', 'null'], 'minimum': 0}, False)
    """
    schema: dict[str, Any] = {
        "$schema": DIALECT,
        "$id": f"urn:{contract.id.replace('.', ':')}:{contract.version}",
        "title": contract.name,
    }
    if contract.description:
        schema["description"] = contract.description
    schema |= _object([column for column in contract.columns if column.within is None])
    for part in PARTS:
        inside = [column for column in contract.columns if column.within == part]
        if inside or _is_nested(contract):
            made: dict[str, Any] = _object(inside)
            schema["properties"][part] = (
                {"type": "array", "items": made, "minItems": 1} if part == "candidates" else made
            )
            schema["required"] = sorted({*schema["required"], part})
    return schema


def json_schema_text(contract: DataContract) -> str:
    """The same as indented text that ends with a newline; the same contract gives the same bytes."""
    return json.dumps(json_schema(contract), indent=2, ensure_ascii=False) + "\n"


def _is_nested(contract: DataContract) -> bool:
    return any(column.within is not None for column in contract.columns)


def _object(columns: list[Column]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {column.name: _value(column) for column in columns},
        "required": sorted(column.name for column in columns if column.required),
        "additionalProperties": False,
    }


def _value(column: Column) -> dict[str, Any]:
    kind = _TYPES[column.physical]
    schema: dict[str, Any] = {"type": kind if column.required else [kind, "null"]}
    if column.description:
        schema["description"] = column.description
    if column.physical == "int64":
        schema |= {"minimum": _INT64[0], "maximum": _INT64[1]}
    if column.minimum is not None:
        schema["minimum"] = column.minimum
    if column.maximum is not None:
        schema["maximum"] = column.maximum
    length = "Items" if column.physical == "list<string>" else "Length"
    if column.min_length is not None:
        schema[f"min{length}"] = column.min_length
    if column.max_length is not None:
        schema[f"max{length}"] = column.max_length
    if column.pattern is not None:
        schema["pattern"] = f"^(?:{column.pattern})$"  # JSON Schema's patterns match anywhere
    if column.physical == "list<string>":
        schema["items"] = {"type": "string"}
        if column.allowed is not None:
            schema["items"]["enum"] = list(column.allowed)
    elif column.allowed is not None:
        allowed = [json.loads(word.lower()) if kind != "string" else word for word in column.allowed]
        schema["enum"] = allowed if column.required else [*allowed, None]
    return schema
