"""The hints that learn something of their own, as the trainer holds them."""

import pytest
import torch
from torch import Tensor

from model.hints.boundaries import activation_boundaries
from model.hints.coach import AdversarialHint, Coach, FactorHint, FlowHint, MappedHint
from model.hints.factors import factor_transfer
from model.hints.fitnet import fitnet
from model.hints.flow import fsp
from model.hints.structured import discriminator_loss, gradient_penalty

LIGHT, BOOSTER = (torch.randn(32, width, generator=torch.Generator().manual_seed(width)) for width in (3, 5))


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def moved(hint: torch.nn.Module, *, booster: bool = False) -> set[str]:
    """Who feels the cost: the light layer, the booster's, or a parameter."""
    light, teacher = LIGHT.clone().requires_grad_(), BOOSTER.clone().requires_grad_(booster)
    asked = {"light": light, **dict(hint.named_parameters())} | ({"booster": teacher} if booster else {})
    found = torch.autograd.grad(hint(light, teacher).sum(), list(asked.values()), allow_unused=True)
    return {name for name, g in zip(asked, found, strict=True) if g is not None and bool(g.any())}


@pytest.mark.parametrize("loss", [fitnet, activation_boundaries])
def test_a_mapped_hint_is_the_loss_of_the_mapped_layer_and_teaches_map_and_light_net(loss: object) -> None:
    hint = MappedHint(loss, (3, 5), seeded())  # type: ignore[arg-type]
    assert torch.equal(hint(LIGHT, BOOSTER), loss(hint.regress(LIGHT), BOOSTER))  # type: ignore[operator]
    assert moved(hint) == {"light", "regress.weight_ED", "regress.bias_E"}


def test_a_factor_hint_restores_first_and_teaches_then() -> None:
    hint = FactorHint(64, (3, 5), seeded())
    restoring = {f"paraphrase.{part}.{name}" for part in ("shrink", "expand") for name in ("weight_ED", "bias_E")}
    assert moved(hint, booster=True) == restoring
    assert moved(hint, booster=True) == restoring
    assert int(hint.seen) == 64
    assert moved(hint) == {"light", "translate.translate.weight_ED", "translate.translate.bias_E"}
    assert "booster" in moved(hint, booster=True)  # without the gradient block
    wanted = factor_transfer(hint.translate(LIGHT), hint.paraphrase(BOOSTER))
    assert torch.equal(hint(LIGHT, BOOSTER), wanted)


def test_a_flow_hint_maps_the_layers_whose_widths_differ() -> None:
    hint = FlowHint(fsp, ((3, 5), (5, 5)), seeded())
    wanted = fsp(hint.first(LIGHT), BOOSTER, BOOSTER, 2 * BOOSTER)
    assert torch.equal(hint(LIGHT, BOOSTER, BOOSTER, 2 * BOOSTER), wanted)
    assert {name for name, _ in hint.named_parameters()} == {"first.weight_ED", "first.bias_E"}
    assert not [*FlowHint(fsp, ((3, 3), (5, 5)), seeded()).parameters()]


@pytest.mark.parametrize("width", [3, 5])
def test_an_adversarial_hint_moves_each_side_by_its_own_loss_alone(width: int) -> None:
    """The light net by what the judge says of it, the judge by its own loss; the booster by nothing, block or not."""
    hint = AdversarialHint((3, width), seeded())
    light, teacher = LIGHT.clone().requires_grad_(), BOOSTER[:, :width].clone().requires_grad_()
    torch.manual_seed(4)
    cost = hint(light, teacher)
    assert torch.allclose(cost, -hint.discriminate(hint.regress(LIGHT)), atol=1e-6)
    asked = {"light": light, "booster": teacher, **dict(hint.named_parameters())}
    found = dict(zip(asked, torch.autograd.grad(cost.sum(), list(asked.values()), allow_unused=True), strict=True))
    assert found["booster"] is None
    fooling = -hint.discriminate(hint.regress(light)).sum()
    side = {"light": light, **dict(hint.regress.named_parameters(prefix="regress"))}
    assert len(side) == (3 if width == 5 else 1)
    for name, wanted in zip(side, torch.autograd.grad(fooling, list(side.values())), strict=True):
        assert torch.allclose(found[name], wanted, atol=1e-6), name
    torch.manual_seed(4)
    share, student, other = torch.rand(32), hint.regress(LIGHT).detach(), BOOSTER[:, :width]
    own = discriminator_loss(hint.discriminate(student), hint.discriminate(other))
    own = own + 10 * gradient_penalty(hint.discriminate, student, other, share)
    judge = dict(hint.discriminate.named_parameters(prefix="discriminate"))
    for name, wanted in zip(judge, torch.autograd.grad(own.sum(), list(judge.values())), strict=True):
        assert torch.allclose(found[name], wanted, atol=1e-5), name


def test_a_light_layer_is_drawn_to_the_booster_s_by_its_judge() -> None:
    torch.set_num_threads(1)  # as a trainer does: small steps on many threads wait for each other
    draw = seeded(3)
    light, hint = torch.nn.Linear(4, 8), AdversarialHint((8, 8), draw)
    with torch.no_grad():
        light.weight.copy_(torch.randn(8, 4, generator=draw))
        light.bias.zero_()
    optimizer = torch.optim.Adam([*light.parameters(), *hint.parameters()], lr=0.01)
    torch.manual_seed(1)  # of the penalty's points
    apart = []
    for _ in range(400):
        x = torch.randn(64, 4, generator=draw)
        mine, theirs = light(x).relu(), (0.3 * x.sum(1, keepdim=True) + 3 * torch.ones(8)).relu()
        apart.append(float((mine.mean(0) - theirs.mean(0)).detach().norm()))
        optimizer.zero_grad()
        hint(mine, theirs).mean().backward()
        optimizer.step()
    assert sum(apart[-50:]) < sum(apart[:50]) / 2


def test_what_is_only_told_is_not_counted() -> None:
    hint = FactorHint(64, (3, 5), seeded())
    with torch.no_grad():
        hint(LIGHT, BOOSTER)
    assert int(hint.seen) == 0
    torch.manual_seed(1)
    with torch.no_grad():
        AdversarialHint((3, 5), seeded())(LIGHT, BOOSTER)
    drawn = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(drawn, torch.rand(1)), "nothing is drawn for what is only told"


def test_a_coach_goes_on_from_its_state_where_it_stood() -> None:
    def coach(seed: int) -> Coach:
        draw = seeded(seed)
        return Coach(lambda widths: FactorHint(40, widths, draw), [(3, 5), (3, 5)])

    def costs(hints: Coach, times: int) -> list[Tensor]:
        return [hint(LIGHT, BOOSTER).sum().detach() for _ in range(times) for hint in hints.hints]

    one, other = coach(1), coach(2)
    costs(one, 1)
    other.load_state_dict(one.state_dict())
    assert torch.equal(torch.stack(costs(one, 2)), torch.stack(costs(other, 2)))
    assert not torch.equal(one.hints[0].paraphrase.shrink.weight_ED, one.hints[1].paraphrase.shrink.weight_ED)
