"""Made-up weights, requests and examples that fit any app, for tests, benches and warming up."""

import msgspec
import numpy as np
import polars as pl

from contracts.app import App
from contracts.dynamic import FIRST_ROW
from contracts.odcs import Column
from contracts.segments import EXAMPLE, example_schema
from contracts.weights import ACTIVATION_CODES, KEYS


def light_arrays(app: App, seed: int = 0, *, bias: float = -3.0, scale: float = 0.1) -> dict[str, np.ndarray]:
    """A light net of random weights, float32, named and shaped as `contracts.weights` says.

    Args:
        app: its layout and `model` section give the shapes.
        seed: the same seed gives the same weights.
        bias: its logit where all else is near zero.
        scale: standard deviation of the weights.
    """
    rng = np.random.default_rng(seed)
    layout, model = app.layout, app.config.model
    made = {"embedding": rng.normal(0, scale, (layout.light_rows, model.embedding_dim)), "bias": np.array([bias])}
    if model.light.wide:
        made["wide"] = rng.normal(0, scale, layout.light_rows)
        made["wide_dense"] = rng.normal(0, scale, len(layout.light_dense))
    light, inputs = model.light, len(layout.light_ids) * model.embedding_dim + len(layout.light_dense)
    for index, outputs in enumerate([*light.hidden, 1] if light.deep else []):
        made[f"mlp.{index}.weight"] = rng.normal(0, scale, (outputs, inputs))
        made[f"mlp.{index}.bias"] = rng.normal(0, scale, outputs)
        inputs = outputs
    for index, outputs in enumerate(light.layers):
        if light.norm == "layer":
            made[f"norms.{index}.weight"] = 1 + rng.normal(0, scale, outputs)
            made[f"norms.{index}.bias"] = rng.normal(0, scale, outputs)
        if light.activation == "prelu":
            made[f"slopes.{index}"] = rng.normal(0.25, scale, outputs)
    if light.layers and light.activation in ACTIVATION_CODES:
        made["activation"] = np.array([ACTIVATION_CODES[light.activation]])
    if light.fm:
        made["fm"] = 1 + rng.normal(0, scale, 1)
    arrays = {name: array.astype(np.float32) for name, array in made.items()}
    if layout.dynamic:
        arrays[KEYS] = np.zeros(layout.light_rows, np.uint64)
        for feature in layout.dynamic:
            first, end = layout.offsets[feature.name] + FIRST_ROW, layout.offsets[feature.name] + feature.rows
            arrays[KEYS][first:end:2] = _keys(np.arange(1, end - first + 1, 2))  # every other row has an owner
    return arrays


def requests(app: App, count: int, candidates: int, seed: int = 0) -> list[bytes]:
    """Ad requests that keep the app's contract, as JSON; a third of the optional values are left out."""
    rng = np.random.default_rng(seed)
    at = app.requests.role("event_time")
    inner = [c for c in app.requests.columns if c.name not in {"id", at, "tmax"}]
    encode = msgspec.json.Encoder().encode

    def values(columns: list[Column]) -> dict[str, object]:
        return {c.name: _value(c, rng) for c in columns if c.required or rng.random() > 1 / 3}

    user = [c for c in inner if c.side == "user"]
    item = [c for c in inner if c.side == "item"]
    context = [c for c in inner if c.side not in {"user", "item"}]
    start_ms, _ = app.config.ingest.event_times_ms
    return [
        encode(
            {
                "id": f"request-{number}",
                "event_time_ms": start_ms + int(rng.integers(0, 86_400_000)),
                "user": values(user),
                "context": values(context),
                "candidates": [values(item) for _ in range(candidates)],
            }
        )
        for number in range(count)
    ]


def examples(app: App, rows: int, seed: int = 0, *, label_rate: float = 0.1) -> pl.DataFrame:
    """Examples with random features (`contracts.segments.example_schema`)."""
    rng = np.random.default_rng(seed)
    number = np.arange(rows)
    made: dict[str, object] = {
        "example_id": number.astype(np.uint64),
        "impression_id": [f"i{n}" for n in number],
        "user_id": [f"u{n}" for n in rng.integers(0, 50, rows)],
        "item_id": [f"a{n}" for n in rng.integers(0, 50, rows)],
        "event_time_ms": 1_700_000_000_000 + number,
        "label": (rng.random(rows) < label_rate).astype(np.uint8),
        "weight": np.ones(rows, np.float32),
        "kept_rate": np.ones(rows, np.float32),
        "role": np.zeros(rows, np.uint8),
        "elapsed_s": np.zeros(rows, np.float32),
    }
    ids = {feature.name: feature for feature in app.features}
    for feature in app.features:
        if feature.output == "id":
            numbers = rng.integers(0, feature.rows, rows)
            made[feature.name] = numbers.astype(np.uint32) if feature.dynamic is None else _keys(numbers)
        elif feature.output == "dense":
            made[feature.name] = rng.normal(0, 1, rows).astype(np.float32)
        else:
            of = ids[str(feature.of)]
            lists = [rng.integers(1, of.rows, rng.integers(0, 4)) for _ in number]
            made[feature.name] = [some.astype(np.uint32) if of.dynamic is None else _keys(some) for some in lists]
    schema = example_schema(app.features)
    return pl.DataFrame(made, schema={name: schema[name] for name in [*EXAMPLE, *ids]})


def _keys(numbers: np.ndarray) -> np.ndarray:
    """Numbers as hashes of ids; 0 stays missing."""
    keys: np.ndarray = numbers.astype(np.uint64) * np.uint64(0x9E37_79B9_7F4A_7C15)
    return keys


def _value(column: Column, rng: np.random.Generator) -> object:
    """A value that keeps the column's rules; patterns are not looked at."""
    if column.allowed:
        return column.allowed[rng.integers(len(column.allowed))]
    low = column.minimum if column.minimum is not None else 0.0
    high = column.maximum if column.maximum is not None else low + 1000
    if column.physical == "int64":
        return int(rng.integers(int(low), int(min(high, low + 1e6)) + 1))
    if column.physical == "double":
        return float(rng.uniform(low, min(high, low + 1e3)))
    if column.physical == "boolean":
        return bool(rng.random() < 0.5)
    if column.physical == "list<string>":
        return [f"x{n}" for n in rng.integers(0, 100, min(3, column.max_length or 3))]
    return f"{column.name[:3]}{rng.integers(0, 100)}"[: column.max_length or 64]
