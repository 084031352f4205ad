"""Activation boundaries: which neurons are on, not how far. Shapes: B rows, D neurons; maps too."""

import torch
from torch import Tensor

from contracts.declared_hints import hint
from model.hints.geometry import check_same_shape, scaled


@hint(
    "equal",
    learns="regressor",
    paper="Heo et al., AAAI 2019",
    scaling="sum a row, margin 1",
    agrees=False,
    teacher_only_tells=True,
)
def activation_boundaries(fs: Tensor, ft: Tensor, *, margin: float = 1.0, scaling: str = "sum") -> Tensor:
    """||[ft > 0] max(0, margin - fs) + [ft <= 0] max(0, margin + fs)||^2, one cost a row.

    Heo et al., "Knowledge Transfer via Distillation of Activation Boundaries Formed by Hidden Neurons", AAAI 2019,
    arXiv 1811.03233, equation 4. fs and ft are responses *before* the ReLU, fs through a `Regressor` where the widths
    differ. Only the teacher's signs count, so that no gradient ever reaches it. Gradient: -2 (margin - fs) where the
    teacher's neuron is on and fs < margin, 2 (margin + fs) where it is off and fs > -margin, else 0; it does not vanish
    where both agree, but where the student's response is `margin` beyond the boundary. `scaling`: "sum" over neurons
    (the paper), or "repdistiller", 3 / 1000 of it (what RepDistiller weighs a single layer with).

    >>> activation_boundaries(torch.tensor([[2.0, 0.5, -0.5]]), torch.tensor([[1.0, 1.0, 1.0]])).tolist()
    [2.5]
    """
    check_same_shape("activation_boundaries", fs, ft, "put a Regressor on the student's")
    short = torch.where(ft > 0, margin - fs, margin + fs).clamp_min(0)
    total_B = short.square().flatten(1).sum(1)
    return scaled(scaling, {"sum": total_B, "repdistiller": total_B * 3 / 1000})
