"""Born-again nets in a stream: the light net of some time ago teaches the light net (Furlanello et al., ICML 2018).

Shapes: B rows, F id features of the light net.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from contracts.app import App
from model.layers import MovesWhenTold
from model.light import LightNet
from model.schemes.frozen import FrozenRows, light_of_teacher
from model.schemes.scheme import Said, Scheme, Seen

if TYPE_CHECKING:
    from model.trainer import Trainer


class _Count(MovesWhenTold):
    """Which generation teaches (0: none yet), and how many rows had been learnt when it was taken."""

    generation: Tensor
    rows: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("generation", torch.zeros((), dtype=torch.int64))
        self.register_buffer("rows", torch.zeros((), dtype=torch.int64))


class BornAgain(Scheme):
    """loss = label(light) + lambda * hint(light, generation before).

    The paper trains each generation anew on the same data, from the labels and the generation before. A stream passes
    once: here the light net goes on, and after every `rocket.generation_rows` rows it is copied as it would be
    published then (averaged tower, its rows); that copy teaches until the next. With `rocket.teacher` the first
    generation is the light net of another run, so that over the same log this is the paper's scheme. Until there is a
    generation, nothing is followed.
    """

    teaches = follows = True

    def __init__(self, app: App) -> None:
        super().__init__()
        layout, model = app.layout, app.config.model
        self._ids, self._width = len(layout.light_ids), model.embedding_dim
        self._every = app.config.rocket.generation_rows
        dense = len(layout.light_dense)
        self.net = LightNet(self._ids, dense, width=self._width, settings=model.light, prior_logit=0.0)
        self.embedding = FrozenRows(layout.light_rows, self._width)
        self.wide = FrozenRows(layout.light_rows, 1) if model.light.wide else None
        self.count = _Count()
        self.requires_grad_(requires_grad=False)

    @torch.no_grad()
    def judge(self, seen: Seen) -> Said:
        """The logits of the generation that teaches."""
        rows_M, rows = seen.batch.ids_BF[:, : self._ids].reshape(-1), seen.batch.rows
        embedding_BX = self.embedding.look_up(rows_M).view(rows, self._ids * self._width)
        wide_BF = None if self.wide is None else self.wide.look_up(rows_M).view(rows, self._ids)
        return Said(self.net(embedding_BX, wide_BF, seen.dense_BN))

    def strength(self) -> float:
        """0 until there is a generation."""
        return 1.0 if int(self.count.generation) else 0.0

    def begin(self, trainer: "Trainer") -> None:
        """The first generation is that of another run; without one, the light net as it begins stands in its place."""
        if trainer.app.config.rocket.teacher is None:
            self._take(trainer)
            return
        shapes = dict(self.net.named_parameters()) | {"embedding": self.embedding.rows_RD}
        shapes |= {} if self.wide is None else {"wide": self.wide.rows_RD}
        found = light_of_teacher(trainer.app, shapes)
        self.embedding.take(found.pop("embedding"))
        if self.wide is not None:
            self.wide.take(found.pop("wide"))
        self.net.load_state_dict(found)
        self.count.generation.fill_(1)

    def learnt(self, trainer: "Trainer") -> None:
        """Let the next generation begin where it is due."""
        if trainer.rows_learnt >= int(self.count.rows) + self._every:
            self._take(trainer)
            self.count.generation += 1
            self.count.rows.fill_(trainer.rows_learnt)

    def _take(self, trainer: "Trainer") -> None:
        """The light net as it would be published now."""
        tables = trainer.nets.light_table.views()
        self.net.load_state_dict(trainer.averages["light"].state())
        self.embedding.take(tables["embedding"])
        if self.wide is not None:
            self.wide.take(tables["wide"])
