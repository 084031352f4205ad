"""The app's topics as one AsyncAPI 3.0 document: who may send what where, made from the same contracts."""

from typing import Any

import yaml

from contracts.app import App
from contracts.columns import DataContract
from contracts.jsonschema import DIALECT, json_schema
from contracts.names import topic
from contracts.serving import CODES

_HEADERS = {
    "type": "object",
    "description": "CloudEvents in Kafka's binary mode; all may be left out.",
    "properties": {
        "ce_id": {"type": "string"},
        "ce_type": {"type": "string"},
        "ce_time": {"type": "string", "format": "date-time"},
        "traceparent": {"type": "string", "description": "W3C trace context; passed on."},
    },
}
_REPLY_HEADERS = {
    "kafka_correlationId": {"type": "string", "description": "Copied into the answer."},
    "kafka_replyTopic": {"type": "string", "description": "Where the answer goes; must be allow-listed."},
}
_RESPONSE: dict[str, Any] = {
    "$schema": DIALECT,
    "title": "responses",
    "description": "The answer to one ad request: a score a candidate, or why there is none.",
    "type": "object",
    "properties": {
        "id": {"type": ["string", "null"], "description": "Of the request."},
        "model": {"type": ["string", "null"], "description": "The one of several models that answered."},
        "model_version": {"type": ["integer", "null"], "description": "All scores come from this version."},
        "schema_id": {"type": ["string", "null"], "pattern": "^[0-9a-f]{16}$"},
        "source": {"enum": ["model", "stale", "prior", "expired", None]},
        "scores": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "item_id": {"type": ["string", "null"]},
                    "pctr": {"type": ["number", "null"], "minimum": 0, "maximum": 1},
                    "refused": {"type": ["string", "null"], "description": "code: detail"},
                },
                "required": ["item_id"],
            },
        },
        "took_us": {"type": "integer", "minimum": 0},
        "error": {
            "type": ["object", "null"],
            "properties": {"code": {"enum": list(CODES)}, "detail": {"type": "string"}},
            "required": ["code", "detail"],
        },
    },
    "required": ["id"],
}


def asyncapi(app: App) -> dict[str, Any]:
    """The document: four topics, seen from Rocket, which receives events and requests and sends responses.

    Args:
        app: its three contracts give the payloads.
    """
    received = {"impressions": app.impressions, "clicks": app.clicks, "requests": app.requests}
    messages = {name: _message(name, contract) for name, contract in received.items()}
    messages["responses"] = {
        "name": "responses",
        "contentType": "application/json",
        "headers": {"type": "object", "properties": {"kafka_correlationId": {"type": "string"}}},
        "payload": _RESPONSE,
    }
    operations = {
        f"receive_{name}": {
            "action": "receive",
            "channel": {"$ref": f"#/channels/{name}"},
            "messages": [{"$ref": f"#/channels/{name}/messages/{name}"}],
        }
        for name in received
    }
    operations["receive_requests"]["reply"] = {
        "channel": {"$ref": "#/channels/responses"},
        "messages": [{"$ref": "#/channels/responses/messages/responses"}],
    }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": f"Rocket: {app.name}",
            "version": app.impressions.version,
            "description": app.config.description,
            "x-schema-id": app.schema_id,
        },
        "defaultContentType": "application/json",
        "channels": {
            name: {
                "address": topic(name),
                "messages": {name: {"$ref": f"#/components/messages/{name}"}},
            }
            for name in messages
        },
        "operations": operations,
        "components": {"messages": messages},
    }


def asyncapi_yaml(app: App) -> str:
    """The same as YAML text; the same app gives the same bytes."""
    return yaml.dump(asyncapi(app), Dumper=_NoAliases, sort_keys=False, allow_unicode=True, width=120)


class _NoAliases(yaml.SafeDumper):
    """Writes shared parts out each time: generators of code trip over anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        """Never."""
        return True


def _message(name: str, contract: DataContract) -> dict[str, Any]:
    headers: dict[str, Any] = dict(_HEADERS)
    if name == "requests":
        headers = {**_HEADERS, "properties": {**_HEADERS["properties"], **_REPLY_HEADERS}}  # type: ignore[dict-item]
    return {
        "name": name,
        "title": contract.name,
        "summary": contract.description,
        "contentType": "application/json",
        "headers": headers,
        "payload": {
            "schemaFormat": "application/schema+json;version=draft-2020-12",
            "schema": json_schema(contract),
        },
    }
