"""What each term of the loss does to each net, looked at now and then: the figures that say why a hint helps or harms.

A look costs one backward pass a term, so only every `rocket.watch_every`-th minibatch is looked at. It moves nothing.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from model.rocket import Judged, RocketNets

_KEPT = 128  # looks that the history holds; then every other one goes
_TERMS = ("light", "booster", "hint", "feature", "scheme")


class Watch:
    """The newest look, and a history of looks that stays short.

    Args:
        nets: whose gradients are taken.
        every: minibatches between two looks; 0: none.

    A look has `rows` (learnt before it), the minibatch's figures (`Predictions.terms`), and

    * `grad_<net>_<term>`: length of the gradient that a term (light and booster: their label losses; the others:
      lambdas in) puts on a net ("light", "booster": parameters of the towers; "rows": all embedding rows looked up);
    * `hint_share`: hint and feature over all terms, of the lengths on the light net;
    * `booster_lead`: running logloss of the light net less the booster's, nats;
    * `rms_<table>`, `new_<table>`: root mean square of the embeddings of the distinct rows looked up, and the share of
      these rows that never moved.
    """

    def __init__(self, nets: RocketNets, every: int) -> None:
        self._nets, self._every, self._stride = nets, every, 1
        self.history: list[dict[str, float]] = []  #: oldest first, evenly spread

    @property
    def newest(self) -> dict[str, float]:
        """The newest look that is kept; nothing before the first."""
        return self.history[-1] if self.history else {}

    def due(self, step: int) -> bool:
        """Whether the minibatch after `step` others is to be looked at."""
        return bool(self._every) and step % (self._every * self._stride) == 0

    def look(self, parts: Mapping[str, Tensor], judged: Judged) -> dict[str, float]:
        """The figures of a minibatch before its loss goes backward.

        Args:
            parts: terms of the loss, by name (`losses.Terms.parts`).
            judged: what the nets said, and the rows that they read.
        """
        leaves = [leaf for _, touched in judged.touched for leaf in touched.leaves if leaf.numel()]
        groups: dict[str, list[Tensor]] = {
            name: [*net.parameters()] for name, net in self._nets.nets.items() if name in {"light", "booster"}
        }
        groups["rows"] = leaves
        groups = {name: [tensor for tensor in group if tensor.requires_grad] for name, group in groups.items()}
        every = [tensor for group in groups.values() for tensor in group]
        seen: dict[str, float] = {}
        for term in _TERMS:
            if term not in parts or not parts[term].requires_grad:
                continue
            found: tuple[Tensor | None, ...] = torch.autograd.grad(
                parts[term], every, retain_graph=True, allow_unused=True
            )
            start = 0
            for name, group in groups.items():
                some = [gradient for gradient in found[start : start + len(group)] if gradient is not None]
                start += len(group)
                seen[f"grad_{name}_{term}"] = _length(some)
        hints = seen.get("grad_light_hint", 0.0) + seen.get("grad_light_feature", 0.0)
        told = hints + seen.get("grad_light_light", 0.0)
        seen["hint_share"] = hints / told if told else 0.0
        for name, (table, touched) in zip(self._nets.tables, judged.touched, strict=True):
            seen[f"rms_{name}"] = float(touched.slab_UC[:, : table.parts[0].width].square().mean().sqrt())
            seen[f"new_{name}"] = table.new_share(touched)
        return seen

    def keep(self, seen: Mapping[str, float]) -> None:
        """Put a look into the history; a full one forgets every other and is fed half as often."""
        # all of one type, or what is restored would be written otherwise than what was never stopped
        self.history.append({name: float(value) for name, value in seen.items()})
        if len(self.history) > _KEPT:
            self.history, self._stride = self.history[::2], self._stride * 2

    def meta(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {"stride": self._stride, "history": [dict(seen) for seen in self.history]}

    def restore(self, meta: Mapping[str, Any]) -> None:
        """Go on from what `meta` gave; from nothing where it is empty."""
        self._stride = int(meta.get("stride", 1))
        self.history = [{name: float(value) for name, value in seen.items()} for seen in meta.get("history", [])]


def _length(gradients: list[Tensor]) -> float:
    if not gradients:
        return 0.0
    return float(torch.stack([gradient.float().square().sum() for gradient in gradients]).sum().sqrt())
