"""Data contracts: what a file may say, and how its errors read."""

import json
from pathlib import Path

import jsonschema
import open_data_contract_standard
import pytest
import yaml
from open_data_contract_standard.model import OpenDataContractStandard

from contracts.app import App, shipped_apps
from contracts.errors import ContractError
from contracts.odcs import load_contract

_SHIPPED = sorted(path for folder in shipped_apps().values() for path in folder.glob("*.odcs.yaml"))
_TEMPLATES = sorted((Path(__file__).parents[2] / "deploy" / "templates" / "app").glob("*.odcs.yaml"))
_HEAD = """apiVersion: v3.1.0
kind: DataContract
id: shop.events
version: 1.0.0
status: active
schema:
  - name: events
    properties:
"""
_COLUMN = """      - name: age
        logicalType: integer
        physicalType: int64
        required: true
        logicalTypeOptions: {minimum: 0, maximum: 150}
"""


def _load(tmp_path: Path, text: str):
    path = tmp_path / "events.odcs.yaml"
    path.write_text(text, encoding="utf-8")
    return load_contract(path)


def _column(**changes) -> str:
    lines = {"name": "age", "logicalType": "integer", "physicalType": "int64"} | changes
    return "".join(
        f"      {'-' if place == 0 else ' '} {key}: {value}\n" for place, (key, value) in enumerate(lines.items())
    )


@pytest.mark.parametrize("path", _SHIPPED + _TEMPLATES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_a_contract_that_comes_with_rocket_keeps_the_standard(path: Path) -> None:
    schema = json.loads((Path(open_data_contract_standard.__file__).parent / "schema.json").read_text())
    text = path.read_text().replace("@NAME@", "shop")
    raw = yaml.safe_load(text)
    validator = jsonschema.validators.validator_for(schema)(schema)
    assert [error.message for error in validator.iter_errors(raw)] == []
    loaded = OpenDataContractStandard.from_string(text)
    assert loaded.schema_[0].name == path.name.split(".")[0]


def test_a_contract_loads_with_its_rules(tmp_path: Path) -> None:
    sla = "slaProperties: [{property: freshness, value: 2, unit: h}]\n"
    contract = _load(
        tmp_path, sla + _HEAD + _COLUMN + _column(name="n", logicalTypeOptions="{maximum: 9007199254740991}")
    )
    assert contract.freshness_s == 7200
    assert contract.columns[0].model_dump(exclude_defaults=True) == {
        "name": "age", "physical": "int64", "required": True, "minimum": 0, "maximum": 150,
    }  # fmt: skip
    assert contract.columns[1].maximum == 2**53 - 1


def test_the_columns_of_a_request_know_their_object_and_side(adsim: App) -> None:
    columns = {column.name: column for column in adsim.requests.columns}
    assert (columns["id"].within, columns["id"].side) == (None, None)
    assert (columns["device"].within, columns["device"].side) == ("context", "context")
    assert (columns["bid"].within, columns["bid"].side) == ("candidates", "item")


#: what is wrong -> (text, line or None, parts of the message)
_WRONG = {
    "an unknown key": (_HEAD + _column(requird="true"), 12, ["requird", "did you mean 'required'"]),
    "an unknown key on top": (_HEAD.replace("status", "statsu") + _COLUMN, 5, ["statsu", "did you mean 'status'"]),
    "a missing version": (_HEAD.replace("version: 1.0.0\n", "") + _COLUMN, None, ["version"]),
    "a version that is a number": (_HEAD.replace("1.0.0", "1.0") + _COLUMN, 4, ["version", "quotes"]),
    "another kind": (_HEAD.replace("DataContract", "Table") + _COLUMN, 2, ["kind: DataContract"]),
    "no schema": (_HEAD.split("schema:", maxsplit=1)[0], None, ["schema", "exactly one"]),
    "no properties": (_HEAD, 8, ["list of properties"]),
    "not a mapping": ("- a\n- b\n", 1, ["mapping"]),
    "an empty file": ("", 1, ["mapping"]),
    "a property without name": (_HEAD + "      - physicalType: string\n", 9, ["needs a name"]),
    "a name that YAML reads as true": (_HEAD + _column(name="yes"), 9, ["needs a name", "quotes"]),
    "a name that is kept": (_HEAD + _column(name="_late"), 9, ["start with _"]),
    "an unknown physicalType": (_HEAD + _column(physicalType="int46"), 11, ["int46", "did you mean 'int64'"]),
    "types that do not go together": (_HEAD + _column(logicalType="number"), 10, ["logicalType integer"]),
    "required that is text": (_HEAD + _column(required="'yes'"), 12, ["true or false"]),
    "an unknown option": (_HEAD + _column(logicalTypeOptions="{minimun: 1}"), 12, ["did you mean 'minimum'"]),
    "an option of another type": (_HEAD + _column(logicalTypeOptions="{maxLength: 1}"), 12, ["does not go with"]),
    "a bound that is text": (_HEAD + _column(logicalTypeOptions="{minimum: low}"), 12, ["whole number"]),
    "a bound that is no integer": (_HEAD + _column(logicalTypeOptions="{minimum: 0.5}"), 12, ["whole number"]),
    "a bound beyond 2^53": (_HEAD + _column(logicalTypeOptions="{maximum: 9007199254740993}"), 12, ["2^53"]),
    "an empty range": (_HEAD + _column(logicalTypeOptions="{minimum: 2, maximum: 1}"), 12, ["above maximum", "swap"]),
    "an infinite bound": (
        _HEAD + _column(logicalType="number", physicalType="double", logicalTypeOptions="{maximum: .inf}"), 12,
        ["finite"],
    ),
    "a negative length": (
        _HEAD + _column(logicalType="string", physicalType="string", logicalTypeOptions="{maxLength: -1}"), 12,
        ["0 or more"],
    ),
    "a bad regex": (
        _HEAD + _column(logicalType="string", physicalType="string", logicalTypeOptions="{pattern: '[a-'}"), 12,
        ["not a regex"],
    ),
    "a regex with look-around": (
        _HEAD + _column(logicalType="string", physicalType="string", logicalTypeOptions="{pattern: '(?=a)b'}"), 12,
        ["Polars does not know"],
    ),
    "an unknown role": (
        _HEAD + _column(customProperties="[{property: role, value: user}]"), 12, ["did you mean 'user_id'"],
    ),
    "an unknown side": (
        _HEAD + _column(customProperties="[{property: side, value: contex}]"), 12, ["did you mean 'context'"],
    ),
    "a custom property that looks like role": (
        _HEAD + _column(customProperties="[{property: rolle, value: user_id}]"), 12, ["did you mean 'role'"],
    ),
    "a custom property without value": (_HEAD + _column(customProperties="[{property: role}]"), 12, ["value"]),
    "a rule that is not checked": (
        _HEAD + _column(quality="[{type: library, metric: nullValues, mustBe: 0}]"), 12, ["required: true"],
    ),
    "an SQL rule": (_HEAD + _column(quality="[{type: sql, query: select 1}]"), 12, ["not checked by Rocket"]),
    "allowed values without mustBe": (
        _HEAD + _column(quality="[{metric: invalidValues, arguments: {validValues: [1]}}]"), 12, ["mustBe: 0"],
    ),
    "an allowed value of another type": (
        _HEAD + _column(logicalType="string", physicalType="string",
                        quality="[{metric: invalidValues, arguments: {validValues: [no]}, mustBe: 0}]"), 12,
        ["False", "quotes"],
    ),
    "a name that stands twice": (_HEAD + _COLUMN + _COLUMN, 7, ["'age' stands twice"]),
    "a role that stands twice": (
        _HEAD + _column(customProperties="[{property: role, value: user_id}]")
        + _column(name="b", customProperties="[{property: role, value: user_id}]"), 7, ["role 'user_id'"],
    ),
    "a key that stands twice": (_HEAD + _COLUMN + "        required: false\n", 14, ["required", "twice"]),
    "an unknown object": (
        _HEAD + "      - {name: usr, logicalType: object, properties: [{name: a}]}\n", 9, ["did you mean 'user'"],
    ),
    "an object in an object": (
        _HEAD + "      - {name: user, logicalType: object, properties: [{name: context, logicalType: object}]}\n", 9,
        ["one level"],
    ),
    "an unknown unit of freshness": (
        "slaProperties: [{property: freshness, value: 1, unit: y}]\n" + _HEAD + _COLUMN, 1, ["unit 'y'"],
    ),
    "a freshness below zero": ("slaProperties: [{property: freshness, value: -1}]\n" + _HEAD + _COLUMN, 1, ["above 0"]),
    "broken YAML": (_HEAD + "      - {name: [\n", 10, ["not YAML"]),
    "a Python object": (_HEAD + "      - !!python/object/apply:os.system ['true']\n", 9, ["python/object"]),
    "an own tag": (_HEAD + "      - !mine {a: 1}\n", 9, ["!mine", "not allowed"]),
    "a bomb of anchors": (
        "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n" + _HEAD + _COLUMN, 1, ["anchors", "not allowed"],
    ),
    "deep nesting": ("a: " + "[" * 500 + "]" * 500 + "\n" + _HEAD, 1, ["32 levels"]),
    "an integer of 5,000 digits": ("name: " + "9" * 5000 + "\n" + _HEAD + _COLUMN, None, ["not YAML"]),
}  # fmt: skip


@pytest.mark.parametrize("what", _WRONG)
def test_a_wrong_contract_is_told_with_file_line_and_mend(what: str, tmp_path: Path) -> None:
    text, line, parts = _WRONG[what]
    with pytest.raises(ContractError) as caught:
        _load(tmp_path, text)
    said = str(caught.value)
    assert said.startswith(str(tmp_path / "events.odcs.yaml"))
    assert len(said) < 600
    assert "\n" not in said
    if line is not None:
        assert f", line {line}" in said
    for part in parts:
        assert part in said


def test_a_contract_that_is_absent_huge_or_not_text_is_told(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="cannot be read"):
        load_contract(tmp_path / "none.odcs.yaml")
    with pytest.raises(ContractError, match="cannot be read"):
        load_contract(tmp_path)
    with pytest.raises(ContractError, match="more than 1,048,576 bytes"):
        _load(tmp_path, _HEAD + "# " + "x" * 1_100_000)
    (tmp_path / "latin.odcs.yaml").write_bytes(_HEAD.encode() + b"# \xff")
    with pytest.raises(ContractError, match="not UTF-8"):
        load_contract(tmp_path / "latin.odcs.yaml")
