"""Both nets and their embedding tables, made from an app; who reads which rows.

`model.sharing = "shared"`: one table for all id features; both nets read the same rows of the light's features.
`"separate"`: the light net has a table of its features, the booster one of all features. A sequence reads the rows of
the feature that it refers to. With `model.share = "trunk"` the booster also sees what the light net's lowest layers
give.
Shapes: B rows, F id features, N dense, Q sequences, S positions, D width, H hidden width.
"""

import math
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn

from contracts.app import App
from contracts.schemes import WITH_BOOSTER
from model.booster_net import judge_booster, make_booster_net, rows_that_it_reads
from model.delayed import DelayHeads, mode_of
from model.embeddings import Part, Table, Touched
from model.hints import make_coach
from model.light import LightNet
from model.schemes import make_scheme
from model.schemes.scheme import Said, Seen
from model.tensors import Batch


class Judged(NamedTuple):
    """Logits of a minibatch, and the rows to move once their gradients are known."""

    light_B: Tensor
    booster_B: Tensor | None
    touched: tuple[tuple[Table, Touched], ...]
    heads_BK: Tensor | None = None  #: of the delay heads, where `labels.mode` has them
    light_layers: tuple[Tensor, ...] = ()  #: what its hidden layers gave, [B, H] each, where that was asked for
    booster_layers: tuple[Tensor, ...] = ()  #: likewise; of a booster of one's own those that it tells
    said: Said = Said()  #: by the scheme's nets
    #: what the light net read, [B, X], and what the booster looked up, [M, D], which holds the same rows where shared
    read: tuple[Tensor, ...] = ()


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
        alone = model.booster.kind == "none" or app.config.rocket.scheme not in WITH_BOOSTER
        self._trunk = 0 if alone or model.share != "trunk" else model.trunk_layers
        prior = app.config.serving.prior_ctr

        embedding = Part(
            "embedding", model.embedding_dim, train.embedding_lr, train.embedding_init, train.embedding_optimizer
        )
        wide = (Part("wide", 1, train.wide_lr, 0.0, train.wide_optimizer, train.ftrl),) if model.light.wide else ()
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
                settings=model.light,
                prior_logit=math.log(prior / (1 - prior)),
                trunk=self._trunk,
            )
            torch.manual_seed(seed + 3)
            trunk = model.light.layers[self._trunk - 1] if self._trunk else 0
            self.booster = None if alone else make_booster_net(app, trunk=trunk)
            torch.manual_seed(seed + 4)
            mode = mode_of(app.config.labels)
            inputs = self._light_ids * self._width + self._light_dense
            self.heads = DelayHeads(inputs, mode.start) if mode is not None and mode.start else None
        self.coach = make_coach(model, app.config.rocket, seed + 5)  #: what the feature hint learns of its own
        self.scheme = make_scheme(app, seed + 6)  #: what the scheme has beside both nets
        self._has_scheme = bool(self.scheme.state_dict())
        self._has_coach = self.coach is not None and bool(self.coach.state_dict())
        for table in self.tables.values():
            table.to(device)
        for net in self.nets.values():
            net.to(device)

    @property
    def shared(self) -> bool:
        """Whether both nets read one table."""
        return self.booster_table is self.light_table

    @property
    def follows(self) -> bool:
        """Whether anything is followed by the light net, so that lambda counts."""
        return self.booster is not None or self.scheme.follows

    @property
    def taught(self) -> bool:
        """Whether a booster, or a net in its place, judges beside the light net."""
        return self.booster is not None or self.scheme.teaches

    @property
    def draws(self) -> bool:
        """Whether a forward pass, or a hint, draws from torch's global generator without a layer that says so."""
        return self.scheme.draws or (self.coach is not None and self.coach.draws)

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
        """The nets by name: "light", unless it is alone "booster"; "coach", "scheme", "heads" where there are any."""
        nets = {
            "light": self.light,
            "booster": self.booster,
            "coach": self.coach if self._has_coach else None,
            "scheme": self.scheme if self._has_scheme else None,
            "heads": self.heads,
        }
        return {name: net for name, net in nets.items() if net is not None}

    def learn(self, batch: Batch, autocast: AbstractContextManager[object], *, hidden: bool = False) -> Judged:
        """Logits that autograd follows down to the touched rows.

        Args:
            batch: on this device.
            autocast: entered around the booster.
            hidden: give what the hidden layers give as well.
        """
        light_rows = batch.ids_BF[:, : self._light_ids].reshape(-1)
        if self.booster_table is None:
            touched = self.light_table.touch(light_rows)
            judged = self._judge(batch, touched.leaves, None, autocast, hidden)
            return judged._replace(touched=((self.light_table, touched),))
        theirs = self.booster_table.touch(rows_that_it_reads(batch))
        if self.shared:
            judged = self._judge(batch, self._light_shares(batch, theirs.leaves), theirs.leaves[0], autocast, hidden)
            return judged._replace(touched=((self.booster_table, theirs),))
        own = self.light_table.touch(light_rows)
        judged = self._judge(batch, own.leaves, theirs.leaves[0], autocast, hidden)
        return judged._replace(touched=((self.light_table, own), (self.booster_table, theirs)))

    def predict(self, batch: Batch, *, hidden: bool = False) -> Judged:
        """Logits without gradients, in float32; no delay heads."""
        light_rows = batch.ids_BF[:, : self._light_ids].reshape(-1)
        with torch.no_grad():
            leaf = None if self.booster_table is None else self.booster_table.look_up(rows_that_it_reads(batch))[0]
            judged = self._judge(batch, self.light_table.look_up(light_rows), leaf, nullcontext(), hidden)
        return judged._replace(heads_BK=None)

    def observe(self, batch: Batch) -> None:
        """Let the booster's standardisation see the numbers of a minibatch that has been learnt."""
        if self.booster is not None:
            self.booster.standardise.observe(batch.dense_BN)

    def light_share(self, batch: Batch, booster_MD: Tensor) -> Tensor:
        """Of what belongs to the booster's look-ups, [M, D], what belongs to the light net's: [B, X]."""
        return self._light_shares(batch, (booster_MD,))[0].view(batch.rows, self._light_ids * self._width)

    def _light_shares(self, batch: Batch, leaves: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Of each part of all look-ups those that the light net makes."""
        fields = batch.ids_BF.numel()
        return tuple(
            leaf_MD[:fields]
            .view(batch.rows, batch.ids_BF.shape[1], leaf_MD.shape[1])[:, : self._light_ids]
            .reshape(-1, leaf_MD.shape[1])
            for leaf_MD in leaves
        )

    def _judge(
        self,
        batch: Batch,
        leaves: tuple[Tensor, ...],
        booster_leaf_MD: Tensor | None,
        autocast: AbstractContextManager[object],
        hidden: bool,  # noqa: FBT001  # private
    ) -> Judged:
        """Both nets from the rows that they read."""
        lights: list[Tensor] | None = [] if hidden or self.scheme.asks_hidden else None
        boosters: list[Tensor] | None = [] if hidden else None
        dense_BN, trunk_BH = batch.dense_BN[:, : self._light_dense], None
        embedding_BX = leaves[0].view(batch.rows, self._light_ids * self._width)
        if self._trunk:
            trunk_BH = self.light.lowest(embedding_BX, dense_BN, lights)
        seen_BH = trunk_BH
        if self.shared and not self._light_moves_shared:  # the first-order weights are the light net's own: they move
            embedding_BX, seen_BH = embedding_BX.detach(), None if trunk_BH is None else trunk_BH.detach()
            lights = None if lights is None else [layer.detach() for layer in lights]
        wide_BF = leaves[1].view(batch.rows, self._light_ids) if len(leaves) > 1 else None
        light_B = self.light(embedding_BX, wide_BF, dense_BN, trunk_BH=seen_BH, hidden=lights)
        booster_B = None
        if self.booster is not None and booster_leaf_MD is not None:
            with autocast:
                booster_B = judge_booster(self.booster, batch, booster_leaf_MD, trunk_BH, boosters)
        heads_BK = None if self.heads is None else self.heads(embedding_BX, dense_BN)
        read = (embedding_BX,) if booster_leaf_MD is None else (embedding_BX, booster_leaf_MD)
        judged = Judged(light_B, booster_B, (), heads_BK, tuple(lights or ()), tuple(boosters or ()), read=read)
        said = self.scheme.judge(Seen(batch, embedding_BX, dense_BN, self.light, light_B, judged.light_layers, hidden))
        if said.booster_B is not None:
            judged = judged._replace(booster_B=said.booster_B, booster_layers=said.booster_layers)
        return judged._replace(said=said)
