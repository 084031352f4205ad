"""What hints learn of their own: regressor, paraphraser and translator, discriminator."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from model.hints.factors import Paraphraser, Translator, factor_transfer, reconstruction
from model.hints.fitnet import Regressor, fitnet
from model.hints.structured import Discriminator, adversarial, discriminator_loss, gradient_penalty

RNG = np.random.default_rng(23)
FS, FT = (torch.tensor(RNG.normal(size=(64, width)), dtype=torch.float32) for width in (3, 6))
MAKERS: dict[str, Callable[[torch.Generator], nn.Module]] = {
    "regressor": lambda draw: Regressor(3, 6, draw),
    "paraphraser": lambda draw: Paraphraser(3, draw),
    "translator": lambda draw: Translator(3, 2, draw),
    "discriminator": lambda draw: Discriminator(3, draw),
}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def descend(parameters: list[Tensor], cost: Callable[[], Tensor], steps: int = 150, rate: float = 0.1) -> list[float]:
    """Steps of one length each, ever shorter; the costs on the way."""
    seen = []
    for step in range(steps):
        now = cost()
        with torch.no_grad():
            for parameter, gradient in zip(parameters, torch.autograd.grad(now, parameters), strict=True):
                parameter.sub_(rate * (1 - step / steps) * gradient / (gradient.norm() + 1e-12))
        seen.append(float(now.detach()))
    return seen


@pytest.mark.parametrize("name", MAKERS)
def test_the_caller_seeds_every_first_weight(name: str) -> None:
    torch.manual_seed(1)
    one, two, other = (MAKERS[name](seeded(seed)).state_dict() for seed in (5, 5, 6))
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)
    drawn = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(drawn, torch.rand(1)), "no draw from the global generator"


@pytest.mark.parametrize("name", MAKERS)
def test_a_map_is_treated_place_by_place(name: str) -> None:
    net = MAKERS[name](seeded(2))
    maps = torch.tensor(RNG.normal(size=(4, 3, 2, 5)), dtype=torch.float32)
    rows = net(maps.permute(0, 2, 3, 1).reshape(-1, 3))
    got = net(maps)
    if name == "discriminator":
        assert torch.allclose(got, rows.view(4, -1).mean(1), atol=1e-5)
    else:
        assert torch.allclose(got.permute(0, 2, 3, 1).reshape(rows.shape), rows, atol=1e-5)


def test_a_regressor_learns_a_linear_teacher() -> None:
    teacher = FS @ torch.arange(18.0).view(3, 6)
    regress = Regressor(3, 6, seeded(1))
    seen = descend(list(regress.parameters()), lambda: fitnet(regress(FS), teacher).mean(), 300, 1.0)
    assert seen[-1] < seen[0] / 50


def test_the_paraphraser_restores_then_teaches_and_is_left_alone() -> None:
    low = FT[:, :3] @ torch.tensor(RNG.normal(size=(3, 6)), dtype=torch.float32)  # six columns, three factors
    paraphrase = Paraphraser(6, seeded(1))
    first = descend(
        list(paraphrase.parameters()), lambda: reconstruction(paraphrase.back(paraphrase(low)), low).mean(), 300
    )
    assert first[-1] < first[0] / 10
    kept = {key: value.clone() for key, value in paraphrase.state_dict().items()}
    translate = Translator(3, paraphrase.factors, seeded(2))
    factor = paraphrase(low).detach()
    second = descend(list(translate.parameters()), lambda: factor_transfer(translate(FT[:, :3]), factor).mean())
    assert second[-1] < second[0] / 2
    assert all(torch.equal(kept[key], value) for key, value in paraphrase.state_dict().items())


def test_a_discriminator_tells_the_nets_apart_and_pulls_the_student_to_the_teacher() -> None:
    judge, student, teacher = Discriminator(3, seeded(1)), FS, 2 * FS.flip(1) + 1
    share = torch.rand(64, generator=seeded(3))

    def cost() -> Tensor:
        apart = discriminator_loss(judge(student), judge(teacher))
        return (apart + 10 * gradient_penalty(judge, student, teacher, share)).mean()

    descend(list(judge.parameters()), cost)
    with torch.no_grad():
        assert float(discriminator_loss(judge(student), judge(teacher)).mean()) < -0.3
    output = student.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(adversarial(judge(output)).sum(), output)
    towards = (teacher.mean(0) - student.mean(0)) @ -gradient.mean(0)
    assert float(towards) > 0.5 * float((teacher.mean(0) - student.mean(0)).norm() * gradient.mean(0).norm())


def test_the_gradient_penalty_is_nothing_for_a_slope_of_one_and_grows_beside_it() -> None:
    class Slope(nn.Module):
        def __init__(self, slope: float) -> None:
            super().__init__()
            self.slope = slope

        def forward(self, output: Tensor) -> Tensor:
            return self.slope * output[:, 0]

    share = torch.rand(64, generator=seeded(3))
    for slope, wanted in ((1.0, 0.0), (-1.0, 0.0), (3.0, 4.0)):
        assert torch.allclose(gradient_penalty(Slope(slope), FS, FS + 1, share), torch.full((64,), wanted), atol=1e-6)
