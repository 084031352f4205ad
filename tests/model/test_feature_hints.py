"""Hidden layers when asked for, and what it costs that they differ: by value, by gradient, and never by accident."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from contracts.errors import ContractError
from contracts.model_checks import hidden_widths
from contracts.nets import Booster, Rocket
from model.boosters import BOOSTERS, BoosterInput, Sizes, gives_hidden, make_booster
from model.hints import FEATURE_HINTS, HINTS, feature_hints_of
from model.losses import Features, rocket_loss
from model.tensors import to_batch
from model.trainer import Trainer
from tests.random_examples import random_examples, small_app

LIGHT = [[3.0, 4.0], [0.0, 0.0], [1.0, -1.0]]
BOOSTER = [[3.0, 0.0], [2.0, 0.0], [1.0, -1.0]]
#: hint -> cost a row of (light, booster) above, by hand
GOLDEN = {"cosine": [1 - 3 / 5, 1.0, 0.0], "euclidean": [16 / 2, 4 / 2, 0.0]}
SIZES = Sizes(ids=3, sequences=1, dense=2, width=4, queries=(1,), trunk=5)


class Narrow(nn.Module):
    """Gives a layer whose width only it knows."""

    def __init__(self, sizes: Sizes, settings: Booster) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(sizes.flat, 3), nn.Linear(3, 1)

    def forward(self, seen: BoosterInput, hidden: list[Tensor] | None = None) -> Tensor:
        layer = self.first(seen.flat()).relu()
        if hidden is not None:
            hidden.append(layer)
        return self.last(layer).squeeze(1)


class Silent(nn.Module):
    """Gives no layer."""

    def __init__(self, sizes: Sizes, settings: Booster) -> None:
        super().__init__()
        self.last = nn.Linear(sizes.flat, 1)

    def forward(self, seen: BoosterInput) -> Tensor:
        return self.last(seen.flat()).squeeze(1)


@pytest.mark.parametrize("name", GOLDEN)
def test_a_feature_hint_costs_what_its_formula_says(name: str) -> None:
    hint = FEATURE_HINTS[name]
    got = hint(torch.tensor(LIGHT), torch.tensor(BOOSTER))
    assert torch.allclose(got, torch.tensor(GOLDEN[name]), atol=1e-6)
    wide = hint(torch.tensor(LIGHT).repeat(1, 7), torch.tensor(BOOSTER).repeat(1, 7))
    assert torch.allclose(wide, got, atol=1e-5), "the width changes nothing"


@pytest.mark.parametrize("name", GOLDEN)
def test_following_a_feature_hint_brings_layers_together_and_its_gradient_is_finite_at_zeros(name: str) -> None:
    torch.manual_seed(0)
    light, booster = torch.randn(6, 4), torch.randn(6, 4).relu()
    light[0], booster[1] = 0.0, 0.0
    for _ in range(2):
        light.requires_grad_()
        before = FEATURE_HINTS[name](light, booster).mean()
        (gradient,) = torch.autograd.grad(before, light)
        assert bool(gradient.isfinite().all())
        # where a direction is missing there is nothing to follow
        light = (light - torch.where(light.norm(dim=1, keepdim=True) > 0, 0.05 * gradient, 0.0)).detach()
        assert FEATURE_HINTS[name](light, booster).mean() < before
    same = booster.clone().requires_grad_()
    (flat,) = torch.autograd.grad(FEATURE_HINTS[name](same, booster)[2:].sum(), same)
    assert flat[2:].abs().max() < 1e-5


def terms_of(weight: Tensor, **settings: Any) -> Any:
    layers = ([torch.tensor(LIGHT), torch.tensor(BOOSTER)], [torch.tensor(BOOSTER)])
    features = Features(FEATURE_HINTS["euclidean"], settings.pop("pairs", ((0, 0),)), *layers, 0.5)
    zero = torch.zeros(3)
    given = {"hint": HINTS["logit_mse"], "hint_weight": 1.0, "gradient_block": True, "features": features} | settings
    return rocket_loss(zero, zero, zero, weight, zero, **given)


def test_rows_weigh_pairs_are_averaged_and_the_total_is_the_sum_of_the_parts() -> None:
    weight = torch.tensor([1.0, 0.5, 2.0])
    terms = terms_of(weight)
    by_hand = sum(w * cost for w, cost in zip(weight.tolist(), GOLDEN["euclidean"], strict=True)) / 3
    assert terms.feature.item() == pytest.approx(by_hand)
    assert terms.parts["feature"].item() == pytest.approx(0.5 * by_hand)
    assert terms.total.item() == pytest.approx(sum(part.item() for part in terms.parts.values()))
    assert terms_of(weight, pairs=((0, 0), (1, 0))).feature.item() == pytest.approx(by_hand / 2)
    twice = terms_of(torch.cat((weight, weight))[:3] * 2)
    assert twice.feature.item() == pytest.approx(2 * by_hand)


def test_a_hint_on_the_whole_minibatch_is_weighed_by_its_mean_weight() -> None:
    weight = torch.tensor([1.0, 0.5, 3.0])
    terms = terms_of(weight, hint=lambda light, booster: (light - booster).sum() + 4.0, features=None)
    assert terms.hint.item() == pytest.approx(4.0 * 1.5)
    assert terms.feature is None


@pytest.mark.parametrize("settings", [{}, {"hidden": ()}, {"mask_parallel": False, "cross_stacked": True}], ids=str)
@pytest.mark.parametrize("kind", BOOSTERS)
def test_a_booster_gives_its_hidden_layers_only_when_asked(kind: str, settings: dict[str, Any]) -> None:
    booster = Booster(**{"kind": kind, "hidden": (8, 6), "attention_heads": 1 if kind == "finalmlp" else 2} | settings)
    torch.manual_seed(0)
    net = make_booster(booster, SIZES).eval()
    assert gives_hidden(net)
    history = torch.randn(6, 5, 4), torch.arange(5) < torch.arange(6).unsqueeze(1)
    seen = BoosterInput(torch.randn(6, 3, 4), torch.randn(6, 1, 4), torch.randn(6, 2), (history,), torch.randn(6, 5))
    hidden: list[Tensor] = []
    assert torch.equal(net(seen, hidden=hidden), net(seen))
    assert [tuple(layer.shape) for layer in hidden] == [(6, width) for width in hidden_widths(booster, 4) or ()]
    if not (kind == "autoint" and not booster.hidden):  # which reads no trunk, and is refused with one
        assert not torch.equal(net(seen), net(seen._replace(trunk_BH=torch.randn(6, 5))))


def small(tmp_path: Path, kind: str, **rocket: Any) -> Trainer:
    model = {"booster": {"kind": kind, "hidden": [16, 8]}}
    return Trainer(small_app(tmp_path / "app", {"model": model, "rocket": rocket | {"gate": False}}))


def test_both_nets_give_their_layers_when_asked_and_say_the_same_without(tmp_path: Path) -> None:
    trainer = small(tmp_path, "mlp")
    batch = to_batch(random_examples(trainer.app, 32), trainer.app)
    plain, asked = trainer.nets.predict(batch), trainer.nets.predict(batch, hidden=True)
    assert (plain.light_layers, plain.booster_layers) == ((), ())
    assert [tuple(layer.shape) for layer in asked.light_layers] == [(32, 8)]
    assert [tuple(layer.shape) for layer in asked.booster_layers] == [(32, 16), (32, 8)]
    assert torch.equal(plain.light_B, asked.light_B)
    assert torch.equal(plain.booster_B, asked.booster_B)


def test_a_feature_hint_draws_the_light_layer_to_the_boosters(tmp_path: Path) -> None:
    apart = []
    for weight in (0.0, 5.0):
        told = {"feature_hint": "euclidean", "feature_layers": [[0, 1]], "feature_weight": weight, "hint_weight": 0.0}
        trainer = small(tmp_path, "mlp", **told)
        frame = random_examples(trainer.app, 1280)
        for start in range(0, 1280, 64):
            terms = trainer.learn(frame[start : start + 64]).terms
        apart.append(terms["feature"])
        assert math.isfinite(terms["feature"])
    assert apart[1] < 0.8 * apart[0]


def test_a_net_of_ones_own_that_cannot_be_followed_is_refused_with_the_mend(tmp_path: Path) -> None:
    told = {"feature_hint": "cosine", "feature_layers": [[0, 0]]}
    with pytest.raises(ContractError, match="Silent' does not give them: let its forward take hidden"):
        small(tmp_path, f"{__name__}:Silent", **told)
    trainer = small(tmp_path, f"{__name__}:Narrow", **told)
    with pytest.raises(ContractError, match="the light layer has 8 columns and the booster's 3"):
        trainer.learn(random_examples(trainer.app, 64))
    with pytest.raises(ContractError, match="did you mean 'cosine'"):
        feature_hints_of(Rocket(feature_hint="cosin"), None)
