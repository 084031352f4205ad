"""The distillation shelf: every hint by name, with what it takes, its paper and its scaling.

To add one: write the function, give it a row here and one in `contracts.hint_names`, and a golden row in
tests/model/hints/golden.py; the law tests pick it up by themselves. A `Method` is called with the tensors of the
student, then those of the teacher, then what else it is told (`Takes` says which).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor

from contracts.errors import ContractError, did_you_mean
from contracts.hint_names import HINT_NAMES, HintName
from model.hints.attention import attention_transfer, gradient_attention
from model.hints.boundaries import activation_boundaries
from model.hints.classes import class_logit_mse, dist, dkd, kd, softmax_mse, weighted_soft_cross_entropy
from model.hints.detection import localization, teacher_bounded
from model.hints.factors import factor_transfer, reconstruction
from model.hints.features import cosine, euclidean
from model.hints.fitnet import fitnet
from model.hints.flow import fsp
from model.hints.generators import gan_compression, generator_distance, generator_features
from model.hints.logits import (
    bernoulli_kd,
    bernoulli_kl,
    bernoulli_mse,
    bounded_click,
    dist_intra,
    logit_mse,
    weighted_bernoulli,
)
from model.hints.mobilebert import attention_kl, layer_mse
from model.hints.relations import correlation_congruence, pkt, rkd, rkd_angle, rkd_distance, similarity_preserving
from model.hints.selectivity import mmd, nst
from model.hints.structured import adversarial, discriminator_loss, pairwise, pixel_kl


@dataclass(frozen=True, slots=True)
class Method:
    """One hint."""

    loss: Callable[..., Tensor]
    paper: str
    scaling: str  #: of the default: what one cost is, "a row" or of a whole minibatch
    options: Mapping[str, Any] = field(default_factory=dict)  #: that this row fixes
    #: where both nets agree it is 0 and flat
    agrees: bool = True
    #: the teacher only decides what counts, or has no part: no gradient reaches it even without the block
    teacher_only_tells: bool = False

    def cost(
        self,
        student: tuple[Tensor, ...],
        teacher: tuple[Tensor, ...],
        told: tuple[Tensor, ...] = (),
        *,
        block: bool = True,
        **options: Any,
    ) -> Tensor:
        """The cost, [B] or one number.

        Args:
            student: its tensors.
            teacher: its tensors; with `block` no gradient reaches them.
            told: what else the hint takes, such as labels.
            block: false lets the teacher learn too (mutual learning, the ablation).
            options: of the function, such as `scaling` or `temperature`.
        """
        if block:
            teacher = tuple(tensor.detach() for tensor in teacher)
        return self.loss(*student, *teacher, *told, **{**self.options, **options})

    def fixed(self, **options: Any) -> Callable[..., Tensor]:
        """The function with this row's options and others; itself where there are none."""
        options = {**self.options, **options}
        return partial(self.loss, **options) if options else self.loss


_PARK, _NST, _GAN = "Park et al., CVPR 2019", "Huang and Wang, 2017", "Li et al., CVPR 2020"
_CHEN, _LIU, _KIM = "Chen et al., NeurIPS 2017", "Liu et al., CVPR 2019", "Kim et al., NeurIPS 2018"
_BERT, _ZHOU, _HINTON = "Sun et al., ACL 2020", "Zhou et al., AAAI 2018", "Hinton et al., 2015"
_HUANG = "Huang et al., NeurIPS 2022"
_AT = "Zagoruyko and Komodakis, ICLR 2017"
_PAIRS = "mean over pairs of the minibatch"

METHODS: dict[str, Method] = {
    "logit_mse": Method(logit_mse, _ZHOU, "square a row"),
    "bernoulli_kl": Method(bernoulli_kl, _HINTON, "nats a row"),
    "bernoulli_kd": Method(bernoulli_kd, _HINTON, "T^2 nats a row, T = 4"),
    "bernoulli_mse": Method(bernoulli_mse, _ZHOU, "sum over both classes a row"),
    "weighted_bernoulli": Method(weighted_bernoulli, _CHEN, "nats a row, no click 1.5", agrees=False),
    "dist_intra": Method(dist_intra, _HUANG, "1 - r along the rows, T = 1"),
    "bounded_click": Method(bounded_click, _CHEN, "nats a row, margin 0", agrees=False, teacher_only_tells=True),
    "class_logit_mse": Method(class_logit_mse, _ZHOU + "; Ba and Caruana, NeurIPS 2014", "sum over classes a row"),
    "softmax_mse": Method(softmax_mse, _ZHOU, "sum over classes a row"),
    "kd": Method(kd, _HINTON, "T^2 nats a row, T = 4"),
    "weighted_soft_cross_entropy": Method(
        weighted_soft_cross_entropy, _CHEN, "nats a row, background 1.5", agrees=False
    ),
    "dist": Method(dist, _HUANG, "1 - r, mean over rows + mean over classes, T = 1"),
    "dkd": Method(dkd, "Zhao et al., CVPR 2022", "T^2 nats a row, T = 4, alpha 1, beta 8"),
    "cosine": Method(cosine, "EasyRec and TorchEasyRec, mended", "1 - cosine a row"),
    "euclidean": Method(euclidean, "EasyRec and TorchEasyRec, mended", "mean of squares a row"),
    "fitnet": Method(fitnet, "Romero et al., ICLR 2015", "half the squared norm a row"),
    "activation_boundaries": Method(
        activation_boundaries, "Heo et al., AAAI 2019", "sum a row, margin 1", agrees=False, teacher_only_tells=True
    ),
    "factor_transfer": Method(factor_transfer, _KIM, "norm a row, p = 1"),
    "reconstruction": Method(reconstruction, _KIM, "squared norm a row"),
    "mmd_linear": Method(mmd, _NST, "squared discrepancy of the minibatches' rows", {"kernel": "linear"}),
    "mmd_polynomial": Method(mmd, _NST, "squared discrepancy of the minibatches' rows", {"kernel": "polynomial"}),
    "mmd_gaussian": Method(mmd, _NST, "squared discrepancy of the minibatches' rows", {"kernel": "gaussian"}),
    "nst_linear": Method(nst, _NST, "squared discrepancy of the nets' neurons", {"kernel": "linear"}),
    "nst_polynomial": Method(nst, _NST, "squared discrepancy of the nets' neurons", {"kernel": "polynomial"}),
    "nst_gaussian": Method(nst, _NST, "squared discrepancy of the nets' neurons", {"kernel": "gaussian"}),
    "rkd_distance": Method(rkd_distance, _PARK, _PAIRS),
    "rkd_angle": Method(rkd_angle, _PARK, "mean over triples of the minibatch"),
    "rkd": Method(rkd, _PARK, "distance + 2 angle"),
    "similarity_preserving": Method(similarity_preserving, "Tung and Mori, ICCV 2019", _PAIRS),
    "pkt": Method(pkt, "Passalis and Tefas, ECCV 2018", _PAIRS),
    "correlation_congruence": Method(correlation_congruence, "Peng et al., ICCV 2019", _PAIRS),
    "fsp": Method(fsp, "Yim et al., CVPR 2017", "squared Frobenius norm a row"),
    "attention_transfer": Method(attention_transfer, _AT, "norm a row", {"power": 2}),
    "attention_transfer_p1": Method(attention_transfer, _AT, "norm a row", {"power": 1}),
    "gradient_attention": Method(gradient_attention, _AT, "norm a row"),
    "pairwise": Method(pairwise, _LIU, "mean over pairs of places a row"),
    "pixel_kl": Method(pixel_kl, _LIU, "nats, mean over places a row"),
    "adversarial": Method(adversarial, _LIU, "score a row", agrees=False, teacher_only_tells=True),
    "discriminator_loss": Method(discriminator_loss, _LIU, "scores a row", agrees=False),
    "layer_mse": Method(layer_mse, _BERT, "mean over tokens and columns a row"),
    "attention_kl": Method(attention_kl, _BERT, "nats, mean over heads and tokens a row"),
    "teacher_bounded": Method(teacher_bounded, _CHEN, "square a row, margin 0", agrees=False, teacher_only_tells=True),
    "localization": Method(localization, "Zheng et al., CVPR 2022", "T^2 nats, sum over edges a row, T = 10"),
    "generator_distance": Method(generator_distance, _GAN, "L1 norm a row"),
    "generator_features": Method(generator_features, _GAN, "norm a row"),
    "gan_compression": Method(gan_compression, _GAN, "10 L1 norms + a norm a row"),
}


def method_named(name: str) -> Method:
    """The hint of that name.

    Raises:
        ContractError: there is none.

    >>> method_named("rkd").paper
    'Park et al., CVPR 2019'
    """
    if name not in METHODS:
        raise ContractError(f"hint '{name}': no such hint; {did_you_mean(name, METHODS)}")
    return METHODS[name]


def needs(name: str) -> HintName:
    """What a hint takes and learns (`contracts.hint_names`).

    >>> needs("fitnet").learns
    'regressor'
    """
    return HINT_NAMES[name]
