"""The booster around its tower: which rows it reads, pooled sequences, standardised numbers.

Shapes: B rows, F id features, N dense, Q sequences, S positions, M look-ups, D width, H hidden width.
"""

import math

import torch
from torch import Tensor, nn

from contracts.app import App
from contracts.errors import ContractError
from contracts.hint_names import asks_hidden
from contracts.nets import Booster
from model.boosters import BoosterInput, Sizes, gives_hidden, make_booster
from model.layers import AttentionPooling, MeanPooling, Padded, RunningStandardise
from model.tensors import Batch


class BoosterNet(nn.Module):
    """Pools sequences and standardises numbers, then lets the named booster judge."""

    def __init__(self, sizes: Sizes, settings: Booster) -> None:
        super().__init__()
        self.ids, self.width = sizes.ids, sizes.width
        self._queries = sizes.queries
        self.standardise = RunningStandardise(sizes.dense)
        pooling = AttentionPooling if settings.pooling == "attention" else MeanPooling
        self.pooling = nn.ModuleList(pooling(sizes.width) for _ in sizes.queries)
        self.tower = make_booster(settings, sizes)

    def forward(
        self,
        fields_BFD: Tensor,
        sequences: tuple[tuple[Tensor, Tensor], ...],
        dense_BN: Tensor,
        trunk_BH: Tensor | None = None,
        hidden: list[Tensor] | None = None,
    ) -> Tensor:
        """Embeddings [B, F, D], sequences ([B, L, D], mask [B, L]) and raw numbers [B, N] to logits [B], float32.

        The trunk is what the shared layers give; behind `hidden` each hidden layer's output is put, [B, H].
        """
        pooled = [
            pool(*sequence, fields_BFD[:, query])
            for pool, sequence, query in zip(self.pooling, sequences, self._queries, strict=True)
        ]
        pooled_BQD = torch.stack(pooled, dim=1) if pooled else fields_BFD[:, :0]
        seen = BoosterInput(fields_BFD, pooled_BQD, self.standardise(dense_BN), sequences, trunk_BH)
        logit_B: Tensor = self.tower(seen) if hidden is None else self.tower(seen, hidden=hidden)
        return logit_B.float()


def make_booster_net(app: App, *, trunk: int = 0) -> BoosterNet:
    """The booster of an app; torch's global generator draws its first weights.

    Args:
        app: layout and settings.
        trunk: columns that it sees of the light net's lowest layers.

    Raises:
        ContractError: the feature hint needs its hidden layers, and it does not give them.
    """
    layout, model, prior = app.layout, app.config.model, app.config.serving.prior_ctr
    names = [feature.name for feature in layout.ids]
    queries = tuple(names.index(f.of or "") for f in layout.sequences)
    sizes = Sizes(len(layout.ids), len(layout.sequences), len(layout.dense), model.embedding_dim, queries, trunk)
    net = BoosterNet(sizes, model.booster)
    if asks_hidden(app.config.rocket.feature_hint) and not gives_hidden(net.tower):
        raise ContractError(
            f"[rocket] feature_hint needs the booster's hidden layers, and '{model.booster.kind}' does not give them: "
            "let its forward take hidden, a list to put them behind (see model/boosters/mlp.py), or set "
            'feature_hint = "none"'
        )
    head = getattr(net.tower, "head", None)
    if isinstance(head, nn.Linear) and head.out_features == 1:
        nn.init.constant_(head.bias, math.log(prior / (1 - prior)))
    return net


def rows_that_it_reads(batch: Batch) -> Tensor:
    """Of all id features, row by row, then of each sequence: [M]."""
    ids_M = batch.ids_BF.reshape(-1)
    return torch.cat((ids_M, *(s.rows_S for s in batch.sequences))) if batch.sequences else ids_M


def judge_booster(
    net: BoosterNet,
    batch: Batch,
    leaf_MD: Tensor,
    trunk_BH: Tensor | None = None,
    hidden: list[Tensor] | None = None,
) -> Tensor:
    """Logits [B], from the rows that it reads.

    Args:
        net: the booster.
        batch: the minibatch.
        leaf_MD: what stands in the rows of `rows_that_it_reads`.
        trunk_BH: what the layers give that both nets share.
        hidden: a list behind which each hidden layer's output is put.
    """
    parts = torch.split(leaf_MD, [batch.ids_BF.numel(), *(s.rows_S.shape[0] for s in batch.sequences)])
    fields_BFD = parts[0].view(batch.rows, net.ids, net.width)
    padded = [Padded(sequence) for sequence in batch.sequences]
    sequences = tuple((p.fill(part), p.mask_BL) for p, part in zip(padded, parts[1:], strict=True))
    logit_B: Tensor = net(fields_BFD, sequences, batch.dense_BN, trunk_BH, hidden)
    return logit_B
