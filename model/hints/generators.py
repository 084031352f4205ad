"""Hints between generators of pictures. Shapes: B pictures, C and E channels, H x W places.

Li et al., "GAN Compression: Efficient Architectures for Interactive Conditional GANs", CVPR 2020, arXiv 2003.08936,
section 3.1: L = L_cGAN + recon L_recon + distill L_distill; the first is the task's own, the other two are here.
"""

from torch import Tensor

from contracts.declared_hints import hint
from model.hints.geometry import check_same_shape, scaled


@hint("picture", instead="logit_mse", paper="Li et al., CVPR 2020", scaling="L1 norm a row")
def generator_distance(output_s: Tensor, target: Tensor, *, scaling: str = "sum") -> Tensor:
    """||G_s(x) - target||_1, one cost a picture: L_recon.

    The target is the true picture where data is paired, and the teacher's output where it is not. `scaling`: "sum" (the
    equation), or "mean" over the elements (the authors' code). Gradient: the sign of the difference.

    >>> import torch
    >>> generator_distance(torch.zeros(1, 2), torch.tensor([[1.0, -3.0]])).tolist()
    [4.0]
    """
    check_same_shape("generator_distance", output_s, target, "both must be pictures of one size")
    apart = (output_s - target).abs().flatten(1)
    return scaled(scaling, {"sum": apart.sum(1), "mean": apart.mean(1)})


@hint("picture", instead="fitnet", paper="Li et al., CVPR 2020", scaling="norm a row")
def generator_features(fs_BEHW: Tensor, ft_BEHW: Tensor, *, scaling: str = "norm") -> Tensor:
    """||f(F_s) - F_t||_2 of one layer, one cost a picture: a term of L_distill; f is a `Regressor`, 1 x 1.

    `scaling`: "norm" (the equation), or "mean" of the squares over the elements (the authors' code).

    >>> import torch
    >>> generator_features(torch.zeros(1, 2), torch.tensor([[3.0, 4.0]])).tolist()
    [5.0]
    """
    check_same_shape("generator_features", fs_BEHW, ft_BEHW, "put a Regressor on the student's")
    apart = (fs_BEHW - ft_BEHW).flatten(1)
    return scaled(scaling, {"norm": apart.norm(dim=1), "mean": apart.square().mean(1)})


@hint("pictures", instead="fitnet", paper="Li et al., CVPR 2020", scaling="10 L1 norms + a norm a row")
def gan_compression(
    output_s: Tensor,
    fs_BEHW: Tensor,
    output_t: Tensor,
    ft_BEHW: Tensor,
    *,
    recon: float = 10.0,
    distill: float = 1.0,
    scaling: str = "paper",
) -> Tensor:
    """`recon` times `generator_distance` plus `distill` times `generator_features`, one cost a picture.

    `output_t` is the teacher's output, or with paired data the true picture. `scaling`: "paper" (sum and norm), or
    "mean" for both. The weights are those of the paper's unpaired runs.

    >>> import torch
    >>> one = torch.ones(1, 1, 1, 1)
    >>> gan_compression(one, one, 2 * one, 3 * one).tolist()
    [12.0]
    """
    forms = {"paper": ("sum", "norm"), "mean": ("mean", "mean")}
    of_output, of_layer = forms.get(scaling, (scaling, scaling))
    far = generator_distance(output_s, output_t, scaling=of_output)
    return recon * far + distill * generator_features(fs_BEHW, ft_BEHW, scaling=of_layer)
