"""The hints that learn something of their own, as the trainer holds them."""

import pytest
import torch
from torch import Tensor

from model.hints.boundaries import activation_boundaries
from model.hints.coach import Coach, FactorHint, MappedHint
from model.hints.factors import factor_transfer
from model.hints.fitnet import fitnet

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


def test_what_is_only_told_is_not_counted() -> None:
    hint = FactorHint(64, (3, 5), seeded())
    with torch.no_grad():
        hint(LIGHT, BOOSTER)
    assert int(hint.seen) == 0


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
