"""Light weights as they will be served: quantised, whole or as what differs from the live version, cut into chunks."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import msgspec
import numpy as np

from contracts.app import App
from contracts.weights import KEYS, ROWS, Blob, WeightManifest, pack_array
from nodes.deltas import quantised
from nodes.gate import unfit
from nodes.light_numpy import LightNet
from nodes.thin_wide import without_zeros

DTYPES = {"fp16": "float16", "fp32": "float32"}
Figures = dict[str, float | str | None]
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Snapshot:
    """A light net as it would travel: its bytes, and what a scorer makes of them."""

    blobs: tuple[Blob, ...]
    chunks: list[bytes]
    arrays: Arrays  #: whole, dequantised to float32
    position: int
    step: int
    trained_until_ms: int
    base: WeightManifest | None = None  #: a delta's; None: it travels whole
    again: WeightManifest | None = (
        None  #: the version that it is, bit for bit and at the same position: nothing travels
    )

    def manifest(
        self, app: App, model: str, epoch: int, created_ms: int, figures: Figures, *, after_version: int = 0
    ) -> WeightManifest:
        """Its manifest; the store gives the version number, which lies above `after_version`."""
        if self.again is not None:
            return msgspec.structs.replace(self.again, version=after_version, epoch=epoch, gate=figures)
        made = WeightManifest(
            model=model,
            version=after_version,
            schema_id=app.schema_id,
            app=app.name,
            trained_until_ms=self.trained_until_ms,
            position=self.position,
            step=self.step,
            epoch=epoch,
            created_ms=created_ms,
            gate=figures,
            blobs=self.blobs,
            link=app.config.labels.link,
        )
        if self.base is None:
            return made
        base = self.base
        return msgspec.structs.replace(
            made, kind="delta", base_version=base.version, base_digest=base.digest, deltas=base.deltas + 1
        )

    def whole(self, app: App) -> "Snapshot":
        """The same arrays, to travel whole."""
        blobs, chunks = cut(app, self.arrays, {})
        return replace(self, blobs=blobs, chunks=chunks, base=None, again=None)


def pack(app: App, arrays: Arrays, *, position: int, step: int, trained_until_ms: int) -> Snapshot | str:
    """Quantise and cut the arrays as the app's `publish` section says; the reason where they must not be published.

    Args:
        app: says dtype and chunk size.
        arrays: float32, named as in `contracts.weights`.
        position: rows of the example log learnt.
        step: minibatches learnt.
        trained_until_ms: event time of the last row learnt.

    Raises:
        CorruptError: the arrays do not fit the app's features.
    """
    wrong = unfit(arrays)
    if wrong is not None:
        return wrong
    dtype = DTYPES[app.config.publish.dtype]
    served = {name: quantised(arrays[name], dtype) for name in sorted(arrays)}
    LightNet(app.layout, served)  # the scorer will ask the same of it
    return Snapshot((), [], served, position, step, trained_until_ms).whole(app)


def cut(
    app: App, arrays: Mapping[str, np.ndarray], numbers: Mapping[str, np.ndarray]
) -> tuple[tuple[Blob, ...], list[bytes]]:
    """Arrays as they travel, and row numbers beside them."""
    settings = app.config.publish
    blobs, chunks = [], []
    if app.config.train.wide_optimizer == "ftrl":  # others leave no zeros, and readers before these know whole weights
        item_bytes = np.dtype(DTYPES[settings.dtype]).itemsize
        arrays, thin = without_zeros(arrays, numbers.get(ROWS), item_bytes)
        numbers = {**numbers, **thin}
    for name in sorted({*arrays, *numbers}):
        dtype = "uint32" if name in numbers else "uint64" if name == KEYS else DTYPES[settings.dtype]
        blob, some = pack_array(name, numbers[name] if name in numbers else arrays[name], dtype, settings.chunk_bytes)
        blobs.append(blob)
        chunks += some
    return tuple(blobs), chunks
