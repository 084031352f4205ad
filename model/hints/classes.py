"""Hints on the logits of several classes. Shapes: B rows, C classes; s is the student, t the teacher.

A click has one logit: `model.hints.logits` has those of these that mean something there.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from contracts.declared_hints import hint
from contracts.errors import ContractError
from model.hints.geometry import check_dims, check_same_shape, pearson, scaled


@hint(
    "classes",
    instead="logit_mse",
    paper="Zhou et al., AAAI 2018; Ba and Caruana, NeurIPS 2014",
    scaling="sum over classes a row",
)
def class_logit_mse(zs_BC: Tensor, zt_BC: Tensor, *, scaling: str = "sum") -> Tensor:
    """Squared distance between the logits, one cost a row.

    `scaling`: "sum" over classes, ||zs - zt||^2 (Rocket Launching, Zhou et al., AAAI 2018, arXiv
    1708.04106); "half", 1/2 of it (Ba and Caruana, "Do Deep Nets Really Need to be Deep?", NeurIPS 2014, arXiv
    1312.6184); "mean" over classes (most codes: C times less). Gradient at "sum": 2 (zs - zt).

    >>> class_logit_mse(torch.tensor([[1.0, 0.0]]), torch.tensor([[3.0, 0.0]]), scaling="mean").tolist()
    [2.0]
    """
    _check("class_logit_mse", zs_BC, zt_BC)
    square_BC = (zs_BC - zt_BC).square()
    total_B = square_BC.sum(1)
    return scaled(scaling, {"sum": total_B, "half": total_B / 2, "mean": square_BC.mean(1)})


@hint(
    "classes",
    instead="bernoulli_mse",
    because="it compares softmaxes over several classes, and a click has one logit",
    paper="Zhou et al., AAAI 2018",
    scaling="sum over classes a row",
)
def softmax_mse(zs_BC: Tensor, zt_BC: Tensor, *, scaling: str = "sum") -> Tensor:
    """Squared distance between the class probabilities, ||softmax(zs) - softmax(zt)||^2, one cost a row.

    The hint that Rocket Launching (Zhou et al., AAAI 2018, arXiv 1708.04106, table 3) finds worse than logits: its
    gradient dies where the softmax saturates. `scaling`: "sum" over classes (the paper), or "mean".

    >>> softmax_mse(torch.zeros(1, 2), torch.tensor([[50.0, -50.0]])).tolist()
    [0.5]
    """
    _check("softmax_mse", zs_BC, zt_BC)
    square_BC = (zs_BC.softmax(1) - zt_BC.softmax(1)).square()
    return scaled(scaling, {"sum": square_BC.sum(1), "mean": square_BC.mean(1)})


@hint(
    "classes",
    instead="bernoulli_kd",
    because="its softmax is over several classes, and a click has one logit",
    paper="Hinton et al., 2015",
    scaling="T^2 nats a row, T = 4",
)
def kd(zs_BC: Tensor, zt_BC: Tensor, *, temperature: float = 4.0, scaling: str = "kl") -> Tensor:
    """T^2 KL(softmax(zt / T) || softmax(zs / T)), in nats, one cost a row.

    Hinton et al., "Distilling the Knowledge in a Neural Network", 2015, arXiv 1503.02531, section 2; T = 4 as in the
    rocket paper's own comparison. Gradient: T (softmax(zs / T) - softmax(zt / T)), which for large T tends to that of
    half the mean squared distance of centred logits (section 2.1). `scaling`: "kl" (the paper), or "elements": what old
    `F.kl_div` means give, C times less (the rocket authors' code doubles that: factor 2 alpha T^2).

    >>> kd(torch.zeros(1, 2), torch.zeros(1, 2)).tolist()
    [0.0]
    """
    _check("kd", zs_BC, zt_BC)
    kl_B = temperature**2 * _kl(zs_BC / temperature, zt_BC / temperature)
    return scaled(scaling, {"kl": kl_B, "elements": kl_B / zs_BC.shape[1]})


@hint(
    "classes",
    instead="weighted_bernoulli",
    paper="Chen et al., NeurIPS 2017",
    scaling="nats a row, background 1.5",
    agrees=False,
)
def weighted_soft_cross_entropy(
    zs_BC: Tensor, zt_BC: Tensor, *, background: float = 1.5, temperature: float = 1.0
) -> Tensor:
    """- sum over c of w_c softmax(zt / T)_c log softmax(zs / T)_c, in nats, one cost a row; class 0 is the background.

    Chen et al., "Learning Efficient Object Detection Models with Knowledge Distillation", NeurIPS 2017, section 3.2:
    w_0 = 1.5, the others 1, because mistakes between object and background are the most frequent. Least at
    softmax(zs) proportional to w softmax(zt), so not where both agree. Gradient at T = 1: p_s sum(w p_t) - w p_t.

    >>> weighted_soft_cross_entropy(torch.zeros(1, 2), torch.zeros(1, 2), background=1.0).tolist()
    [0.6931]
    """
    _check("weighted_soft_cross_entropy", zs_BC, zt_BC)
    weight_C = torch.ones_like(zs_BC[0] if zs_BC.shape[0] else zs_BC.sum(0))
    weight_C[0] = background
    return -(weight_C * (zt_BC / temperature).softmax(1) * (zs_BC / temperature).log_softmax(1)).sum(1)


@hint(
    "classes, label",
    instead="bernoulli_kd",
    because="its non-target part compares the classes beside the true one, and one logit leaves none to compare",
    paper="Zhao et al., CVPR 2022",
    scaling="T^2 nats a row, T = 4, alpha 1, beta 8",
)
def dkd(
    zs_BC: Tensor, zt_BC: Tensor, class_B: Tensor, *, temperature: float = 4.0, alpha: float = 1.0, beta: float = 8.0
) -> Tensor:
    """T^2 (alpha KL(b_t || b_s) + beta KL(p^_t || p^_s)), in nats, one cost a row.

    Zhao et al., "Decoupled Knowledge Distillation", CVPR 2022, arXiv 2203.08679, equation 7: b = (p_target,
    1 - p_target), p^ = the softmax over the other classes alone. Plain KD has beta = 1 - p_target of the teacher. The
    defaults are those of its CIFAR-100 runs. `class_B`: the true class of each row, integers.

    Raises:
        ContractError: fewer than three classes, where the second term is always 0.

    >>> z = torch.tensor([[1.0, 2.0, 3.0]])
    >>> dkd(z, z + 5, torch.tensor([2])).abs().max().item() < 1e-6
    True
    """
    _check("dkd", zs_BC, zt_BC)
    rows, classes = zs_BC.shape
    if classes < 3:
        raise ContractError(
            f"dkd compares the classes beside the true one, and of {classes} at most one is left; use kd"
        )
    own_BC = F.one_hot(class_B.long(), classes).bool()
    split = []
    for z_BC in (zs_BC / temperature, zt_BC / temperature):
        others_BO = z_BC[~own_BC].view(rows, classes - 1)
        pair_B2 = torch.stack((z_BC[own_BC], others_BO.logsumexp(1)), dim=1)
        split.append((pair_B2, others_BO))
    (pair_s, others_s), (pair_t, others_t) = split
    return temperature**2 * (alpha * _kl(pair_s, pair_t) + beta * _kl(others_s, others_t))


@hint(
    "classes",
    instead="dist_intra",
    because="its inter-class part correlates the classes of a row, and one logit leaves none to correlate",
    paper="Huang et al., NeurIPS 2022",
    scaling="1 - r, mean over rows + mean over classes, T = 1",
)
def dist(zs_BC: Tensor, zt_BC: Tensor, *, temperature: float = 1.0, beta: float = 1.0, gamma: float = 1.0) -> Tensor:
    """T^2 (beta mean over rows (1 - r) + gamma mean over classes (1 - r)) with r Pearson's correlation; one number.

    Huang et al., "Knowledge Distillation from A Stronger Teacher", NeurIPS 2022, arXiv 2205.10536: of
    softmax(z / T), between the two nets along the classes of a row (inter-class), and along the rows of a class
    (intra-class). Only relations count: scores that are a rising line of the teacher's cost nothing. T^2 is its
    authors' code's; at the paper's T = 1 there is no difference.

    Raises:
        ContractError: fewer than three classes: with two, the correlation in a row is always -1 or 1.

    >>> z = torch.tensor([[1.0, 2.0, 4.0], [3.0, 1.5, 0.0]])
    >>> abs(dist(z, z).item()) < 1e-5
    True
    """
    _check("dist", zs_BC, zt_BC)
    if zs_BC.shape[1] < 3:
        raise ContractError(f"dist correlates the classes of a row, and {zs_BC.shape[1]} are too few to; use kd")
    ps_BC, pt_BC = (zs_BC / temperature).softmax(1), (zt_BC / temperature).softmax(1)
    inter = (1 - pearson(ps_BC, pt_BC)).mean()
    intra = (1 - pearson(ps_BC.T, pt_BC.T)).mean()
    return temperature**2 * (beta * inter + gamma * intra)


def _kl(zs_BC: Tensor, zt_BC: Tensor) -> Tensor:
    """KL(softmax(zt) || softmax(zs)) of each row."""
    log_t_BC = zt_BC.log_softmax(-1)
    return (log_t_BC.exp() * (log_t_BC - zs_BC.log_softmax(-1))).sum(-1)


def _check(hint: str, zs_BC: Tensor, zt_BC: Tensor) -> None:
    check_dims(hint, (2,), zs_BC, zt_BC)
    check_same_shape(hint, zs_BC, zt_BC, "both nets must judge the same classes")
    if zs_BC.shape[1] < 2:
        raise ContractError(f"{hint} compares classes, and there is one logit; use a hint of model.hints.logits")
