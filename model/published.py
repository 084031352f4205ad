"""A published light net in torch: what law 5 compares the NumPy scorer with."""

from collections.abc import Mapping

import numpy as np
import torch

from contracts.app import App
from contracts.dynamic import MISSING_ROW, OOV_ROW
from contracts.nets import Activation, Light
from contracts.weights import KEYS
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
        tensors = {name: torch.tensor(array, dtype=torch.float32) for name, array in arrays.items() if name != KEYS}
        self._owners = {
            layout.light_ids.index(feature): (start, _sorted(arrays[KEYS], start, feature.rows))
            for feature in layout.dynamic
            for start in (layout.offsets[feature.name],)
        }
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
        ids_BF = batch.ids_BF[:, : self._ids].clone()
        for column, (offset, (keys, rows)) in self._owners.items():
            ids_BF[:, column] = offset + _rows_of(ids_BF[:, column], keys, rows)
        wide_BF = None if self._wide is None else self._wide[ids_BF]
        logit_B = self._net(self._embedding[ids_BF].flatten(1), wide_BF, batch.dense_BN[:, : self._dense])
        logits: np.ndarray = logit_B.numpy()
        return logits


def _sorted(keys: np.ndarray, start: int, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys of a dynamic table as the bits of int64, ascending, and their rows."""
    mine = torch.from_numpy(keys[start : start + rows].view(np.int64).copy())
    owned = mine.nonzero().squeeze(1)
    found, order = torch.sort(mine[owned])
    return found, owned[order]


def _rows_of(keys_B: torch.Tensor, keys: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """The row of each id in a dynamic table."""
    unknown_B = torch.full_like(keys_B, OOV_ROW)
    if len(keys):
        at_B = torch.searchsorted(keys, keys_B.contiguous()).clamp(max=len(keys) - 1)
        unknown_B = torch.where(keys[at_B] == keys_B, rows[at_B], unknown_B)
    return torch.where(keys_B == 0, torch.full_like(keys_B, MISSING_ROW), unknown_B)
