"""A published light net in torch: what law 5 compares the NumPy scorer with."""

from collections.abc import Mapping

import numpy as np
import torch

from contracts.app import App
from contracts.nets import Activation, Light
from model.light import LightNet
from model.tensors import Batch


class PublishedLight:
    """The light net of published, dequantised arrays, in fp32 and eval mode.

    Args:
        arrays: float32, named and shaped as in `contracts.weights`.
        app: gives the layout.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], app: App) -> None:
        layout = app.layout
        tensors = {name: torch.tensor(array, dtype=torch.float32) for name, array in arrays.items()}
        self._embedding, self._wide = tensors.pop("embedding"), tensors.pop("wide", None)
        self._ids, self._dense = len(layout.light_ids), len(layout.light_dense)
        layers = sorted({int(name.split(".")[1]) for name in tensors if name.startswith("mlp.")})
        code = int(tensors.pop("activation", torch.zeros(1)))
        named: dict[int, Activation] = {0: "prelu" if "slopes.0" in tensors else "relu", 1: "gelu", 2: "silu"}
        settings = Light(
            deep=bool(layers),
            hidden=tuple(tensors[f"mlp.{layer}.weight"].shape[0] for layer in layers[:-1]),
            wide=self._wide is not None,
            fm="fm" in tensors,
            activation=named[code],
            norm="layer" if "norms.0.weight" in tensors else "none",
        )
        self._net = LightNet(self._ids, self._dense, width=self._embedding.shape[1], settings=settings, prior_logit=0.0)
        self._net.load_state_dict(tensors)
        self._net.eval()

    @torch.inference_mode()
    def logits(self, batch: Batch) -> np.ndarray:
        """Logits of a batch's rows, float32 [B]."""
        ids_BF = batch.ids_BF[:, : self._ids]
        wide_BF = None if self._wide is None else self._wide[ids_BF]
        logit_B = self._net(self._embedding[ids_BF].flatten(1), wide_BF, batch.dense_BN[:, : self._dense])
        logits: np.ndarray = logit_B.numpy()
        return logits
