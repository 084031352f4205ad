"""The light net as others serve it: torch, ONNX Runtime, the booster in torch, and a scorer written by hand.

Shapes: B rows, F id features, D embedding width.
"""

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from contracts.app import App
from contracts.buckets import bucket
from contracts.nets import Booster
from model.boosters import BoosterInput, Sizes, make_booster

Arrays = dict[str, np.ndarray]


class TorchLight(nn.Module):
    """The light net without dense features, as one would write it in torch for serving."""

    def __init__(self, arrays: Arrays) -> None:
        super().__init__()
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        rows, width = tensors["embedding"].shape
        self.embedding = nn.Embedding(rows, width, _weight=tensors["embedding"])
        self.wide = nn.Embedding(rows, 1, _weight=tensors["wide"][:, None])
        self.bias = tensors["bias"]
        layers: list[nn.Module] = []
        for index in range(_layers(arrays)):
            weight = tensors[f"mlp.{index}.weight"]
            layer = nn.Linear(weight.shape[1], weight.shape[0])
            layer.load_state_dict({"weight": weight, "bias": tensors[f"mlp.{index}.bias"]})
            layers += [layer, nn.ReLU()]
        self.mlp = nn.Sequential(*layers[:-1])

    def forward(self, ids_BF: torch.Tensor) -> torch.Tensor:
        """Logits [B]."""
        wide_B = self.wide(ids_BF).sum((1, 2))
        logit_B: torch.Tensor = self.mlp(self.embedding(ids_BF).flatten(1))[:, 0] + wide_B + self.bias
        return logit_B


def onnx_light(arrays: Arrays, fields: int) -> Callable[[np.ndarray], np.ndarray]:
    """The same net in ONNX Runtime on one thread: rows in the table, int64 [B, F], to logits [B]."""
    inputs = fields * arrays["embedding"].shape[1]
    nodes = [
        helper.make_node("Gather", ["embedding", "ids"], ["embedded"]),
        helper.make_node("Reshape", ["embedded", "flat"], ["hidden_0"]),
        helper.make_node("Gather", ["wide", "ids"], ["wide_BF"]),
        helper.make_node("ReduceSum", ["wide_BF", "last"], ["wide_B"], keepdims=0),
    ]
    layers = _layers(arrays)
    for index in range(layers):
        names = [f"hidden_{index}", f"mlp.{index}.weight", f"mlp.{index}.bias"]
        nodes.append(helper.make_node("Gemm", names, [f"linear_{index}"], transB=1))
        if index < layers - 1:
            nodes.append(helper.make_node("Relu", [f"linear_{index}"], [f"hidden_{index + 1}"]))
    nodes += [
        helper.make_node("Squeeze", [f"linear_{layers - 1}", "last"], ["deep_B"]),
        helper.make_node("Add", ["deep_B", "wide_B"], ["sum_B"]),
        helper.make_node("Add", ["sum_B", "bias"], ["logits"]),
    ]
    used = {name: array for name, array in arrays.items() if name != "wide_dense"}
    constants = used | {"flat": np.array([-1, inputs], np.int64), "last": np.array([1], np.int64)}
    graph = helper.make_graph(
        nodes,
        "light",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["rows", fields])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["rows"])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def logits(ids_BF: np.ndarray) -> np.ndarray:
        (found,) = session.run(["logits"], {"ids": ids_BF})
        return np.asarray(found)

    return logits


def torch_booster(embedding: np.ndarray, fields: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """A booster with fresh weights over the same table: what serving it instead would cost."""
    rows, width = embedding.shape
    table = nn.Embedding(rows, width, _weight=torch.from_numpy(embedding))
    tower = make_booster(Booster(), Sizes(fields, 0, 0, width)).eval()

    def logits(ids_BF: torch.Tensor) -> torch.Tensor:
        rows_B = ids_BF.shape[0]
        seen = BoosterInput(table(ids_BF), torch.zeros(rows_B, 0, width), torch.zeros(rows_B, 0), ())
        logit_B: torch.Tensor = tower(seen)
        return logit_B

    return logits


class NaiveScorer:
    """JSON in, features row by row, torch, JSON out: what is written first, and nothing is checked."""

    def __init__(self, app: App, arrays: Arrays) -> None:
        self._net = TorchLight(arrays).eval()
        offsets = app.layout.offsets
        self._columns = [(f.inputs[0], offsets[f.name], f.rows) for f in app.layout.light_ids]

    def answer(self, message: bytes) -> bytes:
        """One response."""
        started = time.perf_counter()
        request: dict[str, Any] = json.loads(message)
        rows: list[Sequence[int]] = []
        for candidate in request["candidates"]:
            row = {**request["user"], **request["context"], **candidate}
            rows.append([start + bucket(row[column], size) for column, start, size in self._columns])
        chances = torch.sigmoid(self._net(torch.tensor(rows))).tolist()
        items = [candidate["item_id"] for candidate in request["candidates"]]
        scores = [{"item_id": item, "pctr": chance} for item, chance in zip(items, chances, strict=True)]
        took_us = round((time.perf_counter() - started) * 1e6)
        return json.dumps({"id": request["id"], "scores": scores, "took_us": took_us}).encode()


def _layers(arrays: Arrays) -> int:
    return sum(name.startswith("mlp.") and name.endswith(".weight") for name in arrays)
