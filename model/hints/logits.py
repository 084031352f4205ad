"""Hints on the one logit of a click. No softmax: each logit is its own. Shapes: B rows.

Each gives one cost a row, but for `dist_intra`, which gives one number for the minibatch.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from contracts.declared_hints import hint
from model.hints.geometry import check_same_shape, pearson, scaled

_MEND = "give both nets' logits of the same rows, [B] each"  # [B, 1] would spread over [B]


@hint("logit", paper="Zhou et al., AAAI 2018", scaling="square a row")
def logit_mse(light_B: Tensor, booster_B: Tensor) -> Tensor:
    """Squared distance between the logits, one a row: the paper's hint (Zhou et al., AAAI 2018, arXiv 1708.04106).

    The paper sums over C classes where we have one logit, so its lambda of .03 at C = 10 is about .3 here. Gradient on
    the light logit: 2 (light - booster).

    >>> import torch
    >>> logit_mse(torch.tensor([1.0, 0.0]), torch.tensor([3.0, 0.0])).tolist()
    [4.0, 0.0]
    """
    check_same_shape("logit_mse", light_B, booster_B, _MEND)
    return (light_B - booster_B).square()


@hint("logit", paper="Hinton et al., 2015", scaling="nats a row")
def bernoulli_kl(light_B: Tensor, booster_B: Tensor) -> Tensor:
    """KL(booster || light) between the two click probabilities, in nats, one a row (Hinton et al. 2015 at T = 1).

    Gradient on the light logit: p_light - p_booster, so that one lambda weighs it as it weighs the label.

    >>> import torch
    >>> bernoulli_kl(torch.tensor([0.0]), torch.tensor([0.0])).tolist()
    [0.0]
    """
    check_same_shape("bernoulli_kl", light_B, booster_B, _MEND)
    target_B = booster_B.sigmoid()
    cross_B = F.binary_cross_entropy_with_logits(light_B, target_B, reduction="none")
    return cross_B - F.binary_cross_entropy_with_logits(booster_B, target_B, reduction="none")


@hint("logit", paper="Hinton et al., 2015", scaling="T^2 nats a row, T = 4")
def bernoulli_kd(light_B: Tensor, booster_B: Tensor, *, temperature: float = 4.0) -> Tensor:
    """T^2 KL(sigmoid(booster / T) || sigmoid(light / T)), in nats, one a row.

    Hinton et al., "Distilling the Knowledge in a Neural Network", 2015, arXiv 1503.02531, section 2, with the two
    classes [0, logit]. T^2 keeps the gradient of one size: T (p_light - p_booster) with p at T, which tends to
    (light - booster) / 4, so the cost to `logit_mse` / 8, as T grows.

    >>> import torch
    >>> bernoulli_kd(torch.tensor([1.0]), torch.tensor([3.0]), temperature=1e3).item()
    0.5
    """
    return temperature**2 * bernoulli_kl(light_B / temperature, booster_B / temperature)


@hint("logit", paper="Zhou et al., AAAI 2018", scaling="sum over both classes a row")
def bernoulli_mse(light_B: Tensor, booster_B: Tensor, *, scaling: str = "sum") -> Tensor:
    """Squared distance between the probabilities of click and of no click, 2 (p_light - p_booster)^2, one a row.

    `softmax_mse` with the two classes [0, logit]: the hint that Rocket Launching (Zhou et al., AAAI 2018, arXiv
    1708.04106, table 3) finds worse than logits. `scaling`: "sum" over both classes (the paper), or "mean" over them.
    Gradient on the light logit at "sum": 4 (p_light - p_booster) p_light (1 - p_light), which dies where it is sure.

    >>> import torch
    >>> bernoulli_mse(torch.tensor([0.0]), torch.tensor([50.0])).tolist()
    [0.5]
    """
    check_same_shape("bernoulli_mse", light_B, booster_B, _MEND)
    square_B = (light_B.sigmoid() - booster_B.sigmoid()).square()
    return scaled(scaling, {"sum": 2 * square_B, "mean": square_B})


@hint("logit", paper="Chen et al., NeurIPS 2017", scaling="nats a row, no click 1.5", agrees=False)
def weighted_bernoulli(light_B: Tensor, booster_B: Tensor, *, no_click: float = 1.5, click: float = 1.0) -> Tensor:
    """- click q log p - no_click (1 - q) log(1 - p), p of the light net, q of the booster, in nats, one a row.

    `weighted_soft_cross_entropy` for one logit: Chen et al., "Learning Efficient Object Detection Models with Knowledge
    Distillation", NeurIPS 2017, section 3.2, whose background class (here: no click) weighs 1.5. It is least not at
    p = q but at odds of click / no_click times the booster's: weights that differ bend the light net's calibration.
    Gradient on the light logit: no_click (1 - q) p - click q (1 - p).

    >>> import torch
    >>> weighted_bernoulli(torch.tensor([0.0]), torch.tensor([0.0]), no_click=1.0).item()
    0.6931
    """
    check_same_shape("weighted_bernoulli", light_B, booster_B, _MEND)
    q_B = booster_B.sigmoid()
    return click * q_B * F.softplus(-light_B) + no_click * (1 - q_B) * F.softplus(light_B)


@hint("logit", paper="Huang et al., NeurIPS 2022", scaling="1 - r along the rows, T = 1")
def dist_intra(light_B: Tensor, booster_B: Tensor, *, temperature: float = 1.0) -> Tensor:
    """T^2 (1 - r) with r Pearson's correlation of the click probabilities at T along the rows; one number.

    The intra-class part of `dist`, which is what one logit leaves of it: Huang et al., "Knowledge Distillation from A
    Stronger Teacher", NeurIPS 2022, arXiv 2205.10536. The rows' order and spacing count, not their level: it says
    nothing of calibration, which is the label's. Where one net gives all rows one probability r is 0.

    >>> import torch
    >>> light = torch.tensor([-1.0, 0.5, 2.0])
    >>> abs(dist_intra(light, light).item()) < 1e-6, round(dist_intra(light, -light).item(), 3)
    (True, 2.0)
    """
    check_same_shape("dist_intra", light_B, booster_B, _MEND)
    p_B, q_B = (light_B / temperature).sigmoid(), (booster_B / temperature).sigmoid()
    return temperature**2 * (1 - pearson(p_B.unsqueeze(0), q_B.unsqueeze(0)).squeeze(0))


@hint(
    "logit, label",
    paper="Chen et al., NeurIPS 2017",
    scaling="nats a row, margin 0",
    agrees=False,
    teacher_only_tells=True,
)
def bounded_click(light_B: Tensor, booster_B: Tensor, label_B: Tensor, *, margin: float = 0.0) -> Tensor:
    """The light net's cross-entropy where it is not yet better than the booster's by `margin` nats, else 0; one a row.

    `teacher_bounded` for a click: Chen et al., NeurIPS 2017, section 3.3. The booster only decides which rows count: no
    gradient ever reaches it. Gradient on the light logit: p - y, or 0.

    >>> import torch
    >>> bounded_click(torch.tensor([2.0, 2.0]), torch.tensor([1.0, 3.0]), torch.ones(2)).tolist()
    [0.0, 0.1269]
    """
    check_same_shape("bounded_click", light_B, booster_B, _MEND)
    light_cost_B = F.binary_cross_entropy_with_logits(light_B, label_B, reduction="none")
    bound_B = F.binary_cross_entropy_with_logits(booster_B.detach(), label_B, reduction="none")
    return torch.where(light_cost_B + margin > bound_B, light_cost_B, torch.zeros_like(light_cost_B))
