"""DIN: what of a user's history matters for the ad that is shown.

Zhou et al., "Deep Interest Network for Click-Through Rate Prediction", KDD 2018, arXiv 1706.06978, section 4.3: each
position is weighed by a small net of (history, ad), and the weights are not normalised, so that a strong interest stays
strong.
"""

import torch
from torch import Tensor, nn

from contracts.nets import Booster
from model.activations import Dice
from model.boosters import BoosterInput, Sizes, hidden_of
from model.layers import DeepLayers, linear, logit_head

_ATTENTION_HIDDEN = 36  # the paper's figure 2


class ActivationUnit(nn.Module):
    """The weight of a position: a net of it, the ad, their difference and their product."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.hidden = linear(4 * width, _ATTENTION_HIDDEN)
        self.dice = Dice(_ATTENTION_HIDDEN)
        self.score = logit_head(_ATTENTION_HIDDEN)

    def forward(self, history_BLD: Tensor, mask_BL: Tensor, ad_BD: Tensor) -> Tensor:
        """The weighed sum of the positions, [B, D]; zeros for an empty history."""
        if not bool(mask_BL.any()):
            return torch.zeros_like(ad_BD)
        history_SD, ad_SD = history_BLD[mask_BL], ad_BD.unsqueeze(1).expand_as(history_BLD)[mask_BL]
        pairs = torch.cat((history_SD, ad_SD, ad_SD - history_SD, ad_SD * history_SD), dim=1)
        weight_S1 = self.score(self.dice(self.hidden(pairs).float()))
        weighed_BLD = torch.zeros_like(history_BLD, dtype=torch.float32)
        weighed_BLD[mask_BL] = history_SD.float() * weight_S1
        pooled_BD: Tensor = weighed_BLD.sum(1)
        return pooled_BD


class DIN(nn.Module):
    """Deep layers over the fields, the numbers, and each history as the ad sees it; the pooled ones are not used."""

    def __init__(self, sizes: Sizes, settings: Booster) -> None:
        super().__init__()
        self._queries = sizes.queries
        self.units = nn.ModuleList(ActivationUnit(sizes.width) for _ in range(sizes.sequences))
        self.deep = DeepLayers(sizes.flat, settings.hidden, hidden_of(settings))
        self.head = logit_head(self.deep.outputs)

    def forward(self, seen: BoosterInput, hidden: list[Tensor] | None = None) -> Tensor:
        """Logits [B]."""
        pooled = [
            unit(*sequence, seen.fields_BFD[:, query])
            for unit, sequence, query in zip(self.units, seen.sequences, self._queries, strict=True)
        ]
        x_BI = torch.cat((seen.fields_BFD.flatten(1), *pooled, seen.numbers()), dim=1)
        logit_B: Tensor = self.head(self.deep(x_BI, hidden)).squeeze(1)
        return logit_B
