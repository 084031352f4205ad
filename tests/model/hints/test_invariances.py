"""What each hint must not see, and what it must: rotations, scales, orders, signs, and limits."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from model.hints.attention import attention_transfer, gradient_attention, input_gradient
from model.hints.boundaries import activation_boundaries
from model.hints.classes import class_logit_mse, dist, dkd, kd, weighted_soft_cross_entropy
from model.hints.detection import binned, localization, teacher_bounded
from model.hints.factors import factor_transfer
from model.hints.flow import fsp
from model.hints.logits import bernoulli_kd, bounded_click, dist_intra, logit_mse, weighted_bernoulli
from model.hints.mobilebert import attention_kl, layer_mse
from model.hints.shelf import METHODS
from model.hints.structured import pairwise
from tests.model.hints.golden import GOLDEN

RNG = np.random.default_rng(17)
FS, FT = (torch.tensor(RNG.normal(size=(6, 5))) for _ in range(2))
MS, MT = (torch.tensor(RNG.normal(size=(3, 4, 3, 2))) for _ in range(2))
ROTATION = torch.linalg.qr(torch.tensor(RNG.normal(size=(5, 5)))).Q
LENGTHS = torch.tensor(RNG.uniform(0.5, 3, size=(6, 1)))
ORDER = torch.tensor([2, 0, 3, 1])
#: Of the student's [6, 5]. A hint sees them all but those that its golden row says it is blind to.
CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "rotation": lambda f: f @ ROTATION,
    "scale": lambda f: 3 * f,
    "shift": lambda f: f + torch.arange(5.0),
    "length of each row": lambda f: f * LENGTHS,
    "order of neurons": lambda f: f[:, torch.tensor([4, 2, 0, 1, 3])],
    "order of rows": lambda f: f.flip(0),
    "sign": lambda f: -f,
}
OF_LAYERS = [name for name, method in METHODS.items() if method.row.takes in {"hidden", "equal"}]


@pytest.mark.parametrize("name", OF_LAYERS)
@pytest.mark.parametrize("change", CHANGES)
def test_a_hint_on_layers_sees_what_it_must_and_no_more(change: str, name: str) -> None:
    loss = METHODS[name].cost
    assert GOLDEN[name][0].blind <= CHANGES.keys()
    before, after = loss((FS,), (FT,)), loss((CHANGES[change](FS),), (FT,))
    tolerance = 1e-7 if name == "pkt" else 1e-12  # its eps knows lengths
    assert torch.allclose(before, after, atol=tolerance, rtol=tolerance) == (change in GOLDEN[name][0].blind)


@pytest.mark.parametrize("name", ["attention_transfer", "attention_transfer_p1", "pairwise", "nst_polynomial"])
def test_hints_on_maps_do_not_see_the_order_of_channels(name: str) -> None:
    loss = METHODS[name].cost
    assert torch.allclose(loss((MS[:, ORDER],), (MT,)), loss((MS,), (MT,)), atol=1e-12)
    assert not torch.allclose(loss((MS.flip(2),), (MT,)), loss((MS,), (MT,)), atol=1e-3)


@pytest.mark.parametrize("power", [1, 2])
def test_attention_sees_neither_scale_nor_sign(power: int) -> None:
    assert torch.allclose(attention_transfer(-2 * MS, MT, power=power), attention_transfer(MS, MT, power=power))


def test_pairs_of_places_see_no_rotation_of_channels_and_can_be_pooled() -> None:
    rotation = torch.linalg.qr(torch.tensor(RNG.normal(size=(4, 4)))).Q
    assert torch.allclose(pairwise(torch.einsum("bchw,cd->bdhw", MS, rotation), MT), pairwise(MS, MT), atol=1e-12)
    even = torch.tensor(RNG.normal(size=(2, 3, 4, 4)))
    means = even.view(2, 3, 2, 2, 2, 2).mean((3, 5))
    other = torch.tensor(RNG.normal(size=(2, 3, 4, 4)))
    assert torch.allclose(pairwise(even, other, pool=2), pairwise(means, other.view(2, 3, 2, 2, 2, 2).mean((3, 5))))


def test_kd_of_a_high_temperature_is_logit_matching() -> None:
    zs, zt = FS, FT
    centred = class_logit_mse(zs - zs.mean(1, keepdim=True), zt - zt.mean(1, keepdim=True))
    assert torch.allclose(kd(zs, zt, temperature=1e4), centred / (2 * zs.shape[1]), rtol=1e-3)
    assert torch.allclose(
        bernoulli_kd(zs[:, 0], zt[:, 0], temperature=1e4), logit_mse(zs[:, 0], zt[:, 0]) / 8, rtol=1e-3
    )


def test_kd_of_two_classes_is_that_of_their_difference() -> None:
    zs, zt = FS[:, :2], FT[:, :2]
    one_logit = bernoulli_kd(zs[:, 1] - zs[:, 0], zt[:, 1] - zt[:, 0], temperature=3.0)
    assert torch.allclose(kd(zs, zt, temperature=3.0), one_logit)


def test_decoupled_kd_is_kd_where_the_second_weight_is_what_the_teacher_leaves() -> None:
    own = torch.tensor([0, 1, 2, 3, 4, 0])
    first, second = (dkd(FS, FT, own, alpha=a, beta=b) for a, b in ((1.0, 0.0), (0.0, 1.0)))
    left = 1 - (FT / 4).softmax(1).gather(1, own[:, None])[:, 0]
    assert torch.allclose(first + left * second, kd(FS, FT))


def test_dist_sees_a_teacher_through_any_rising_line() -> None:
    p = FT.softmax(1)
    lazy = (0.3 * p + 0.7 / 5).log()  # a student less sure of everything
    assert abs(float(dist(lazy, FT))) < 1e-12
    assert float(dist(FS, FT)) > 0.1


def test_what_one_logit_leaves_of_dist_is_its_part_between_rows() -> None:
    """Two classes are one logit, whose columns correlate alike; and the level of the probabilities does not count."""
    zl, zb = FS[:, 0], FT[:, 0]
    ps, pt = (torch.stack((-z, z), 1).sigmoid() for z in (zl, zb))
    intra = torch.stack([1 - torch.corrcoef(torch.stack((ps[:, c], pt[:, c])))[0, 1] for c in (0, 1)])
    assert torch.allclose(intra, dist_intra(zl, zb).expand(2))
    lower = (0.1 * zb.sigmoid()).logit()
    assert abs(float(dist_intra(lower, zb))) < 1e-12
    assert float(dist_intra(zl, zb)) > 0.1


def test_soft_classes_do_not_see_a_shift_of_logits() -> None:
    for loss in (kd, dist, weighted_soft_cross_entropy):
        assert torch.allclose(loss(FS + 5, FT - 2), loss(FS, FT))
    edges = torch.tensor(RNG.normal(size=(2, 2, 4, 6)))
    assert torch.allclose(localization(edges[0] + 3, edges[1]), localization(edges[0], edges[1]))


def test_weights_of_one_make_the_weighted_entropies_plain() -> None:
    plain = -(FT.softmax(1) * FS.log_softmax(1)).sum(1)
    assert torch.allclose(weighted_soft_cross_entropy(FS, FT, background=1.0), plain)
    q = FT[:, 0].sigmoid()
    plain = torch.nn.functional.binary_cross_entropy_with_logits(FS[:, 0], q, reduction="none")
    assert torch.allclose(weighted_bernoulli(FS[:, 0], FT[:, 0], no_click=1.0), plain)


def test_weighted_bernoulli_is_least_at_odds_of_the_weights_times_the_boosters() -> None:
    booster = torch.tensor([0.3], dtype=torch.float64)
    light = (booster - np.log(1.5)).requires_grad_()
    weighted_bernoulli(light, booster).sum().backward()
    assert light.grad is not None
    assert abs(float(light.grad)) < 1e-12


def test_a_bound_binds_only_the_worse() -> None:
    label = torch.ones(3)
    light, booster = torch.tensor([1.0, 2.0, 3.0], requires_grad=True), torch.tensor([2.0, 2.0, 2.0])
    bounded_click(light, booster, label).sum().backward()
    assert light.grad is not None
    assert (light.grad != 0).tolist() == [True, False, False]
    assert bounded_click(light, booster, label, margin=1.0).count_nonzero() == 3
    truth = torch.zeros(2, 2)
    assert teacher_bounded(torch.ones(2, 2), torch.tensor([[2.0, 0], [1, 0]]), truth).tolist() == [0.0, 2.0]
    assert teacher_bounded(torch.ones(2, 2), torch.tensor([[2.0, 0], [1, 0]]), truth, margin=3.0).tolist() == [2.0, 2.0]


def test_boundaries_see_only_the_teachers_signs_and_rest_beyond_the_margin() -> None:
    assert torch.equal(activation_boundaries(FS, 9 * FT), activation_boundaries(FS, FT))
    assert float(activation_boundaries(1.01 * FT.sign(), FT).sum()) == 0
    assert float(activation_boundaries(0.5 * FT.sign(), FT).min()) > 0


def test_factors_have_no_scale() -> None:
    assert torch.allclose(factor_transfer(2 * FS, 5 * FT), factor_transfer(FS, FT))


def test_flow_pools_the_larger_map() -> None:
    first, last = torch.tensor(RNG.normal(size=(2, 2, 3, 4, 4))), torch.tensor(RNG.normal(size=(2, 2, 5, 2, 2)))
    pooled = torch.nn.functional.max_pool2d(first.flatten(0, 1), 2).view(2, 2, 3, 2, 2)
    assert torch.allclose(fsp(first[0], last[0], first[1], last[1]), fsp(pooled[0], last[0], pooled[1], last[1]))


def test_what_a_mask_hides_does_not_count() -> None:
    hs, ht = (torch.tensor(RNG.normal(size=(1, 5, 3))) for _ in range(2))
    scores = torch.tensor(RNG.normal(size=(2, 1, 2, 5, 5)))
    mask = torch.tensor([[True, True, True, False, False]])
    assert torch.allclose(layer_mse(hs, ht, mask), layer_mse(hs[:, :3], ht[:, :3]))
    short = scores[..., :3, :3]
    assert torch.allclose(attention_kl(scores[0], scores[1], mask), attention_kl(short[0], short[1]))
    assert float(layer_mse(hs, ht, torch.zeros(1, 5, dtype=torch.bool))) == 0


def test_a_distribution_over_bins_stands_for_its_mean() -> None:
    sure = torch.full((1, 1, 5), -50.0).index_fill(2, torch.tensor([3]), 50.0)
    assert float(binned(sure, 0.0, 8.0)) == pytest.approx(6.0)


def test_a_hint_on_input_gradients_teaches_the_weights() -> None:
    x = torch.tensor(RNG.normal(size=(6, 5)), requires_grad=True)
    student = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    teacher = torch.arange(5.0, dtype=torch.float64) / 5
    for _ in range(100):
        ours, theirs = input_gradient((x @ student).tanh(), x), input_gradient((x @ teacher).tanh(), x)
        cost = gradient_attention(ours, theirs.detach(), scaling="square").mean()
        (gradient,) = torch.autograd.grad(cost, student)
        with torch.no_grad():
            student -= 0.2 * gradient
    start = gradient_attention(torch.zeros_like(theirs), theirs, scaling="square").mean()
    assert cost.item() < start.item() / 100
