"""YAML from strangers: bounded, plain data only, and every key knows its line."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from contracts.errors import ContractError

MAX_BYTES = 1_048_576
_MAX_DEPTH = 32
_PLAIN_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "map", "seq")}


class YamlTree:
    """One YAML document as plain Python data, which can name the line of each key."""

    def __init__(self, path: Path) -> None:
        """Read and parse a file.

        Refused: more than 1 MB, deeper than 32 levels, anchors and aliases (a few lines of them can stand for billions
        of values), tags that make anything but plain data, a key that stands twice.

        Raises:
            ContractError: naming the file and the line.
        """
        self._path = path
        text = self._text()
        try:
            self._refuse_traps(text)
            self._root = yaml.compose(text, Loader=yaml.SafeLoader)
            self._refuse_twins(self._root)
            #: the document as dicts, lists and scalars
            self.data: Any = yaml.safe_load(text)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            line = f", line {mark.line + 1}" if mark else ""
            said = getattr(error, "problem", None) or " ".join(str(error).split())
            raise ContractError(f"{path}{line}: not YAML: {said}; mend it there or just above") from error
        except ValueError as error:  # a date that is none, an integer of 5,000 digits
            raise ContractError(f"{path}: not YAML: {error}; put the value in quotes") from error

    def line(self, where: Sequence[str | int]) -> int:
        """The line (from 1) of a dotted place, or of the nearest place above it that exists.

        Args:
            where: keys and list positions from the root.
        """
        node, line = self._root, 1
        for step in where:
            if isinstance(node, yaml.MappingNode):
                found = [(key, value) for key, value in node.value if key.value == str(step)]
                if not found:
                    break
                line, node = found[0][0].start_mark.line + 1, found[0][1]
            elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
                node = node.value[step]
                line = node.start_mark.line + 1
        return line

    def fail(self, where: Sequence[str | int], what: str) -> ContractError:
        """An error at a dotted place: file, line, key and what is wrong."""
        key = f", key {'.'.join(str(step) for step in where)}" if where else ""
        return ContractError(f"{self._path}, line {self.line(where)}{key}: {what}")

    def _text(self) -> str:
        path = self._path
        try:
            with path.open("rb") as file:
                raw = file.read(MAX_BYTES + 1)
            if len(raw) > MAX_BYTES:
                raise ContractError(
                    f"{path}: more than {MAX_BYTES:,} bytes; a contract is a few pages, is it this file?"
                )
            return raw.decode("utf-8")
        except OSError as error:
            raise ContractError(f"{path}: cannot be read ({error.strerror}); every app needs this contract") from error
        except UnicodeDecodeError as error:
            raise ContractError(f"{path}: not UTF-8 (byte {error.start}); save it as UTF-8 text") from error

    def _refuse_traps(self, text: str) -> None:
        """Look at the events alone, before anything is built from them."""
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            at = f"{self._path}, line {event.start_mark.line + 1 if event.start_mark else 1}"
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                raise ContractError(f"{at}: anchors (&) and aliases (*) are not allowed here; write the value out")
            tag = getattr(event, "tag", None)
            if tag is not None and tag not in _PLAIN_TAGS:
                raise ContractError(f"{at}: the tag {tag} is not allowed; a contract holds plain values only")
            if isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
                depth += 1
                if depth > _MAX_DEPTH:
                    raise ContractError(f"{at}: nested deeper than {_MAX_DEPTH} levels; a contract is flatter")
            elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
                depth -= 1

    def _refuse_twins(self, node: Any) -> None:
        if isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for key, value in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    at = f"{self._path}, line {key.start_mark.line + 1}"
                    raise ContractError(f"{at}: a key must be a word, not a list or a mapping")
                if key.value in seen:
                    at = f"{self._path}, line {key.start_mark.line + 1}, key {key.value}"
                    raise ContractError(f"{at}: stands twice in one mapping; remove one")
                seen.add(key.value)
                self._refuse_twins(value)
        elif isinstance(node, yaml.SequenceNode):
            for value in node.value:
                self._refuse_twins(value)
