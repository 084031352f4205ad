"""The same light net written as one would in plain torch."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.tensors import Batch


class SparseAdamPeer:
    """One sparse embedding with SparseAdam, the rest with Adam.

    Args:
        rows: of the table.
        fields: id features.
        width: of an embedding.
        hidden: of the tower.
        lr: of the embeddings.
        prior: click probability to begin from, as ours does.
    """

    def __init__(
        self, rows: int, fields: int, width: int, hidden: tuple[int, int], lr: float = 0.002, *, prior: float = 0.05
    ) -> None:
        self.table = nn.Embedding(rows, width, sparse=True)
        with torch.no_grad():
            self.table.weight.mul_(0.01)
        first, second = hidden
        last = nn.Linear(hidden[-1], 1)
        self.mlp = nn.Sequential(nn.Linear(fields * width, first), nn.ReLU(), nn.Linear(first, second), nn.ReLU(), last)
        nn.init.constant_(last.bias, math.log(prior / (1 - prior)))
        self.sparse = torch.optim.SparseAdam(self.table.parameters(), lr=lr)
        self.dense = torch.optim.Adam(self.mlp.parameters(), lr=0.002, fused=True)

    def learn(self, batch: Batch) -> Tensor:
        """One step; returns the probabilities made before it, as ours does."""
        self.sparse.zero_grad()
        self.dense.zero_grad()
        logit_B: Tensor = self.mlp(self.table(batch.ids_BF).flatten(1)).squeeze(1)
        F.binary_cross_entropy_with_logits(logit_B, batch.label_B).backward()  # type: ignore[no-untyped-call]
        self.sparse.step()  # type: ignore[no-untyped-call]
        self.dense.step()
        return logit_B.detach().sigmoid()
