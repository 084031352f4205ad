"""Teachers that stand still: a booster or a light net with rows of its own, and where another run keeps them.

Shapes: B rows, R rows of a table, M look-ups, D width.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from contracts.app import App
from contracts.errors import ContractError
from model.booster_net import judge_booster, make_booster_net, rows_that_it_reads
from model.checkpoint import load_newest
from model.layers import MovesWhenTold
from model.tensors import Batch

State = Mapping[str, Tensor]


class FrozenRows(MovesWhenTold):
    """Rows of a table that nothing moves but `take`.

    Args:
        rows: R.
        width: D.

    >>> kept = FrozenRows(3, 1)
    >>> kept.take(torch.tensor([[1.0], [2.0], [3.0], [4.0]]))
    >>> kept.look_up(torch.tensor([2, 0])).tolist()
    [[3.0], [1.0]]
    """

    rows_RD: Tensor

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.register_buffer("rows_RD", torch.zeros(rows, width))

    def look_up(self, rows_M: Tensor) -> Tensor:
        """[M, D]."""
        return self.rows_RD[rows_M]

    @torch.no_grad()
    def take(self, table_RD: Tensor) -> None:
        """Copy the first rows of a table."""
        self.rows_RD.copy_(table_RD[: len(self.rows_RD)])


class FrozenBooster(nn.Module):
    """A booster of another run: it judges, and nothing moves it. Dropout is off, moments stand still."""

    def __init__(self, app: App) -> None:
        super().__init__()
        self.net = make_booster_net(app)
        self.rows = FrozenRows(app.layout.rows, app.config.model.embedding_dim)
        self.requires_grad_(requires_grad=False)
        self.train()

    def train(self, mode: bool = True) -> "FrozenBooster":  # noqa: FBT001, FBT002  # torch's form
        """It never trains."""
        del mode
        return super().train(mode=False)

    @torch.no_grad()
    def forward(self, batch: Batch, hidden: list[Tensor] | None = None) -> Tensor:
        """Logits [B], float32; behind `hidden` each hidden layer's output is put."""
        return judge_booster(self.net, batch, self.rows.look_up(rows_that_it_reads(batch)), None, hidden)

    def take(self, app: App) -> None:
        """Become the booster of the run that `rocket.teacher` names, its averaged tower as it would be published.

        Raises:
            ContractError: its booster is another one than this app's, or learnt other labels.
            CorruptError: there is no whole checkpoint.
            SchemaMismatchError: it was trained on another feature table.
        """
        state = state_of_teacher(app)
        found = {name: state.get(f"model.booster.{name}") for name in self.net.state_dict()}
        averaged = {name: state.get(f"model.average.booster.{name}") for name, _ in self.net.named_parameters()}
        found |= {name: tensor for name, tensor in averaged.items() if tensor is not None}
        _fit(app, "booster", dict(self.net.state_dict()), found)
        rows = _first(state, "model.table.booster.embedding", "model.table.shared.embedding")
        _fit(app, "booster", {"rows": self.rows.rows_RD}, {"rows": rows})
        self.net.load_state_dict(found)
        if rows is not None:
            self.rows.take(rows)


def state_of_teacher(app: App) -> dict[str, Tensor]:
    """Tensors of the trainer whose newest checkpoint lies in `rocket.teacher`.

    Raises:
        ContractError: it learnt other labels, or there is no folder.
        CorruptError: there is no whole checkpoint.
        SchemaMismatchError: it was trained on another feature table.
    """
    folder = Path(app.config.rocket.teacher or "")
    if not folder.is_dir():
        raise ContractError(f"[rocket] teacher = '{folder}': no such folder; give that of a run which trained this app")
    saved = load_newest(folder / "checkpoints" if (folder / "checkpoints").is_dir() else folder, app.schema_id)
    mode, wanted = saved.meta["trainer"].get("label_mode", "wait"), app.config.labels.mode
    if mode != wanted:
        raise ContractError(
            f'[rocket] teacher = \'{folder}\': it learnt with labels.mode = "{mode}", and the app says "{wanted}"; '
            "train a teacher with this mode"
        )
    return saved.part("trainer")


def light_of_teacher(app: App, shapes: State) -> dict[str, Tensor]:
    """The light net in `rocket.teacher`: averaged parameters, and rows as "embedding" and "wide".

    Args:
        app: names the teacher.
        shapes: what is wanted, by name.

    Raises:
        ContractError: its light net is another one than this app's; and as `state_of_teacher`.
    """
    state = state_of_teacher(app)
    found = {
        name: _first(state, f"model.table.light.{name}", f"model.table.shared.{name}")
        if name in {"embedding", "wide"}
        else state.get(f"model.average.light.{name}")
        for name in shapes
    }
    _fit(app, "light", shapes, found)
    return {name: tensor[: len(shapes[name])] for name, tensor in found.items() if tensor is not None}


def _first(state: State, *names: str) -> Tensor | None:
    return next((state[name] for name in names if name in state), None)


def _fit(app: App, net: str, wanted: State, found: Mapping[str, Tensor | None]) -> None:
    for name, tensor in wanted.items():
        held = found.get(name)
        if not _fits(held, tensor, rows=name in {"rows", "embedding", "wide"}):
            shape = None if held is None else tuple(held.shape)
            raise ContractError(
                f"[rocket] teacher = '{app.config.rocket.teacher}': its {net} net is not that of app '{app.name}' "
                f"('{name}' has shape {shape} in it and {tuple(tensor.shape)} here); train the teacher with the same "
                "[model], without a trunk"
            )


def _fits(held: Tensor | None, wanted: Tensor, *, rows: bool) -> bool:
    """Whether the shapes are the same; of a table it may be the beginning: a shared one holds more."""
    if held is None or held.dim() != wanted.dim():
        return False
    if not rows:
        return held.shape == wanted.shape
    return held.shape[1:] == wanted.shape[1:] and len(held) >= len(wanted)
