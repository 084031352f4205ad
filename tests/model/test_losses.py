"""Hints and the co-training loss, by value and by gradient."""

import math

import pytest
import torch
from torch import Tensor

from contracts.errors import ContractError
from contracts.nets import Rocket
from model.hints import HINTS, hint_of
from model.losses import Terms, label_loss, rocket_loss

LIGHT, BOOSTER = [0.5, -1.0, 2.0], [1.5, -2.0, 2.0]
#: hint -> cost a row of (light, booster) above, by hand
GOLDEN = {
    "logit_mse": [1.0, 1.0, 0.0],
    "bernoulli_kl": [
        sum(
            q * math.log(q / p)
            for q, p in zip(
                (1 / (1 + math.exp(-b)), 1 / (1 + math.exp(b))),
                (1 / (1 + math.exp(-a)), 1 / (1 + math.exp(a))),
                strict=True,
            )
        )
        for a, b in zip(LIGHT, BOOSTER, strict=True)
    ],
}


@pytest.mark.parametrize("name", GOLDEN)
def test_a_hint_costs_what_its_formula_says(name: str) -> None:
    got = HINTS[name](torch.tensor(LIGHT), torch.tensor(BOOSTER))
    assert torch.allclose(got, torch.tensor(GOLDEN[name]), atol=1e-6)


@pytest.mark.parametrize("name", GOLDEN)
def test_a_hint_is_least_and_flat_where_both_agree(name: str) -> None:
    booster = torch.tensor(BOOSTER)
    light = booster.clone().requires_grad_()
    cost = HINTS[name](light, booster)
    cost.sum().backward()
    assert cost.abs().max().item() < 1e-6
    assert light.grad is not None
    assert light.grad.abs().max().item() < 1e-6
    assert (HINTS[name](booster + 0.5, booster) > 0).all()


def test_an_unknown_hint_is_refused_with_a_suggestion() -> None:
    with pytest.raises(ContractError, match="did you mean 'logit_mse'"):
        hint_of(Rocket(hint="logits_mse"))


def loss(light: Tensor, booster: Tensor | None, **settings: object) -> Terms:
    given = {"hint": HINTS["logit_mse"], "hint_weight": 0.5, "gradient_block": True} | settings
    label, weight = torch.tensor([1.0, 0.0, 1.0]), torch.tensor([1.0, 2.0, 0.5])
    return rocket_loss(light, booster, label, weight, torch.zeros(3), **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("block", [True, False])
def test_the_gradients_on_the_logits_are_the_papers(*, block: bool) -> None:
    light, booster = torch.tensor(LIGHT, requires_grad=True), torch.tensor(BOOSTER, requires_grad=True)
    loss(light, booster, gradient_block=block).total.backward()
    label, weight = torch.tensor([1.0, 0.0, 1.0]), torch.tensor([1.0, 2.0, 0.5])
    distance = (light - booster).detach()
    of_light = weight * (light.detach().sigmoid() - label + 0.5 * 2 * distance) / 3
    of_booster = weight * (booster.detach().sigmoid() - label - (0 if block else 0.5 * 2 * distance)) / 3
    assert torch.allclose(light.grad, of_light, atol=1e-6)
    assert torch.allclose(booster.grad, of_booster, atol=1e-6)


def test_the_total_is_the_sum_of_its_terms_and_weights_count_in_each() -> None:
    light, booster = torch.tensor(LIGHT), torch.tensor(BOOSTER)
    terms = loss(light, booster)
    assert terms.booster is not None
    assert terms.hint is not None
    assert terms.total.item() == pytest.approx((terms.light + terms.booster + 0.5 * terms.hint).item())
    assert terms.hint.item() == pytest.approx((1.0 * 1.0 + 2.0 * 1.0 + 0.5 * 0.0) / 3)


def test_without_weight_the_hint_is_told_but_not_learnt() -> None:
    light, booster = torch.tensor(LIGHT, requires_grad=True), torch.tensor(BOOSTER)
    terms = loss(light, booster, hint_weight=0.0)
    assert terms.hint is not None
    assert terms.hint.item() > 0
    terms.total.backward()
    alone = torch.tensor(LIGHT, requires_grad=True)
    loss(alone, None).total.backward()
    assert torch.allclose(light.grad, alone.grad, atol=1e-6)


def test_the_sampling_shift_moves_the_label_loss_and_not_the_hint() -> None:
    light, booster = torch.tensor(LIGHT), torch.tensor(BOOSTER)
    label, one = torch.tensor([1.0, 0.0, 1.0]), torch.ones(3)
    shift = torch.full((3,), 2.0)
    given = {"hint": HINTS["logit_mse"], "hint_weight": 1.0, "gradient_block": True}
    moved = rocket_loss(light, booster, label, one, shift, **given)  # type: ignore[arg-type]
    still = rocket_loss(light, booster, label, one, torch.zeros(3), **given)  # type: ignore[arg-type]
    assert moved.light.item() == pytest.approx(label_loss(light + 2, label, one, torch.zeros(3)).item())
    assert moved.hint is not None
    assert still.hint is not None
    assert moved.hint.item() == still.hint.item()
