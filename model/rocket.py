"""Both nets and their embedding tables, made from an app; who reads which rows.

`model.sharing = "shared"`: one table for all id features; both nets read the same rows of the light's features.
`"separate"`: the light net has a table of its features, the booster one of all features. A sequence reads the rows of
the feature that it refers to. Shapes: B rows, F id features, N dense, Q sequences, S positions, D width.
"""

import math
from contextlib import AbstractContextManager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from contracts.app import App
from contracts.sections import Booster
from model.boosters import BoosterInput, Sizes, make_booster
from model.delayed import DelayHeads, mode_of
from model.embeddings import Part, Table, Touched
from model.layers import AttentionPooling, MeanPooling, Padded, RunningStandardise
from model.light import LightNet
from model.tensors import Batch


class BoosterNet(nn.Module):
    """Pools sequences and standardises numbers, then lets the named booster judge."""

    def __init__(self, sizes: Sizes, settings: Booster) -> None:
        super().__init__()
        self._queries = sizes.queries
        self.standardise = RunningStandardise(sizes.dense)
        pooling = AttentionPooling if settings.pooling == "attention" else MeanPooling
        self.pooling = nn.ModuleList(pooling(sizes.width) for _ in sizes.queries)
        self.tower = make_booster(settings, sizes)

    def forward(self, fields_BFD: Tensor, sequences: tuple[tuple[Tensor, Tensor], ...], dense_BN: Tensor) -> Tensor:
        """Embeddings [B, F, D], sequences ([B, L, D], mask [B, L]) and raw numbers [B, N] to logits [B], float32."""
        pooled = [
            pool(*sequence, fields_BFD[:, query])
            for pool, sequence, query in zip(self.pooling, sequences, self._queries, strict=True)
        ]
        pooled_BQD = torch.stack(pooled, dim=1) if pooled else fields_BFD[:, :0]
        seen = BoosterInput(fields_BFD, pooled_BQD, self.standardise(dense_BN), sequences)
        logit_B: Tensor = self.tower(seen)
        return logit_B.float()


class Judged(NamedTuple):
    """Logits of a minibatch, and the rows to move once their gradients are known."""

    light_B: Tensor
    booster_B: Tensor | None
    touched: tuple[tuple[Table, Touched], ...]
    heads_BK: Tensor | None = None  #: of the delay heads, where `labels.mode` has them


class RocketNets:
    """The light net, the booster and the tables.

    Args:
        app: layout and settings.
        seed: draws every first weight; the light net's do not depend on the booster.
        device: where they live.
    """

    def __init__(self, app: App, *, seed: int, device: torch.device) -> None:
        model, train, layout = app.config.model, app.config.train, app.layout
        self.layout = layout
        self.device = device
        self._width = model.embedding_dim
        self._light_ids = len(layout.light_ids)
        self._light_dense = len(layout.light_dense)
        self._light_moves_shared = app.config.rocket.light_updates_shared
        alone = model.booster.kind == "none"
        prior = app.config.serving.prior_ctr

        embedding = Part("embedding", model.embedding_dim, train.embedding_lr, train.embedding_init)
        wide = (Part("wide", 1, train.wide_lr, 0.0),) if model.light.wide else ()
        start = train.accumulator_init
        shared = not alone and model.sharing == "shared"
        self.light_table = Table(
            layout.rows if shared else layout.light_rows,
            (embedding, *wide),
            accumulator_init=start,
            generator=torch.Generator().manual_seed(seed),
        )
        self.booster_table: Table | None = None
        if shared:
            self.booster_table = self.light_table
        elif not alone:
            generator = torch.Generator().manual_seed(seed + 1)
            self.booster_table = Table(layout.rows, (embedding,), accumulator_init=start, generator=generator)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + 2)
            self.light = LightNet(
                self._light_ids,
                self._light_dense,
                width=self._width,
                hidden=model.light.hidden,
                wide=model.light.wide,
                prior_logit=math.log(prior / (1 - prior)),
            )
            torch.manual_seed(seed + 3)
            self.booster = None if alone else self._make_booster(model.booster, self.light.bias)
            torch.manual_seed(seed + 4)
            mode = mode_of(app.config.labels)
            inputs = self._light_ids * self._width + self._light_dense
            self.heads = DelayHeads(inputs, mode.start) if mode is not None and mode.start else None
        for table in self.tables.values():
            table.to(device)
        for net in self.nets.values():
            net.to(device)

    def _make_booster(self, settings: Booster, prior_logit: Tensor) -> BoosterNet:
        layout = self.layout
        names = [feature.name for feature in layout.ids]
        queries = tuple(names.index(f.of or "") for f in layout.sequences)
        sizes = Sizes(len(layout.ids), len(layout.sequences), len(layout.dense), self._width, queries)
        net = BoosterNet(sizes, settings)
        head = getattr(net.tower, "head", None)
        if isinstance(head, nn.Linear) and head.out_features == 1:
            nn.init.constant_(head.bias, float(prior_logit.detach()))
        return net

    @property
    def shared(self) -> bool:
        """Whether both nets read one table."""
        return self.booster_table is self.light_table

    @property
    def tables(self) -> dict[str, Table]:
        """The tables by name: "shared", or "light" and (with a booster) "booster"."""
        if self.booster_table is None:
            return {"light": self.light_table}
        return (
            {"shared": self.light_table} if self.shared else {"light": self.light_table, "booster": self.booster_table}
        )

    @property
    def nets(self) -> dict[str, nn.Module]:
        """The nets by name: "light", unless it is alone "booster", and "heads" where `labels.mode` has delay heads."""
        nets = {"light": self.light, "booster": self.booster, "heads": self.heads}
        return {name: net for name, net in nets.items() if net is not None}

    def learn(self, batch: Batch, autocast: AbstractContextManager[object]) -> Judged:
        """Logits that autograd follows down to the touched rows.

        Args:
            batch: on this device.
            autocast: entered around the booster.
        """
        light_rows = batch.ids_BF[:, : self._light_ids].reshape(-1)
        if self.booster is None or self.booster_table is None:
            touched = self.light_table.touch(light_rows)
            moved: tuple[tuple[Table, Touched], ...] = ((self.light_table, touched),)
            return Judged(
                self._judge_light(batch, touched.leaves), None, moved, self._judge_delay(batch, touched.leaves)
            )
        theirs = self.booster_table.touch(self._booster_rows(batch))
        if self.shared:
            leaves = self._light_shares(batch, theirs.leaves)
            moved = ((self.booster_table, theirs),)
        else:
            own = self.light_table.touch(light_rows)
            leaves = own.leaves
            moved = ((self.light_table, own), (self.booster_table, theirs))
        logit_B = self._judge_light(batch, leaves)
        with autocast:
            booster_B = self._judge_booster(self.booster, batch, theirs.leaves[0])
        return Judged(logit_B, booster_B, moved, self._judge_delay(batch, leaves))

    def predict(self, batch: Batch) -> Judged:
        """Logits without gradients, in float32."""
        light_rows = batch.ids_BF[:, : self._light_ids].reshape(-1)
        with torch.no_grad():
            light_B = self._judge_light(batch, self.light_table.look_up(light_rows))
            if self.booster is None or self.booster_table is None:
                return Judged(light_B, None, ())
            leaf = self.booster_table.look_up(self._booster_rows(batch))[0]
            return Judged(light_B, self._judge_booster(self.booster, batch, leaf), ())

    def observe(self, batch: Batch) -> None:
        """Let the booster's standardisation see the numbers of a minibatch that has been learnt."""
        if self.booster is not None:
            self.booster.standardise.observe(batch.dense_BN)

    def _booster_rows(self, batch: Batch) -> Tensor:
        ids_M = batch.ids_BF.reshape(-1)
        return torch.cat((ids_M, *(s.rows_S for s in batch.sequences))) if batch.sequences else ids_M

    def _light_shares(self, batch: Batch, leaves: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Of each part of all look-ups those that the light net makes."""
        fields = batch.ids_BF.numel()
        shares = []
        for number, leaf_MD in enumerate(leaves):
            width = leaf_MD.shape[1]
            mine = leaf_MD[:fields].view(batch.rows, batch.ids_BF.shape[1], width)[:, : self._light_ids]
            # the first-order weights, beside the embedding, are the light net's own: they always move
            blocked = number == 0 and not self._light_moves_shared
            shares.append((mine.detach() if blocked else mine).reshape(-1, width))
        return tuple(shares)

    def _judge_light(self, batch: Batch, leaves: tuple[Tensor, ...]) -> Tensor:
        embedding_BX = leaves[0].view(batch.rows, self._light_ids * self._width)
        wide_BF = leaves[1].view(batch.rows, self._light_ids) if len(leaves) > 1 else None
        logit_B: Tensor = self.light(embedding_BX, wide_BF, batch.dense_BN[:, : self._light_dense])
        return logit_B

    def _judge_delay(self, batch: Batch, leaves: tuple[Tensor, ...]) -> Tensor | None:
        if self.heads is None:
            return None
        embedding_BX = leaves[0].view(batch.rows, self._light_ids * self._width)
        heads_BK: Tensor = self.heads(embedding_BX, batch.dense_BN[:, : self._light_dense])
        return heads_BK

    def _judge_booster(self, net: BoosterNet, batch: Batch, leaf_MD: Tensor) -> Tensor:
        parts = torch.split(leaf_MD, [batch.ids_BF.numel(), *(s.rows_S.shape[0] for s in batch.sequences)])
        fields_BFD = parts[0].view(batch.rows, len(self.layout.ids), self._width)
        padded = [Padded(sequence) for sequence in batch.sequences]
        sequences = tuple((p.fill(part), p.mask_BL) for p, part in zip(padded, parts[1:], strict=True))
        logit_B: Tensor = net(fields_BFD, sequences, batch.dense_BN)
        return logit_B
