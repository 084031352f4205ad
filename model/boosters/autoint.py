"""AutoInt: fields look at each other by multi-head self-attention.

Song et al., "AutoInt: Automatic Feature Interaction Learning via Self-Attentive Neural Networks", CIKM 2019, arXiv
1810.11921, equations 3 to 10; with hidden layers it is the paper's AutoInt+.
"""

import math

import torch
from torch import Tensor, nn

from contracts.nets import Booster
from model.boosters import BoosterInput, Sizes, hidden_of
from model.layers import DeepLayers, logit_head


class FieldAttention(nn.Module):
    """One layer: each field becomes a softmax mean of all, a head at a time, plus itself projected, then a ReLU.

    The paper does not divide the scores; we divide by the root of the head's width, as attention is done since.
    """

    def __init__(self, width: int, heads: int, head_width: int) -> None:
        super().__init__()
        self._heads, self._head_width = heads, head_width
        self.project = nn.Linear(width, 4 * heads * head_width, bias=False)  # query, key, value, residual
        nn.init.xavier_uniform_(self.project.weight)

    def forward(self, vectors_BMD: Tensor) -> Tensor:
        """[B, M, D] to [B, M, heads * head width]."""
        rows, fields, _ = vectors_BMD.shape
        split = self.project(vectors_BMD).view(rows, fields, 4, self._heads, self._head_width)
        query, key, value, residual = split.unbind(2)
        score_BHMM = torch.einsum("bmhd,bnhd->bhmn", query, key) / math.sqrt(self._head_width)
        mixed_BMHD = torch.einsum("bhmn,bnhd->bmhd", score_BHMM.softmax(3), value)
        made_BMX: Tensor = (mixed_BMHD + residual).flatten(2).relu()
        return made_BMX


class AutoInt(nn.Module):
    """Attention layers over fields and numbers (a number is its value times a learnt vector); deep layers beside."""

    def __init__(self, sizes: Sizes, settings: Booster) -> None:
        super().__init__()
        self.number_ND = nn.Parameter(torch.empty(sizes.dense, sizes.width))
        if sizes.dense:
            nn.init.xavier_uniform_(self.number_ND)
        heads, head_width = settings.attention_heads, settings.attention_width
        widths = [sizes.width] + [heads * head_width] * settings.attention_layers
        self.layers = nn.ModuleList(FieldAttention(width, heads, head_width) for width in widths[:-1])
        attended = (sizes.vectors + sizes.dense) * widths[-1]
        self.deep = DeepLayers(sizes.flat, settings.hidden, hidden_of(settings))
        deep = self.deep.outputs if settings.hidden else 0
        self.head = logit_head(attended + deep)
        self._plain = not settings.hidden

    def forward(self, seen: BoosterInput, hidden: list[Tensor] | None = None) -> Tensor:
        """Logits [B]."""
        numbers_BND = seen.dense_BN.unsqueeze(2) * self.number_ND
        x_BMD = torch.cat((seen.vectors(), numbers_BND), dim=1)
        for layer in self.layers:
            x_BMD = layer(x_BMD)
        last_BI = x_BMD.flatten(1)
        if not self._plain:
            last_BI = torch.cat((last_BI, self.deep(seen.flat(), hidden)), dim=1)
        logit_B: Tensor = self.head(last_BI).squeeze(1)
        return logit_B
