"""The co-training loss of Rocket Launching (Zhou et al., AAAI 2018, arXiv 1708.04106), for one logit or for classes.

    loss = label loss(light) + label loss(booster) + lambda * hint(light, booster) + mu * features(light, booster)

lambda is `rocket.hint_weight` and mu `rocket.feature_weight`, both times `model.schedule.strength` and the gate.

A hint on gradients (`gradient_attention`) has no layers: mu * features is then felt by all that is the light net's own,
head and wide weights too, and by the embeddings, which it needs to be shared and moved by both.

Who feels what (a test holds the table; "block" is `rocket.gradient_block`, "updates" `rocket.light_updates_shared`):

    parameters                     label(light)  label(booster)  lambda * hint         mu * features
    light's own: MLP               yes           no              yes                   up to the highest paired layer
    light's own: head, bias, wide  yes           no              yes                   no
    light's own: fm                yes           no              yes                   no
    trunk (light's lowest layers)  with updates  yes             with updates, or      with updates, or
                                                                 without block         without block
    embeddings that both read      with updates  yes             with updates, or      with updates, or
                                                                 without block         without block
    embeddings of a light alone    yes           no              yes                   yes
    booster's own: tower           no            yes             without block         without block, up to the highest
    booster's own: rows            no            yes             without block         without block

"updates" lets the light net's side of a term through, "without block" the booster's. A light net whose paired layer
lies in a detached trunk feels nothing of that pair.

This is the scheme "rocket". "mutual" opens the block and has `both_ways`; the other schemes add a term, which the table
in `model.schemes` describes.

A click has one logit [B]. Class logits [B, C] take the same way with `class_loss` as their label loss and a hint of
`model.hints.classes`.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial, reduce
from operator import add
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from model.hints import Hint, ToldHint
from model.schemes.scheme import Costs

#: Logits [B] or [B, C] and the net (0 light, 1 booster) to nats [B], before the rows' weights.
RowLoss = Callable[[Tensor, int], Tensor]


class Terms(NamedTuple):
    """The loss and its terms, each a weighted mean over the rows."""

    total: Tensor
    light: Tensor
    booster: Tensor | None
    hint: Tensor | None  #: before lambda
    feature: Tensor | None  #: before its lambda; None without a feature hint
    #: what the total is the sum of, by name (light, booster, hint, feature), lambdas in: autograd follows them
    parts: dict[str, Tensor]
    scheme: Tensor | None = None  #: what the scheme adds, lambdas in (`model.schemes`)


class Inputs(NamedTuple):
    """What both nets read in common, for hints on how their losses move with it; autograd has followed it."""

    light: Tensor  #: [B, X]
    booster: Tensor  #: of any shape
    share: Callable[[Tensor], Tensor]  #: of a gradient by `booster` the light net's part, [B, X]


class Features(NamedTuple):
    """Hidden layers of both nets, and what it costs that they differ."""

    hint: Hint | Sequence[Hint]  #: for all costs, or one each
    pairs: Sequence[tuple[int, int]]  #: a light layer and a booster layer
    light: Sequence[Tensor]  #: [B, H] each, from the input on
    booster: Sequence[Tensor]
    weight: float  #: mu now
    span: int = 1  #: pairs, one after the other, that one cost is made of
    inputs: Inputs | None = None  #: in place of the layers: how both label losses move with these


def label_loss(logit_B: Tensor, label_B: Tensor, weight_B: Tensor, shift_B: Tensor) -> Tensor:
    """Cross-entropy in nats: the sum of weighted rows over the number of rows.

    Divided by rows and not by the sum of weights, which would favour minibatches that happen to hold few heavy rows and
    so bias the click rate. The shift is the sampling correction: learnt with, predicted without.

    >>> zero, one = torch.zeros(2), torch.ones(2)
    >>> label_loss(zero, one, one, zero).item()
    0.693...
    """
    return (_row_cost(logit_B, label_B, shift_B) * weight_B).mean()


def _row_cost(logit_B: Tensor, label_B: Tensor, shift_B: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logit_B + shift_B, label_B, reduction="none")


def class_loss(class_B: Tensor) -> RowLoss:
    """The label loss of class logits, as `row_loss` of `rocket_loss`: cross-entropy in nats, one a row.

    Args:
        class_B: the true class, from 0.

    >>> class_loss(torch.tensor([1]))(torch.tensor([[0.0, 0.0]]), 0).tolist()
    [0.693...]
    """

    def row_loss(logit_BC: Tensor, net: int) -> Tensor:
        del net  # both learn the same label
        return F.cross_entropy(logit_BC, class_B, reduction="none")

    return row_loss


def rocket_loss(
    light_B: Tensor,
    booster_B: Tensor | None,
    label_B: Tensor,
    weight_B: Tensor,
    shift_B: Tensor,
    *,
    hint: Hint,
    hint_weight: float,
    gradient_block: bool,
    row_loss: RowLoss | None = None,
    features: Features | None = None,
    scheme: Callable[[Costs], Tensor | None] | None = None,
) -> Terms:
    """Both nets learn the label; the light net also follows the booster.

    Args:
        light_B: logits, float32; [B, C] with a `row_loss` and a hint that take classes.
        booster_B: logits, float32; None trains the light net alone.
        label_B: 0 or 1; `row_loss` looks at its own labels instead.
        weight_B: what each row counts, in every term.
        shift_B: added to the logits in the label terms only.
        hint: a row of `model.hints.HINTS`.
        hint_weight: lambda now; 0 leaves the hint out of the loss (it is still reported).
        gradient_block: whether the booster is spared the hint's gradient (law 10).
        row_loss: in place of the cross-entropy, where labels come late (`model.delayed`) or are classes.
        features: what the hidden layers add; its booster side is detached under the block as the logits are.
        scheme: what is trained beside both nets adds.
    """

    def rows(logit_B: Tensor, net: int) -> Tensor:
        return _row_cost(logit_B, label_B, shift_B) if row_loss is None else row_loss(logit_B, net)

    def learnt(logit_B: Tensor, net: int) -> Tensor:
        return (rows(logit_B, net) * weight_B).mean()

    def follow(follower_B: Tensor, leader_B: Tensor) -> Tensor:
        return _weighed(hint(follower_B, leader_B.detach()), weight_B)

    light = learnt(light_B, 0)
    costs = Costs(lambda z_B: learnt(z_B, 0), follow, lambda cost_B: _weighed(cost_B, weight_B), hint_weight)
    beside = None if scheme is None else scheme(costs)
    parts = {"light": light}

    def told(weight: float, cost: Callable[[], Tensor], name: str) -> Tensor:
        """A hint's cost, and its part of the loss where it counts."""
        with nullcontext() if weight else torch.no_grad():
            distance = cost()
        if weight:
            parts[name] = weight * distance
        return distance.detach()

    booster = apart = feature = None
    if booster_B is not None:
        booster = parts["booster"] = learnt(booster_B, 1)
        spared_B = _spared(booster_B, gradient_block)
        apart = told(hint_weight, lambda: _weighed(hint(light_B, spared_B), weight_B), "hint")
        if features is not None:
            labels = partial(rows, light_B, 0), partial(rows, booster_B, 1)
            feature = told(features.weight, lambda: _between(features, labels, weight_B, gradient_block), "feature")
    if beside is not None:
        parts["scheme"] = beside
    total = reduce(add, parts.values())
    return Terms(total, light.detach(), _told(booster), apart, feature, parts, _told(beside))


def both_ways(hint: ToldHint) -> ToldHint:
    """Deep mutual learning: each side follows the other, which stands still (Zhang et al., CVPR 2018, equations 4, 5).

    Args:
        hint: of two logits [B] and the label [B]; for the paper's, `bernoulli_kl`.

    >>> from model.hints import hint_of
    >>> from contracts.nets import Rocket
    >>> light, booster = torch.tensor([1.0], requires_grad=True), torch.tensor([3.0], requires_grad=True)
    >>> both_ways(hint_of(Rocket()))(light, booster, torch.ones(1)).sum().backward()
    >>> light.grad.tolist(), booster.grad.tolist()
    ([-4.0], [4.0])
    """

    def mutual(light_B: Tensor, booster_B: Tensor, label_B: Tensor) -> Tensor:
        return hint(light_B, booster_B.detach(), label_B) + hint(booster_B, light_B.detach(), label_B)

    return mutual


def _told(term: Tensor | None) -> Tensor | None:
    return None if term is None else term.detach()


def _spared(booster: Tensor, gradient_block: bool) -> Tensor:  # noqa: FBT001  # private
    return booster.detach() if gradient_block else booster


def _weighed(cost: Tensor, weight_B: Tensor) -> Tensor:
    """Rows by their weight; what a whole minibatch costs by its rows' mean weight."""
    return (cost * weight_B).mean()


def _between(features: Features, labels: Sequence[Callable[[], Tensor]], weight_B: Tensor, block: bool) -> Tensor:  # noqa: FBT001
    """The mean over the costs, in float32: under autocast a booster's layers are bf16.

    Args:
        features: what is compared.
        labels: the label loss [B] of the light net, and of the booster.
        weight_B: of the rows.
        block: whether the booster is spared.
    """
    lights, boosters = features.light, features.booster
    if features.inputs is not None:
        lights = [_by_input(labels[0], features.inputs.light, learn=True)]
        boosters = [features.inputs.share(_by_input(labels[1], features.inputs.booster, learn=not block))]
    groups = [features.pairs[at : at + features.span] for at in range(len(features.pairs) - features.span + 1)]
    hints = features.hint if isinstance(features.hint, Sequence) else [features.hint] * len(groups)
    costs = [
        _weighed(
            hint(*(lights[i].float() for i, _ in group), *(_spared(boosters[j], block).float() for _, j in group)),
            weight_B,
        )
        for hint, group in zip(hints, groups, strict=True)
    ]
    return torch.stack(costs).mean()


def _by_input(cost: Callable[[], Tensor], inputs: Tensor, *, learn: bool) -> Tensor:
    """How each row's loss moves with the inputs; without `learn` a number that stands still."""
    graph = learn and torch.is_grad_enabled()
    with torch.enable_grad():  # what is only told is differentiated too
        found: tuple[Tensor, ...] = torch.autograd.grad(
            cost().sum(), inputs, retain_graph=True, create_graph=graph, allow_unused=True, materialize_grads=True
        )
    return found[0]
