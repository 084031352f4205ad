"""Hints between transformers, layer by layer. Shapes: B rows, A heads, T tokens, N columns of a token.

Sun et al., "MobileBERT: a Compact Task-Agnostic BERT for Resource-Limited Devices", ACL 2020, arXiv 2004.02984, section
3.5.
"""

import torch
from torch import Tensor

from contracts.declared_hints import hint
from model.hints.geometry import check_dims, check_same_shape


@hint("tokens", instead="fitnet", paper="Sun et al., ACL 2020", scaling="mean over tokens and columns a row")
def layer_mse(hs_BTN: Tensor, ht_BTN: Tensor, mask_BT: Tensor | None = None) -> Tensor:
    """1 / (T N) of the squared distance of a layer's feature maps, one cost a row (feature map transfer, equation 1).

    `mask_BT`: which tokens there are; the others do not count. None: all. Gradient: 2 (hs - ht) / (T N).

    >>> layer_mse(torch.zeros(1, 2, 1), torch.tensor([[[2.0], [0.0]]])).tolist()
    [2.0]
    """
    check_dims("layer_mse", (3,), hs_BTN, ht_BTN)
    check_same_shape("layer_mse", hs_BTN, ht_BTN, "MobileBERT's bottlenecks make both nets' layers equally wide")
    square_BT = (hs_BTN - ht_BTN).square().mean(2)
    return _mean(square_BT, mask_BT)


@hint(
    "attention",
    instead="similarity_preserving",
    paper="Sun et al., ACL 2020",
    scaling="nats, mean over heads and tokens a row",
)
def attention_kl(scores_s_BATT: Tensor, scores_t_BATT: Tensor, mask_BT: Tensor | None = None) -> Tensor:
    """1 / (T A) of the sum over heads and tokens of KL(a_t || a_s), one cost a row (attention transfer, equation 2).

    Args:
        scores_s_BATT: the student's attention before its softmax over the last dimension.
        scores_t_BATT: the teacher's.
        mask_BT: which tokens there are; the others neither look nor are looked at. None: all.

    >>> scores = torch.tensor([[[[0.0, 1.0], [2.0, 0.0]]]])
    >>> attention_kl(scores + 7, scores).abs().max().item() < 1e-6
    True
    """
    check_dims("attention_kl", (4,), scores_s_BATT, scores_t_BATT)
    check_same_shape("attention_kl", scores_s_BATT, scores_t_BATT, "both nets need as many heads over the same tokens")
    if mask_BT is not None:
        hidden_B11T = ~mask_BT[:, None, None, :]
        scores_s_BATT, scores_t_BATT = (
            scores.masked_fill(hidden_B11T, -1e9) for scores in (scores_s_BATT, scores_t_BATT)
        )
    log_t = scores_t_BATT.log_softmax(3)
    kl_BT = (log_t.exp() * (log_t - scores_s_BATT.log_softmax(3))).sum(3).mean(1)
    return _mean(kl_BT, mask_BT)


def _mean(cost_BT: Tensor, mask_BT: Tensor | None) -> Tensor:
    if mask_BT is None:
        return cost_BT.mean(1)
    there_BT = mask_BT.to(cost_BT.dtype)
    return torch.where(mask_BT, cost_BT, torch.zeros_like(cost_BT)).sum(1) / there_BT.sum(1).clamp_min(1)
