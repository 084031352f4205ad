"""The topics' document is made from the contracts, and follows them."""

from pathlib import Path
from typing import get_args, get_type_hints

import pytest
import yaml

from contracts.app import App, load_app
from contracts.asyncapi import asyncapi, asyncapi_yaml
from contracts.jsonschema import json_schema
from contracts.names import topic
from contracts.serving import CODES, AdResponse, Score
from deploy.commands.init import write_app


def _refs(node: object) -> list[str]:
    if isinstance(node, dict):
        return ([node["$ref"]] if "$ref" in node else []) + [ref for value in node.values() for ref in _refs(value)]
    return [ref for value in node for ref in _refs(value)] if isinstance(node, list) else []


@pytest.mark.parametrize("name", ["adsim", "kuairand"])
def test_the_document_has_every_topic_and_its_references_resolve(name: str, request: pytest.FixtureRequest) -> None:
    app: App = request.getfixturevalue(name)
    document = asyncapi(app)
    assert document["asyncapi"] == "3.0.0"
    streams = ["impressions", "clicks", "requests", "responses"]
    assert [channel["address"] for channel in document["channels"].values()] == [topic(stream) for stream in streams]
    for stream in streams[:3]:
        message = document["components"]["messages"][stream]
        assert message["payload"]["schema"] == json_schema(getattr(app, stream))
        assert document["operations"][f"receive_{stream}"]["action"] == "receive"
    references = _refs(document)
    assert "#/channels/responses" in references
    for reference in references:
        node = document
        for step in reference.removeprefix("#/").split("/"):
            node = node[step]


def test_the_schema_of_an_answer_is_that_of_the_message(adsim: App) -> None:
    schema = asyncapi(adsim)["components"]["messages"]["responses"]["payload"]
    assert set(schema["properties"]) == set(AdResponse.__struct_fields__)
    assert set(schema["properties"]["scores"]["items"]["properties"]) == set(Score.__struct_fields__)
    sources = {*schema["properties"]["source"]["enum"]} - {None}
    assert sources == {word for part in get_args(get_type_hints(AdResponse)["source"]) for word in get_args(part)}
    assert schema["properties"]["error"]["properties"]["code"]["enum"] == list(CODES)


def test_the_yaml_says_the_same_without_anchors(adsim: App) -> None:
    text = asyncapi_yaml(adsim)
    assert yaml.safe_load(text) == asyncapi(adsim)
    assert "&id" not in text
    assert adsim.schema_id in text


def test_the_document_follows_its_contract(tmp_path: Path) -> None:
    write_app(tmp_path, "shop")
    before = asyncapi_yaml(load_app(tmp_path))
    contract = tmp_path / "impressions.odcs.yaml"
    contract.write_text(contract.read_text().replace("maximum: 10000", "maximum: 777"))
    after = asyncapi_yaml(load_app(tmp_path))
    assert "maximum: 777" not in before
    assert "maximum: 777" in after
    assert after == asyncapi_yaml(load_app(tmp_path))
