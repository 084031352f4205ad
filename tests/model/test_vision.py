"""Wide residual nets that share convolutions, and the rocket loss on the logits of classes."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from contracts.errors import ContractError
from model.hints import HINTS
from model.hints.classes import class_logit_mse
from model.losses import class_loss, rocket_loss
from model.vision.augment import mirrored, shifted
from model.vision.wrn import Structure, WideResNet, WrnSize, light_beside, multiplications

STRUCTURES: list[Structure] = ["interval", "bottom"]


def images(rows: int = 4, channels: int = 3) -> Tensor:
    return torch.rand(rows, channels, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("depth", "width", "parameters"), [(16, 2, 691_674), (40, 1, 563_930), (40, 2, 2_243_546)]
)  # the usual counts of these nets for ten classes
def test_a_net_has_as_many_weights_as_its_name_says(depth: int, width: float, parameters: int) -> None:
    net = WideResNet(WrnSize(depth, width, channels=3, classes=10))
    assert sum(weight.numel() for weight in net.parameters()) == parameters


@pytest.mark.parametrize(("depth", "width", "groups"), [(10, 1.0, 3), (16, 0.25, 3), (22, 0.5, 2), (16, 2.0, 3)])
def test_multiplications_are_those_of_the_formula(depth: int, width: float, groups: int) -> None:
    net = WideResNet(WrnSize(depth, width, channels=3, classes=7, groups=groups))
    stem = min(16, int(16 * width))
    count, inputs, pixels = 64 * 27 * stem, stem, 64
    for group, outputs in enumerate([int(base * width) for base in (16, 32, 64)][:groups]):
        pixels = pixels if not group else pixels // 4
        first = 9 * (inputs + outputs) * outputs + (inputs * outputs if inputs != outputs else 0)
        count += pixels * (first + ((depth - 4) // 6 - 1) * 18 * outputs * outputs)
        inputs = outputs
    assert multiplications(net, 8, 8) == count + 7 * inputs
    assert net.training


@pytest.mark.parametrize("structure", STRUCTURES)
def test_a_light_net_shares_convolutions_and_never_a_normalisation_or_a_head(structure: Structure) -> None:
    booster = WideResNet(WrnSize(16, 0.25, channels=3, classes=10))
    light = light_beside(booster, 10, structure, shared=True)
    theirs, mine = dict(booster.named_parameters()), dict(light.named_parameters())
    shared = {name for name, weight in mine.items() if weight is theirs.get(name)}
    convolutions = {name for name in mine if "convs." in name or name.startswith("stem")}
    assert shared == convolutions
    before = {name: value.clone() for name, value in booster.state_dict().items()}
    class_loss(torch.zeros(4, dtype=torch.int64))(light(images()).logit_BC, 0).sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in booster.state_dict().items())
    touched = {name for name, weight in theirs.items() if weight.grad is not None and weight.grad.abs().sum() > 0}
    assert touched == convolutions, "through the light net its label moves the shared convolutions, and no more"


@pytest.mark.parametrize("structure", STRUCTURES)
def test_without_sharing_nothing_is_shared_and_the_shape_is_the_same(structure: Structure) -> None:
    booster = WideResNet(WrnSize(16, 0.25, channels=3, classes=10))
    apart = light_beside(booster, 10, structure, shared=False)
    together = light_beside(booster, 10, structure, shared=True)
    assert not {id(weight) for weight in apart.parameters()} & {id(weight) for weight in booster.parameters()}
    assert [weight.shape for weight in apart.parameters()] == [weight.shape for weight in together.parameters()]
    assert len(apart(images()).maps) == (3 if structure == "interval" else 2)


def test_a_light_net_of_the_booster_s_depth_differs_by_its_norms_alone() -> None:
    booster = WideResNet(WrnSize(10, 0.25, channels=3, classes=10)).eval()
    light = light_beside(booster, 10, "interval", shared=True).eval()
    light.head.load_state_dict(booster.head.state_dict())
    assert torch.equal(light(images()).logit_BC, booster(images()).logit_BC)


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (lambda booster: light_beside(booster, 22, "interval", shared=True), "WRN-22-0.25 cannot share .* WRN-16-0.25"),
        (lambda booster: WideResNet(WrnSize(10, 0.5, 3, 10), shares=booster), "must be as wide"),
        (lambda booster: WideResNet(WrnSize(10, 0.25, 1, 10), shares=booster), "see the same channels"),
        (lambda _: WrnSize(12, 1, 3, 10), "depth 12: it must be 10, 16, 22"),
        (lambda _: WrnSize(4, 1, 3, 10), "depth 4"),
    ],
)
def test_nets_that_do_not_fit_are_refused(made: Callable[[WideResNet], object], told: str) -> None:
    with pytest.raises(ContractError, match=told):
        made(WideResNet(WrnSize(16, 0.25, channels=3, classes=10)))


def gradients(net: WideResNet, loss: Tensor) -> dict[str, Tensor]:
    named = {name: weight for name, weight in net.named_parameters() if "convs." not in name and "stem" not in name}
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return {name: grad for name, grad in zip(named, found, strict=True) if grad is not None}


@pytest.mark.parametrize("block", [True, False])
def test_the_booster_s_own_weights_feel_the_hint_only_without_the_block(*, block: bool) -> None:
    torch.manual_seed(3)
    booster = WideResNet(WrnSize(16, 0.25, channels=3, classes=10))
    light = light_beside(booster, 10, "interval", shared=True)
    ones, labels = torch.ones(4), class_loss(torch.tensor([1, 2, 3, 4]))
    terms = rocket_loss(
        light(images()).logit_BC, booster(images()).logit_BC, ones, ones, 0 * ones,
        hint=class_logit_mse, hint_weight=0.03, gradient_block=block, row_loss=labels,
    )  # fmt: skip
    felt = gradients(booster, terms.total)
    alone = gradients(booster, labels(booster(images()).logit_BC, 1).mean())
    assert felt.keys() == alone.keys()
    assert all(torch.equal(felt[name], alone[name]) for name in felt) == block


@settings(max_examples=25, deadline=None)
@given(
    rows=st.lists(st.tuples(*[st.floats(-6, 6)] * 2, st.booleans(), st.floats(0, 3)), min_size=1, max_size=8),
    block=st.booleans(),
)
def test_two_classes_cost_what_one_logit_costs(rows: list[tuple[float, float, bool, float]], *, block: bool) -> None:
    """One function for clicks and classes: softmax of [0, z] is the sigmoid of z."""

    def losses(*, as_classes: bool) -> list[Tensor]:
        z, b, y, w = (torch.tensor(column, dtype=torch.float64) for column in zip(*rows, strict=True))
        z, b = z.requires_grad_(), b.requires_grad_()
        light, booster, row_loss = (z, b, None)
        if as_classes:
            light, booster = (torch.stack((torch.zeros_like(one), one), 1) for one in (z, b))
            row_loss = class_loss(y.long())
        terms = rocket_loss(
            light, booster, y, w, torch.zeros_like(w), hint=class_logit_mse if as_classes else HINTS["logit_mse"],
            hint_weight=0.3, gradient_block=block, row_loss=row_loss,
        )  # fmt: skip
        return [terms.total, terms.light, terms.booster, terms.hint, *torch.autograd.grad(terms.total, (z, b))]

    for one, other in zip(losses(as_classes=False), losses(as_classes=True), strict=True):
        assert torch.allclose(one, other, atol=1e-12)


def test_shifted_images_are_cuts_of_the_mirrored_surroundings() -> None:
    x = images(300, 2)
    moved = shifted(x, 2, torch.Generator().manual_seed(5)).numpy()
    places = set()
    for before, after in zip(x.numpy(), moved, strict=True):
        wide = np.pad(before, ((0, 0), (2, 2), (2, 2)), mode="reflect")
        found = [(i, j) for i in range(5) for j in range(5) if np.array_equal(wide[:, i : i + 8, j : j + 8], after)]
        assert len(found) == 1
        places.add(found[0])
    assert len(places) == 25, "every place is drawn"


def test_mirrored_images_are_flipped_or_not() -> None:
    x = images(200)
    made = mirrored(x, torch.Generator().manual_seed(2))
    flipped = [torch.equal(one, two.flip(2)) for one, two in zip(made, x, strict=True)]
    assert all(flip or torch.equal(one, two) for flip, one, two in zip(flipped, made, x, strict=True))
    assert 60 < sum(flipped) < 140
