"""Nets that do not begin blank: a booster swapped, added or left out, a light net that was published before.

Restoring wants a state of exactly the nets that there are. `fitted` makes one of a checkpoint with another booster: the
light net, its rows, its averages and moments and all counts stay; what the new booster has of its own begins as in a
new trainer, and the gate is shut until it leads.
"""

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from contracts.errors import ContractError
from contracts.model_checks import NO_BOOSTER
from contracts.weights import KEYS

if TYPE_CHECKING:
    from model.trainer import Trainer

log = logging.getLogger(__name__)
State = dict[str, Tensor]
_BOOSTER = "model.booster."


def fitted(
    trainer: "Trainer", state: State, meta: dict[str, Any], *, new_booster: bool
) -> tuple[State, dict[str, Any]]:
    """A checkpoint's state as `trainer` can restore it; itself where the booster is the same.

    Args:
        trainer: as it was made from its app.
        state: as from `Trainer.state`.
        meta: as from `Trainer.meta`.
        new_booster: whether another booster than the checkpoint's may begin; it must not by mistake.

    Raises:
        ContractError: the booster is another one, and `new_booster` is not asked for.
    """
    if meta.get("scheme", "rocket") != trainer.app.config.rocket.scheme:
        return state, meta  # `check_fits` refuses it, and says why
    wanted, net = trainer.app.config.model.booster.kind, trainer.nets.booster
    mine = {} if net is None else _of_booster({f"{_BOOSTER}{name}": t for name, t in net.state_dict().items()})
    held = meta.get("booster", {}).get("kind") or ("a booster" if _of_booster(state) else NO_BOOSTER)
    if held in {wanted, "a booster"} and _of_booster(state) == mine:
        return state, meta
    if wanted == NO_BOOSTER:
        log.warning("the checkpoint's booster (%s) is left out, as model.booster.kind says", held)
    elif not new_booster:
        raise ContractError(
            f"the checkpoint holds {_called(held)}, but app '{trainer.app.name}' says {_called(wanted)} or gives it "
            "other layers; --new-booster keeps the light net and starts that booster anew, or set [model.booster] back"
        )
    rows = int(meta.get("rows_learnt", 0))
    running = meta.get("running_logloss", {})
    made = {name: value for name, value in meta.items() if name != "bf16"}
    made["running_logloss"] = running | {"booster": running.get("light", 0.0)}  # the gate is shut until it leads
    made["booster"] = {"kind": wanted, "since_rows": rows}
    return _adopted(trainer, state, trainer.state()), made


def _of_booster(state: State) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items() if name.startswith(_BOOSTER)}


def _called(kind: str) -> str:
    return "no booster" if kind == NO_BOOSTER else kind if kind == "a booster" else f"the booster '{kind}'"


def _adopted(trainer: "Trainer", state: State, fresh: State) -> State:
    """Names and shapes of `fresh`, with the values of `state` wherever they are not a booster's own."""
    made = {}
    for name, start in fresh.items():
        if ".table." in name:
            made[name] = _rows_of(name, state, start)
        elif name.startswith("optimizer.dense.") and name in state and start.dim() == 1:
            made[name] = _spliced(trainer, state[name], start)
        elif name.startswith((_BOOSTER, "model.average.booster.", "model.coach.", "model.average.coach.")):
            made[name] = start
        elif name in state:
            made[name] = state[name]
    return made


def _rows_of(name: str, state: State, start: Tensor) -> Tensor:
    """Rows of a table: the light net's come first in whatever table it reads; a booster keeps its own where it can."""
    kind, _, rest = name.partition(".table.")
    table, _, part = rest.partition(".")
    places = ("booster", "shared") if table == "booster" else ("shared", "light")
    for place in places:
        found = state.get(f"{kind}.table.{place}.{part}")
        if found is not None and found.shape[1:] == start.shape[1:]:
            made = start.clone()
            rows = min(len(found), len(start)) if start.dim() else 0
            made[:rows] = found[:rows] if start.dim() else found
            return made
    return start


def _spliced(trainer: "Trainer", found: Tensor, start: Tensor) -> Tensor:
    """Moments of all nets one after the other: the light net's come first, those of delay heads last."""
    sizes = {name: sum(p.numel() for p in net.parameters()) for name, net in trainer.nets.nets.items()}
    light, heads = sizes["light"], sizes.get("heads", 0)
    made = start.clone()
    made[:light] = found[:light]
    made[len(made) - heads :] = found[len(found) - heads :]
    return made


@torch.no_grad()
def start_light(trainer: "Trainer", arrays: Mapping[str, np.ndarray]) -> None:
    """Give a new trainer's light net, and its average, the published weights; accumulators and moments begin anew.

    Args:
        trainer: that has learnt nothing yet.
        arrays: named and shaped as in `contracts.weights`.

    Raises:
        ContractError: they are another net's; names the array.
    """
    nets = trainer.nets
    rows, tables = nets.layout.light_rows, nets.light_table.views()
    mine: dict[str, Tensor] = {"embedding": tables["embedding"][:rows]}
    if "wide" in tables:
        mine["wide"] = tables["wide"][:rows, 0]
    mine |= dict(nets.light.named_parameters())
    codes = nets.light.codes()
    shapes = {name: tuple(tensor.shape) for name, tensor in (mine | codes).items()}
    if nets.layout.dynamic:
        shapes[KEYS] = (rows,)
    for name in [*shapes, *arrays]:
        found, here = arrays[name].shape if name in arrays else None, shapes.get(name)
        if found != here or (name in codes and arrays[name][0] != float(codes[name][0])):
            raise ContractError(
                f"the published light net is not that of app '{trainer.app.name}': array '{name}' has the shape "
                f"{found} in it and {here} here, or other values; set [model.light] and embedding_dim as they were"
            )
    for name, tensor in mine.items():
        tensor.copy_(torch.from_numpy(np.ascontiguousarray(arrays[name], np.float32)))
    if nets.layout.dynamic:
        trainer.ids.adopt(arrays[KEYS])
    average = trainer.averages["light"]
    average.load({name: mine[name] for name, _ in nets.light.named_parameters()}, 0)
