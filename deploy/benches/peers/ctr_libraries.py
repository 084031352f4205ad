"""DeepCTR-Torch and FuxiCTR on the same minibatches, under a Python that has them and need not have Rocket.

    python ctr_libraries.py minibatches.npz 64,32 16

It names on stdout the learners that it could make, as a JSON list. Then, for each line "name" on stdin, it trains that
one on all minibatches and answers with the CPU seconds that this took. Each takes the step of its library's own `fit`,
without data loader, regularisation or metrics, which would only slow it down.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

LR = 0.002
Learner = Callable[[Tensor, Tensor], None]


def deepctr(name: str, sizes: list[int], hidden: tuple[int, ...], width: int) -> Learner:
    """DeepCTR-Torch's WDL (with no wide part: an MLP) or DCN."""
    from deepctr_torch.inputs import SparseFeat  # noqa: PLC0415
    from deepctr_torch.models import DCN, WDL  # noqa: PLC0415

    columns = [SparseFeat(f"field_{i}", size, embedding_dim=width) for i, size in enumerate(sizes)]
    free = {"l2_reg_linear": 0, "l2_reg_embedding": 0, "l2_reg_dnn": 0}
    if name == "dcn":
        model = DCN([], columns, cross_num=2, dnn_hidden_units=hidden, l2_reg_cross=0, **free)
    else:
        model = WDL([], columns, dnn_hidden_units=hidden, **free)
    model.compile(torch.optim.Adam(model.parameters(), lr=LR), "binary_crossentropy")

    def learn(ids_BF: Tensor, label_B: Tensor) -> None:
        predicted = model(ids_BF.float()).squeeze()
        model.optim.zero_grad()
        loss = model.loss_func(predicted, label_B, reduction="sum")
        (loss + model.get_regularization_loss() + model.aux_loss).backward()
        model.optim.step()

    return learn


def fuxictr(name: str, sizes: list[int], hidden: tuple[int, ...], width: int) -> Learner:
    """FuxiCTR's model base, embeddings, MLP and cross net, put together as in its model zoo's DNN and DCN."""
    from fuxictr.features import FeatureMap  # noqa: PLC0415
    from fuxictr.pytorch import layers  # noqa: PLC0415
    from fuxictr.pytorch.models import BaseModel  # noqa: PLC0415

    fields = FeatureMap("bench", ".")
    for i, size in enumerate(sizes):
        fields.features[f"field_{i}"] = {"type": "categorical", "source": "", "vocab_size": size}
    fields.labels, fields.num_fields = ["label"], len(sizes)

    class Net(BaseModel):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(fields, verbose=0, model_root=".", metrics=["AUC"])
            inputs = len(sizes) * width
            self.embedding = layers.FeatureEmbedding(fields, width)
            self.cross = layers.CrossNet(inputs, 2) if name == "dcn" else None
            last = None if name == "dcn" else 1
            self.deep = layers.MLP_Block(input_dim=inputs, hidden_units=list(hidden), output_dim=last)
            self.head = nn.Linear(inputs + hidden[-1], 1) if name == "dcn" else None
            self.compile("adam", "binary_crossentropy", LR)
            self._max_gradient_norm = 10.0

        def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
            flat = self.embedding({k: v for k, v in batch.items() if k != "label"}, flatten_emb=True)
            logit = self.deep(flat)
            if self.cross is not None and self.head is not None:
                logit = self.head(torch.cat((self.cross(flat), logit), dim=-1))
            return {"y_pred": self.output_activation(logit)}

        def get_labels(self, batch: dict[str, Tensor]) -> Tensor:
            return batch["label"].view(-1, 1)

    model = Net()

    def learn(ids_BF: Tensor, label_B: Tensor) -> None:
        batch = {f"field_{i}": column for i, column in enumerate(ids_BF.unbind(1))}
        model.train_step(batch | {"label": label_B})

    return learn


def main(path: str, hidden: tuple[int, ...], width: int) -> None:
    """Make what can be made, then do as stdin says."""
    answers = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)  # what the libraries print goes to stderr
    torch.set_num_threads(1)
    with np.load(path) as case:
        sizes = case["sizes"].tolist()
        batches = [(torch.from_numpy(i), torch.from_numpy(y)) for i, y in zip(case["ids"], case["label"], strict=True)]
    learners: dict[str, Any] = {}
    for library, make in (("deepctr_torch", deepctr), ("fuxictr", fuxictr)):
        for name in ("mlp", "dcn"):
            try:
                learners[f"{library}_{name}"] = make(name, sizes, hidden, width)
            except ImportError as error:
                sys.stderr.write(f"{library}: {error}\n")
    answers.write(json.dumps(sorted(learners)) + "\n")
    for line in sys.stdin:
        learn, start = learners[line.strip()], time.process_time()
        for ids_BF, label_B in batches:
            learn(ids_BF, label_B)
        answers.write(f"{time.process_time() - start}\n")


if __name__ == "__main__":
    main(sys.argv[1], tuple(map(int, sys.argv[2].split(","))), int(sys.argv[3]))
