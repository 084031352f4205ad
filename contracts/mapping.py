"""How the columns of someone's own log become those of an app: what `rocket import csv` reads, and from where."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_origin

from pydantic import Field, ValidationError

from contracts.app_errors import explain, read_toml
from contracts.errors import ContractError, did_you_mean
from contracts.sections import Section

_Character = Annotated[str, Field(min_length=1, max_length=1)]


class LogMapping(Section):
    """A mapping file, or the options that stand for it."""

    #: column of the impressions contract -> column of the file; one that is not named has the same name in both
    columns: dict[str, str] = Field(default_factory=dict)
    label: str = "label"  #: the file's column that says whether the row was clicked
    clicked: tuple[str, ...] = ("1", "true", "True", "TRUE")  #: its texts for a click; `not_clicked` for none
    not_clicked: tuple[str, ...] = ("0", "false", "False", "FALSE")
    click_time: str | None = None  #: the file's column with the time of the click; None: it is drawn
    #: of the times in the file, where they are numbers
    time_unit: Literal["s", "ms", "us", "ns"] = "ms"
    time_format: str | None = None  #: where they are texts: strftime's codes, such as "%Y-%m-%d %H:%M:%S"; UTC
    names: tuple[str, ...] = ()  #: the file's columns where it has no header
    separator: _Character = ","
    quote: str = Field(default='"', max_length=1)  #: around fields that hold separators; "": none
    null: tuple[str, ...] = ("",)  #: texts that say that a value is missing
    list_separator: str = Field(default="|", min_length=1)  #: between the items of a list
    in_order: bool = False  #: rows come in order of time: nothing is sorted


def mapping_of(options: Sequence[str], columns: Collection[str]) -> LogMapping:
    r"""The mapping that some options make together, later ones over earlier ones.

    Args:
        options: each a TOML file with the keys of `LogMapping`, or KEY=VALUE: a column of the contract and the file's
            column for it, or a key of `LogMapping` (a list's values with commas between; \t is a tab).
        columns: those of the impressions contract.

    Raises:
        ContractError: a file cannot be read, or a key or value is none.

    >>> made = mapping_of(["user_id=uid", "label=bought", "separator=;", "null=,NULL"], ["user_id"])
    >>> made.columns, made.label, made.separator, made.null
    ({'user_id': 'uid'}, 'bought', ';', ('', 'NULL'))
    """
    raw: dict[str, Any] = {}
    for option in options:
        key, equals, value = option.partition("=")
        over = {"columns": {key: value}} if key in columns else {key: _value(key, value)}
        if not equals:
            path = Path(option)
            over = read_toml(path)
            try:
                LogMapping.model_validate(over)
            except ValidationError as error:
                raise ContractError(explain(path, over, LogMapping, error)) from error
        elif key not in columns and (key not in LogMapping.model_fields or key == "columns"):
            known = [*columns, *(name for name in LogMapping.model_fields if name != "columns")]
            raise ContractError(
                f"--map {option}: '{key}' is no column of the app and no setting; {did_you_mean(key, known)}"
            )
        raw |= over | {"columns": raw.get("columns", {}) | over.get("columns", {})}
        try:
            LogMapping.model_validate(raw)
        except ValidationError as error:
            said = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise ContractError(f"--map {option}: {said}; give {key}=VALUE with another value") from error
    return LogMapping.model_validate(raw)


def _value(key: str, text: str) -> Any:
    field = LogMapping.model_fields.get(key)
    text = text.replace("\\t", "\t")
    return text.split(",") if field is not None and get_origin(field.annotation) is tuple else text
