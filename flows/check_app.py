"""An app by itself: does it load, do its checks and features compile, and what do the nets see?"""

from pathlib import Path
from typing import Any

import polars as pl

from contracts.app import App
from contracts.asyncapi import asyncapi_yaml
from contracts.features import STATEFUL
from contracts.jsonschema import json_schema_text
from contracts.rowcheck import reasons
from nodes.featurize import featurize
from nodes.files import write_whole


def run(app: App) -> dict[str, Any]:
    """Compile everything that is made from the app, and say what it is.

    Args:
        app: loaded, so its files are sound and fit each other.

    Returns:
        `app`, `schema_id`, `contracts` (rows of name, version, columns), `features` (rows of the table) and the
        sizes of what the nets see.

    Raises:
        ContractError: a rule that cannot be compiled, a feature kind that nobody registered.
    """
    for contract in (app.impressions, app.clicks, app.requests):
        pl.DataFrame(schema=contract.schema_).select(reasons(contract))
    stateless = [feature for feature in app.features if feature.kind not in STATEFUL]
    featurize(pl.DataFrame(schema=app.impressions.schema_), stateless)
    layout = app.layout
    return {
        "app": app.name,
        "ok": True,
        "folder": str(app.folder),
        "schema_id": app.schema_id,
        "contracts": [
            {"stream": name, "version": contract.version, "columns": len(contract.columns)}
            for name, contract in (
                ("impressions", app.impressions),
                ("clicks", app.clicks),
                ("requests", app.requests),
            )
        ],
        "features": [
            {
                "name": feature.name,
                "kind": feature.kind,
                "side": feature.side,
                "reads": list(feature.inputs),
                "gives": feature.output,
                "rows": feature.rows if feature.output == "id" else None,
                "nets": "booster" if feature.only else "both",
            }
            for feature in app.features
        ],
        "light_rows": layout.light_rows,
        "booster_rows": layout.rows,
        "embedding_dim": app.config.model.embedding_dim,
    }


def write_docs(app: App, folder: Path) -> list[Path]:
    """Write what others need to talk to the app: a JSON Schema a stream, and one AsyncAPI document.

    Args:
        app: its contracts.
        folder: made if it is not there; files of the same names are replaced.

    Returns:
        The files written.
    """
    documents = {
        f"{name}.schema.json": json_schema_text(contract)
        for name, contract in (("impressions", app.impressions), ("clicks", app.clicks), ("requests", app.requests))
    }
    documents["asyncapi.yaml"] = asyncapi_yaml(app)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in documents.items():
        write_whole(folder / name, text.encode())
    return [folder / name for name in documents]
