"""The nets that teach, by name; each sees the same `BoosterInput` and gives one logit a row.

A net of your own is a `torch.nn.Module` named "module:Class" in `model.booster.kind`, made as `Class(sizes, settings)`.
`forward(seen)` gives its logits. To be followed layer by layer (`rocket.feature_hint`) it takes `hidden` as well: None,
or a list behind which it puts what each of its hidden layers gives, [B, H]; asked for none, it must not pay for them.
"""

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from contracts.errors import ContractError
from contracts.model_checks import trouble
from contracts.nets import Booster
from model.layers import Hidden

#: Name -> where the class is. A new booster is one file here and one row.
BOOSTERS = {
    "autoint": "model.boosters.autoint:AutoInt",
    "dcn_v2": "model.boosters.dcn_v2:DCNv2",
    "deepfm": "model.boosters.deepfm:DeepFM",
    "din": "model.boosters.din:DIN",
    "fibinet": "model.boosters.fibinet:FiBiNET",
    "finalmlp": "model.boosters.finalmlp:FinalMLP",
    "masknet": "model.boosters.masknet:MaskNet",
    "mlp": "model.boosters.mlp:MLP",
    "wdl": "model.boosters.wdl:WideAndDeep",
}


class BoosterInput(NamedTuple):
    """What a booster sees. B rows, F id features, Q sequences, N dense features, L positions, D width."""

    fields_BFD: Tensor  #: embeddings of all id features, the light net's first
    pooled_BQD: Tensor  #: each sequence pooled to one embedding
    dense_BN: Tensor  #: all dense features, standardised
    sequences: tuple[
        tuple[Tensor, Tensor], ...
    ]  #: each sequence as ([B, L, D], mask [B, L]), for attention of your own
    trunk_BH: Tensor | None = None  #: what the layers that the light net shares give (`model.share = "trunk"`)

    def vectors(self) -> Tensor:
        """Fields and pooled sequences, [B, M = F + Q, D]: what interactions are made of."""
        return torch.cat((self.fields_BFD, self.pooled_BQD), dim=1)

    def numbers(self) -> Tensor:
        """The dense features and the trunk: [B, N + H]."""
        return self.dense_BN if self.trunk_BH is None else torch.cat((self.dense_BN, self.trunk_BH), dim=1)

    def flat(self) -> Tensor:
        """All of it side by side but the unpooled sequences: [B, (F + Q) * D + N + H]."""
        return torch.cat((self.fields_BFD.flatten(1), self.pooled_BQD.flatten(1), self.numbers()), dim=1)


@dataclass(frozen=True, slots=True)
class Sizes:
    """The shapes of a `BoosterInput`, known when the net is made."""

    ids: int  #: F
    sequences: int  #: Q
    dense: int  #: N
    width: int  #: D
    queries: tuple[int, ...] = ()  #: of each sequence, the field that it is a sequence of
    trunk: int = 0  #: H, columns of the trunk

    @property
    def vectors(self) -> int:
        """M: rows of `BoosterInput.vectors`."""
        return self.ids + self.sequences

    @property
    def numbers(self) -> int:
        """Columns of `BoosterInput.numbers`."""
        return self.dense + self.trunk

    @property
    def flat(self) -> int:
        """I: columns of `BoosterInput.flat`."""
        return self.vectors * self.width + self.numbers


def hidden_of(settings: Booster) -> Hidden:
    """What follows each hidden layer of a booster."""
    return Hidden(settings.activation, settings.norm, settings.dropout)


def gives_hidden(net: nn.Module) -> bool:
    """Whether a booster gives its hidden layers when asked."""
    return "hidden" in inspect.signature(net.forward).parameters


def make_booster(settings: Booster, sizes: Sizes) -> nn.Module:
    """Make the net that `model.booster.kind` names.

    Raises:
        ContractError: no such name, module or class, it lacks what it needs (`contracts.model_checks.trouble`), or the
            class cannot be made from (sizes, settings).
    """
    kind = settings.kind
    told = trouble(settings, sequences=sizes.sequences > 0, inputs=sizes.flat)
    if told is not None:
        raise ContractError(f"[model.booster] kind = '{kind}': {told}")
    module_name, _, class_name = BOOSTERS.get(kind, kind).partition(":")
    try:
        make: Callable[[Sizes, Booster], nn.Module] = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise ContractError(
            f"[model.booster] kind = '{kind}': cannot be loaded ({error}); it must be importable where rocket runs"
        ) from error
    try:
        net = make(sizes, settings)
    except TypeError as error:
        raise ContractError(
            f"[model.booster] kind = '{kind}': {class_name}(sizes, settings) fails ({error}); "
            "see model/boosters/mlp.py for the form"
        ) from error
    if not isinstance(net, nn.Module):
        raise ContractError(f"[model.booster] kind = '{kind}': {class_name} is no torch.nn.Module")
    return net
