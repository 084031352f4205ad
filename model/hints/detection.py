"""Hints for boxes: regression bounded by the teacher, and edges as distributions.

Shapes: B boxes, R numbers of one, E edges of N bins. The weighted cross-entropy of their classes is in
`model.hints.classes`, and what of it suits a click in `model.hints.logits`.
"""

import torch
from torch import Tensor

from contracts.declared_hints import hint
from model.hints.geometry import check_dims, check_same_shape, scaled


@hint(
    "boxes",
    instead="bounded_click",
    paper="Chen et al., NeurIPS 2017",
    scaling="square a row, margin 0",
    agrees=False,
    teacher_only_tells=True,
)
def teacher_bounded(rs_BR: Tensor, rt_BR: Tensor, truth_BR: Tensor, *, margin: float = 0.0) -> Tensor:
    """||rs - truth||^2 where that plus `margin` exceeds ||rt - truth||^2, else 0, one cost a row.

    Chen et al., "Learning Efficient Object Detection Models with Knowledge Distillation", NeurIPS 2017, section 3.3
    (its total adds half of it to the smooth L1 distance to the truth). The teacher is a bar, not a target: no gradient
    ever reaches it, and once the student is better by the margin it is left in peace. Gradient: 2 (rs - truth), or 0.

    >>> truth = torch.zeros(2, 1)
    >>> teacher_bounded(torch.tensor([[1.0], [1.0]]), torch.tensor([[2.0], [0.5]]), truth).tolist()
    [0.0, 1.0]
    """
    check_same_shape("teacher_bounded", rs_BR, rt_BR, "both nets must give the same numbers")
    student_B = (rs_BR - truth_BR).square().flatten(1).sum(1)
    teacher_B = (rt_BR - truth_BR).square().flatten(1).sum(1).detach()
    return torch.where(student_B + margin > teacher_B, student_B, torch.zeros_like(student_B))


def binned(logits_BEN: Tensor, low: float, high: float) -> Tensor:
    """The number that a distribution over N bins from `low` to `high` stands for, its mean: [B, E].

    >>> binned(torch.tensor([[[0.0, 0.0, 0.0]]]), 0.0, 10.0).tolist()
    [[5.0]]
    """
    place_N = torch.linspace(low, high, logits_BEN.shape[2], dtype=logits_BEN.dtype, device=logits_BEN.device)
    return logits_BEN.softmax(2) @ place_N


@hint("bins", instead="bernoulli_kd", paper="Zheng et al., CVPR 2022", scaling="T^2 nats, sum over edges a row, T = 10")
def localization(
    edges_s_BEN: Tensor, edges_t_BEN: Tensor, *, temperature: float = 10.0, scaling: str = "sum"
) -> Tensor:
    """T^2 KL(softmax(t / T) || softmax(s / T)) of each edge's bins, summed over the edges, one cost a row.

    Zheng et al., "Localization Distillation for Dense Object Detection", CVPR 2022, arXiv 2102.12252, section 3: an
    edge is not a number but a distribution over bins, so that a regression can be distilled as classes are. `scaling`:
    "sum" over the four edges (the paper), "mean" over them, or "elements" over bins as well (the authors' code).

    >>> edges = torch.tensor([[[0.0, 1.0], [2.0, 0.0]]])
    >>> localization(edges + 3, edges).abs().max().item() < 1e-5
    True
    """
    check_dims("localization", (3,), edges_s_BEN, edges_t_BEN)
    check_same_shape("localization", edges_s_BEN, edges_t_BEN, "both nets must use the same bins")
    log_s_BEN = (edges_s_BEN / temperature).log_softmax(2)
    log_t_BEN = (edges_t_BEN / temperature).log_softmax(2)
    kl_BE = temperature**2 * (log_t_BEN.exp() * (log_t_BEN - log_s_BEN)).sum(2)
    mean_B = kl_BE.mean(1)
    return scaled(scaling, {"sum": kl_BE.sum(1), "mean": mean_B, "elements": mean_B / edges_s_BEN.shape[2]})
