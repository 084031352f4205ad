"""Light weights as they will be served: quantised, cut into chunks, and what a scorer makes of them."""

from dataclasses import dataclass

import numpy as np

from contracts.app import App
from contracts.weights import Blob, WeightManifest, pack_array, unpack_array
from nodes.gate import unfit
from nodes.light_numpy import LightNet

_DTYPES = {"fp16": "float16", "fp32": "float32"}
Figures = dict[str, float | str | None]


@dataclass(frozen=True)
class Snapshot:
    """A light net as it would travel: its bytes, and what a scorer makes of them."""

    blobs: tuple[Blob, ...]
    chunks: list[bytes]
    arrays: dict[str, np.ndarray]  #: dequantised to float32
    position: int
    step: int
    trained_until_ms: int

    def manifest(
        self, app: App, model: str, epoch: int, created_ms: int, figures: Figures, *, after_version: int = 0
    ) -> WeightManifest:
        """Its manifest; the store gives the version number, which lies above `after_version`."""
        return WeightManifest(
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


def pack(app: App, arrays: dict[str, np.ndarray], *, position: int, step: int, trained_until_ms: int) -> Snapshot | str:
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
    blobs, chunks, served = [], [], {}
    dtype = _DTYPES[app.config.publish.dtype]
    for name in sorted(arrays):
        blob, cut = pack_array(name, arrays[name], dtype, app.config.publish.chunk_bytes)
        served[name] = unpack_array(blob, cut)
        blobs.append(blob)
        chunks += cut
    LightNet(app.layout, served)  # the scorer will ask the same of it
    return Snapshot(tuple(blobs), chunks, served, position, step, trained_until_ms)
