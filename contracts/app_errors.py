"""What is wrong in an `app.toml`, as one sentence with file, line, key and a suggestion."""

import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from contracts.errors import ContractError, did_you_mean

MAX_BYTES = 1_048_576
_HEADER = re.compile(r"(\[\[?)\s*([^\]]+?)\s*\]")


def read_toml(path: Path) -> dict[str, Any]:
    """The file's tables.

    Raises:
        ContractError: it cannot be read, is larger than 1 MB, not UTF-8 or not TOML.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ContractError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    if len(raw) > MAX_BYTES:
        raise ContractError(f"{path}: more than {MAX_BYTES:,} bytes; is it the right file?")
    try:
        return tomllib.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ContractError(f"{path}: not UTF-8 (byte {error.start}); save it as UTF-8 text") from error
    except tomllib.TOMLDecodeError as error:
        raise ContractError(f"{path}: not TOML: {error}; mend it there or just above") from error
    except RecursionError as error:
        raise ContractError(f"{path}: not TOML that can be read: its values are nested too deeply") from error


def explain(path: Path, raw: Mapping[str, Any], config: type[BaseModel], error: ValidationError) -> str:
    """The first complaint of pydantic as one sentence with the line and a suggestion.

    Args:
        path: the `app.toml`.
        raw: what was validated: the file with the overrides laid over it.
        config: the model of the whole file.
        error: what pydantic said.
    """
    first = error.errors()[0]
    where = first["loc"]
    line = line_of(path, where)
    at = f"{path}, line {line}, key {_dotted(where, raw)}" if line else f"{path}, key {_dotted(where, raw)}"
    if first["type"] == "extra_forbidden":
        return f"{at}: unknown key; {did_you_mean(str(where[-1]), _keys_at(config, where[:-1]))}"
    if first["type"] == "missing":
        if len(where) == 1 and where[0] not in {"name", "description"}:
            return f"{path}: the section [{where[0]}] is missing; add it"
        return f"{at}: is missing; add it"
    said = first["msg"].removeprefix("Value error, ")
    if first["type"] == "literal_error":
        value, choices = str(first["input"]), re.findall(r"'([^']*)'", first["msg"])
        return f"{at}: '{value[:80]}' is none of its values; {did_you_mean(value, choices)}"
    if first["type"] == "value_error":
        return f"{at}: {said}"
    return f"{at}: {said} (it says {str(first['input'])[:80]!r})"


def line_of(path: Path, where: Sequence[str | int]) -> int | None:
    """The line of a key in a TOML file, or of the nearest table or key above it; None when the file has neither.

    Args:
        path: the file.
        where: keys and, in an array of tables, the position (from 0): `("features", 2, "column")`.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    for length in range(len(where), 0, -1):
        if (number := _find(lines, where[:length])) is not None:
            return number
    return None


def _find(lines: Sequence[str], where: Sequence[str | int]) -> int | None:
    """The line that sets the key inside its own table, or that opens the table of that name."""
    position = next((step for step in where if isinstance(step, int)), None)
    path = [str(step) for step in where if not isinstance(step, int)]
    current: list[str] = []
    seen = -1
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if header := _HEADER.match(text):
            current = [step.strip().strip('"') for step in header.group(2).split(".")]
            seen += header.group(1) == "[["
        sets = [] if header else [text.split("=")[0].strip().strip('"')]
        if current + sets == path and (position is None or seen == position):
            return number
    return None


def _dotted(where: Sequence[str | int], raw: Mapping[str, Any]) -> str:
    """`train.seed`, or `features['ad'].buckets` where a feature has a name.

    >>> _dotted(("features", 0, "buckets"), {"features": [{"name": "ad"}]})
    "features['ad'].buckets"
    """
    parts: list[str] = []
    here: Any = raw
    for step in where:
        if isinstance(here, Mapping):
            here = here.get(str(step))
        elif isinstance(here, Sequence) and isinstance(step, int) and step < len(here):
            here = here[step]
        if isinstance(step, int) and parts:
            name = here.get("name") if isinstance(here, Mapping) else None
            parts[-1] += f"[{name!r}]" if isinstance(name, str) else f"[{step}]"
        else:
            parts.append(str(step))
    return ".".join(parts)


def _keys_at(config: type[BaseModel], where: Sequence[str | int]) -> list[str]:
    """The keys that the settings know at a place."""
    model: Any = config
    for step in where:
        if isinstance(step, int):
            continue
        annotation = model.model_fields[step].annotation
        inner = [kind for kind in getattr(annotation, "__args__", ()) if isinstance(kind, type)]
        model = next((kind for kind in [annotation, *inner] if _is_model(kind)), None)
        if model is None:
            return []
    return [field.alias or name for name, field in model.model_fields.items()]


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
