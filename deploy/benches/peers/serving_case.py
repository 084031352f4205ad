"""The case of the serving bench: 26 id fields of width 16 over a 64-32 tower, 13 of them of the item."""

import dataclasses
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
import polars as pl

from contracts.app import App, load_app
from contracts.columns import Column, Part, Role, Side
from contracts.features import Feature
from contracts.weights import Weights
from nodes.chains import Steps
from nodes.fake_traffic import light_arrays
from nodes.fakes import MemoryWeights
from nodes.publish import Publisher

FIELDS, WIDTH, ITEMS = 26, 16, 20_000
USER = b"user-nobody"  # who asks; a bench puts others there
_NEVER_STALE_MS = 1 << 50
_ROLES: dict[str, Role] = {"user_id": "user_id", "item_id": "item_id"}
_encode = msgspec.json.Encoder().encode


def serving_app(rows: int) -> App:
    """An app with 7 user, 6 context and 13 item columns of text, each an id feature; `rows` embedding rows in all."""
    light = {"hidden": [64, 32], "fm": False}
    base = load_app("adsim", {"model": {"embedding_dim": WIDTH, "light": light}, "publish": {"dtype": "fp32"}})
    envelope = [column for column in base.requests.columns if column.name in {"id", "event_time_ms", "tmax"}]
    columns = [_column("user_id", "user", "user"), *(_column(f"user_{n}", "user", "user") for n in range(1, 7))]
    columns += [_column(f"context_{n}", "context", "context") for n in range(6)]
    columns += [
        _column("item_id", "item", "candidates"),
        *(_column(f"item_{n}", "item", "candidates") for n in range(1, 13)),
    ]
    sizes = np.geomspace(10, rows, FIELDS)
    buckets = np.maximum(sizes * rows / sizes.sum(), 4).astype(int)[::-1].tolist()  # ids come first on each side
    features = tuple(
        Feature(name=f"f_{column.name}", kind="id", column=column.name, side=column.side or "item", buckets=size)
        for column, size in zip(_interleaved(columns), buckets, strict=True)
    )
    return dataclasses.replace(
        base,
        config=base.config.model_copy(update={"features": features}),
        requests=base.requests.model_copy(update={"columns": (*envelope, *columns)}),
    )


def items(app: App, draw: np.random.Generator) -> pl.DataFrame:
    """A catalogue: columns that tell items apart ever less."""
    columns = [column.name for column in app.requests.columns if column.side == "item"]
    made = {name: _values(name, 4000 // (place * place + 1) + 4, ITEMS, draw) for place, name in enumerate(columns)}
    return pl.DataFrame(made | {"item_id": [f"item-{number}" for number in range(ITEMS)]})


def messages(
    app: App, count: int, candidates: Sequence[Sequence[dict[str, str]]], draw: np.random.Generator
) -> list[bytes]:
    """Requests of these candidates, all from `USER`."""
    mine = [column for column in app.requests.columns if column.within in {"user", "context"}]
    made = []
    for number in range(count):
        said = {column.name: _values(column.name, 40, 1, draw)[0] for column in mine}
        said["user_id"] = USER.decode()
        parts = {part: {c.name: said[c.name] for c in mine if c.within == part} for part in ("user", "context")}
        asked = {"id": f"request-{number}", "event_time_ms": 1_700_000_000_000 + number, "tmax": 1000}
        made.append(_encode(asked | parts | {"candidates": candidates[number]}))
    return made


class EndlessVersions(MemoryWeights):
    """A weight store whose pointer moves at each look: every version is checked and unpacked like one from Redis."""

    def __init__(self, app: App) -> None:
        super().__init__(app.name)
        self._looks = 0
        publisher = Publisher(app, self, force=True)
        publisher.offer(light_arrays(app, scale=0.05), position=1, step=1, trained_until_ms=1)
        publisher.finish()

    def current_version(self) -> int | None:
        """One more than the last time."""
        if super().current_version() is None:
            return None
        self._looks += 1
        return self._looks

    def fetch(self, version: int | None = None, *, base: Weights | None = None) -> Weights:
        """The same numbers under another version."""
        return _under(super().fetch(1), version or 1)

    def steps(self, version: int, base: Weights | None = None, into: Mapping[str, np.ndarray] | None = None) -> Steps:
        """The same numbers, read whole, under another version."""
        found = super().steps(1, None, into)
        return dataclasses.replace(found, start=_under(found.start, version))


def _under(weights: Weights, version: int) -> Weights:
    manifest = msgspec.structs.replace(weights.manifest, version=version, created_ms=_NEVER_STALE_MS)
    return msgspec.structs.replace(weights, manifest=manifest)


def _column(name: str, side: Side, within: Part) -> Column:
    return Column(
        name=name,
        physical="string",
        required=True,
        min_length=1,
        max_length=64,
        side=side,
        within=within,
        role=_ROLES.get(name),
    )


def _interleaved(columns: Sequence[Column]) -> list[Column]:
    """Sides in turns, so that each has large and small tables."""
    ids = [column for column in columns if column.name in _ROLES]
    half = FIELDS // 2
    rest = [c for pair in zip(columns[1:half], columns[half + 1 :], strict=True) for c in pair]
    return ids + rest


def _values(name: str, distinct: int, count: int, draw: np.random.Generator) -> list[str]:
    return [f"{name}-{number}" for number in draw.integers(0, distinct, count)]
