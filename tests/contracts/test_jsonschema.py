"""JSON Schema from a contract refuses what Rocket refuses."""

import copy
import json
from pathlib import Path

import jsonschema
import pytest

from contracts.app import App
from contracts.columns import Column, DataContract
from contracts.jsonschema import json_schema, json_schema_text
from nodes.check_rows import event_rows, request_rows

_DATA = Path(__file__).parents[1] / "data"
_STREAMS = ["impressions", "clicks", "requests"]


def _validator(contract: DataContract) -> jsonschema.Draft202012Validator:
    schema = json_schema(contract)
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("name", ["adsim", "kuairand"])
@pytest.mark.parametrize("stream", _STREAMS)
def test_the_schema_and_rocket_refuse_the_same_lines(name: str, stream: str, request: pytest.FixtureRequest) -> None:
    app: App = request.getfixturevalue(name)
    validator = _validator(getattr(app, stream))
    for kind in ("good", "bad"):
        path = _DATA / name / f"{kind}.{stream}.ndjson"
        lines = path.read_bytes().splitlines()
        refused = set()
        for number, line in enumerate(lines):
            try:
                if not validator.is_valid(json.loads(line, parse_constant=str)):
                    refused.add(number)
            except ValueError:  # not JSON at all, which no schema can say
                refused.add(number)
        rows = request_rows(path, app) if stream == "requests" else event_rows(path, app, stream)
        by_rocket = {line for chunk in rows for line in chunk.refused["line"]}
        assert refused == by_rocket
        assert bool(refused) == (kind == "bad")


def test_a_request_is_nested_and_strict(adsim: App) -> None:
    validator = _validator(adsim.requests)
    good = json.loads((_DATA / "adsim" / "good.requests.ndjson").read_text().splitlines()[0])
    assert validator.is_valid(good)
    for change in (
        lambda it: it.update(extra=1),
        lambda it: it["user"].update(device="tv"),
        lambda it: it["context"].pop("device"),
        lambda it: it.update(candidates={}),
        lambda it: it["candidates"][0].pop("item_id"),
        lambda it: it.update(id=None),
        lambda it: it.update(event_time_ms=True),
    ):
        bad = copy.deepcopy(good)
        change(bad)
        assert not validator.is_valid(bad)


def test_every_kind_of_rule_is_said() -> None:
    columns = (
        Column(name="n", physical="int64", required=True, allowed=("1", "2")),
        Column(name="b", physical="boolean", allowed=("True",)),
        Column(name="s", physical="string", pattern="a|bc", min_length=1, description="a word"),
        Column(name="l", physical="list<string>", min_length=1, max_length=2, allowed=("x",)),
    )
    validator = _validator(DataContract(path="p", id="a.b", name="n", version="1.0.0", columns=columns))
    for good in ({"n": 1}, {"n": 2, "b": True, "s": "bc", "l": ["x"]}, {"n": 1, "b": None, "s": None, "l": None}):
        assert validator.is_valid(good), good
    for bad in ({}, {"n": None}, {"n": 3}, {"n": 2**63}, {"n": 1, "b": False}, {"n": 1, "s": "xbc"}, {"n": 1, "l": []},
                {"n": 1, "l": ["y"]}, {"n": 1, "l": ["x"] * 3}, {"n": 1, "l": [None]}):  # fmt: skip
        assert not validator.is_valid(bad), bad


def test_the_text_is_stable_and_names_the_contract(adsim: App) -> None:
    text = json_schema_text(adsim.clicks)
    assert text == json_schema_text(adsim.clicks)
    assert json.loads(text)["$id"] == "urn:rocket:adsim:clicks:1.0.0"
