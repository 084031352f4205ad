"""FuxiCTR's DCN-v2 and DeepFM on exported rows; run by a Python that has fuxictr, as `python fuxictr_worker.py FOLDER`.

It stands alone: that Python needs fuxictr, torch and numpy, and nothing of Rocket. FOLDER holds rows.npz and job.json
(`peer_fuxictr.learn_fuxictr` writes them) and gets said.npz. Embeddings, layers and the training step are FuxiCTR's
own; the two nets are put together from its blocks, as its model zoo does. One pass, in time order.

B = rows of a minibatch, D = embedding width.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fuxictr.features import FeatureMap
from fuxictr.pytorch.layers import CrossNetV2, FactorizationMachine, FeatureEmbedding, MLP_Block
from fuxictr.pytorch.models import BaseModel
from torch import Tensor, nn

_PREDICT_ROWS = 8192


class _Net(BaseModel):  # type: ignore[misc]  # fuxictr has no types
    """DCN-v2 with whole cross matrices beside deep layers, or DeepFM."""

    def __init__(self, features: FeatureMap, job: dict[str, Any], folder: Path) -> None:
        super().__init__(features, job["kind"], verbose=0, model_root=str(folder), metrics=["AUC"],
                         embedding_regularizer=job["embedding_l2"] or None)  # fmt: skip
        inputs = features.sum_emb_out_dim()
        self.embedding_layer = FeatureEmbedding(features, job["width"])
        deep = {"input_dim": inputs, "hidden_units": job["hidden"], "hidden_activations": "ReLU",
                "output_activation": None, "dropout_rates": job["dropout"], "batch_norm": False}  # fmt: skip
        self.crosses = job["kind"] == "dcn_v2"
        self.pairs = CrossNetV2(inputs, 2) if self.crosses else FactorizationMachine(features)
        self.mlp = MLP_Block(output_dim=None if self.crosses else 1, **deep)
        self.fc = nn.Linear(inputs + job["hidden"][-1], 1) if self.crosses else nn.Identity()
        self.compile("adam", "binary_crossentropy", job["lr"])
        self.reset_parameters()

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Probabilities [B, 1] under "y_pred"."""
        seen = self.get_inputs(inputs)
        embedded_BFD = self.embedding_layer(seen)
        flat_BX = embedded_BFD.flatten(1)
        if self.crosses:
            logit_B1 = self.fc(torch.cat((self.pairs(flat_BX), self.mlp(flat_BX)), dim=1))
        else:
            logit_B1 = self.pairs(seen, embedded_BFD) + self.mlp(flat_BX)
        return {"y_pred": self.output_activation(logit_B1)}


def _feature_map(job: dict[str, Any], folder: Path) -> FeatureMap:
    made = FeatureMap("rows", str(folder))
    for name, rows in job["ids"].items():
        made.features[name] = {"source": "", "type": "categorical", "vocab_size": rows, "padding_idx": 0}
    for name in job["dense"]:
        made.features[name] = {"source": "", "type": "numeric"}
    for name, (of, length) in job["sequences"].items():
        made.features[name] = {
            "source": "", "type": "sequence", "vocab_size": job["ids"][of], "max_len": length, "padding_idx": 0,
            "share_embedding": of, "feature_encoder": "layers.MaskedAveragePooling()",
        }  # fmt: skip
    made.labels = ["label"]
    made.num_fields = made.get_num_fields()
    made.default_emb_dim = job["width"]
    made.set_column_index()
    return made


def _predicted(net: _Net, rows: dict[str, Tensor], start: int, stop: int) -> np.ndarray:
    net.eval()
    with torch.no_grad():
        parts = [
            net({name: t[at : min(at + _PREDICT_ROWS, stop)] for name, t in rows.items()})["y_pred"].reshape(-1).numpy()
            for at in range(start, stop, _PREDICT_ROWS)
        ]
    net.train()
    return np.concatenate(parts).astype(np.float64)


def main(folder: Path) -> None:
    """Train as job.json says on rows.npz; write said.npz."""
    torch.set_num_threads(1)
    job = json.loads((folder / "job.json").read_text())
    with np.load(folder / "rows.npz") as arrays:
        rows = {name: torch.from_numpy(arrays[name]) for name in (*job["ids"], *job["dense"], *job["sequences"])}
        rows["label"] = torch.from_numpy(arrays["label"]).float()
    size, cut, end = job["batch_rows"], job["cut"], rows["label"].shape[0]
    torch.manual_seed(job["seed"])
    net = _Net(_feature_map(job, folder), job, folder)
    net._max_gradient_norm = 10.0  # noqa: SLF001  # what its `fit` sets
    tuning: list[np.ndarray] = []
    learning = 0.0
    for start in range(0, cut // size * size, size):
        if start >= job["tuning"]:
            tuning.append(_predicted(net, rows, start, start + size))
        began = time.process_time()
        net.train_step({name: t[start : start + size] for name, t in rows.items()})
        learning += time.process_time() - began
    frozen = _predicted(net, rows, cut, end)
    after: list[np.ndarray] = []
    for start in range(cut, end, size):
        stop = min(start + size, end)
        after.append(_predicted(net, rows, start, stop))
        net.train_step({name: t[start:stop] for name, t in rows.items()})
    np.savez(
        folder / "said.npz",
        frozen=frozen,
        going_on=np.concatenate(after),
        tuning=np.concatenate(tuning),
        first_tuning=np.array(-(-job["tuning"] // size) * size),
        cpu_s=np.array(learning),
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
