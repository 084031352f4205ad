"""Hints for dense prediction: every pixel, pairs of pixels, and the whole picture through a discriminator.

Liu et al., "Structured Knowledge Distillation for Semantic Segmentation", CVPR 2019, arXiv 1903.04197, section 3.
Shapes: B pictures, C classes or channels, H x W places.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, leaky_relu

from contracts.declared_hints import hint
from model.hints.geometry import check_dims, check_same_shape, unit


@hint("pixels", instead="bernoulli_kd", paper="Liu et al., CVPR 2019", scaling="nats, mean over places a row")
def pixel_kl(zs_BCHW: Tensor, zt_BCHW: Tensor) -> Tensor:
    """KL(softmax(zt) || softmax(zs)) over classes, its mean over places, one cost a picture (the pixel-wise term).

    >>> pixel_kl(torch.zeros(1, 2, 1, 1), torch.zeros(1, 2, 1, 1)).tolist()
    [0.0]
    """
    check_dims("pixel_kl", (4,), zs_BCHW, zt_BCHW)
    check_same_shape("pixel_kl", zs_BCHW, zt_BCHW, "both nets must label the same pixels")
    log_t = zt_BCHW.log_softmax(1)
    return (log_t.exp() * (log_t - zs_BCHW.log_softmax(1))).sum(1).mean((1, 2))


@hint("maps", instead="similarity_preserving", paper="Liu et al., CVPR 2019", scaling="mean over pairs of places a row")
def pairwise(fs_BCHW: Tensor, ft_BEHW: Tensor, *, pool: int = 1) -> Tensor:
    """The mean over pairs of places of (a_s - a_t)^2, a = the cosine of two places' features, one cost a picture.

    The pair-wise term: 1 / (H W)^2 of the sum. Places are the means of `pool` x `pool` pixels (the paper's beta). The
    nets may have other numbers of channels. Blind to rotation of the channels, and to the length of each place.

    >>> f = torch.tensor([[1.0, 2.0], [2.0, 1.0]]).view(1, 2, 1, 2)
    >>> pairwise(5 * f.flip(1), f).max().item() < 1e-9
    True
    """
    check_dims("pairwise", (4,), fs_BCHW, ft_BEHW)
    near = []
    for f in (fs_BCHW, ft_BEHW):
        direction_BCP = unit((avg_pool2d(f, pool) if pool > 1 else f).flatten(2), dim=1)
        near.append(direction_BCP.transpose(1, 2) @ direction_BCP)
    check_same_shape("pairwise", near[0], near[1], "resize the larger map to the smaller's H x W")
    return (near[0] - near[1]).square().mean((1, 2))


class Discriminator(nn.Module):
    """How much like a teacher's an output looks: one score a row, of vectors [B, C] or maps [B, C, H, W].

    Two layers, 1 x 1 over maps, then the mean over places. (The paper's is deeper, with self-attention, and also sees
    the picture: give it as further channels.)

    Args:
        columns: C.
        generator: draws the first weights.
        hidden: width of the layer between.

    Example::

        >>> judge = Discriminator(3, torch.Generator().manual_seed(1))
        >>> judge(torch.zeros(5, 3)).shape, judge(torch.zeros(5, 3, 2, 2)).shape
        (torch.Size([5]), torch.Size([5]))
    """

    def __init__(self, columns: int, generator: torch.Generator, hidden: int = 32) -> None:
        super().__init__()
        bound = (3 / columns) ** 0.5
        self.weight_HC = nn.Parameter(torch.empty(hidden, columns).uniform_(-bound, bound, generator=generator))
        self.bias_H = nn.Parameter(torch.zeros(hidden))
        bound = (3 / hidden) ** 0.5
        self.head_H = nn.Parameter(torch.empty(hidden).uniform_(-bound, bound, generator=generator))

    def forward(self, output: Tensor) -> Tensor:
        """Scores [B]; higher: more like the teacher's."""
        places_BCP = output.flatten(2) if output.dim() > 2 else output.unsqueeze(2)
        hidden_BHP = leaky_relu(self.weight_HC @ places_BCP + self.bias_H.unsqueeze(1), 0.2)
        score_B: Tensor = (self.head_H @ hidden_BHP).mean(1)
        return score_B


@hint(
    "score",
    learns="discriminator",
    paper="Liu et al., CVPR 2019",
    scaling="score a row",
    agrees=False,
    teacher_only_tells=True,
)
def adversarial(score_s_B: Tensor) -> Tensor:
    """- D(student): what the student adds to its loss to be taken for the teacher, one cost a row (holistic term).

    The teacher has no part in it, and the discriminator's parameters must not be moved by it: only the student's.

    >>> adversarial(torch.tensor([2.0])).tolist()
    [-2.0]
    """
    return -score_s_B


@hint("scores", instead="adversarial", paper="Liu et al., CVPR 2019", scaling="scores a row", agrees=False)
def discriminator_loss(score_s_B: Tensor, score_t_B: Tensor) -> Tensor:
    """D(student) - D(teacher): what the discriminator learns from, one cost a row (Wasserstein, as in the paper).

    Both outputs are given to it detached; `gradient_penalty` keeps it from growing without bound.

    >>> discriminator_loss(torch.tensor([1.0]), torch.tensor([3.0])).tolist()
    [-2.0]
    """
    check_same_shape("discriminator_loss", score_s_B, score_t_B, "give the scores of as many outputs of each net")
    return score_s_B - score_t_B


def gradient_penalty(judge: nn.Module, output_s: Tensor, output_t: Tensor, share_B: Tensor) -> Tensor:
    """(|grad D| - 1)^2 at points between the two outputs, one cost a row (Gulrajani et al. 2017, arXiv 1704.00028).

    Args:
        judge: the discriminator.
        output_s: of the student.
        output_t: of the teacher.
        share_B: how much of the student's is in each point, 0 to 1: uniform draws of the caller's.
    """
    share = share_B.view(-1, *[1] * (output_s.dim() - 1))
    between = (share * output_s + (1 - share) * output_t).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(judge(between).sum(), between, create_graph=True)
    steepness_B: Tensor = gradient.flatten(1).norm(dim=1)
    return (steepness_B - 1).square()
