"""MaskNet: each instance says, by a multiplied mask, which of its inputs count.

Wang et al., "MaskNet: Introducing Feature-Wise Multiplication to CTR Ranking Models by Instance-Guided Mask", DLP-KDD
2021, arXiv 2102.07619, equations 4 to 10, serial and parallel.
"""

import torch
from torch import Tensor, nn

from contracts.nets import Booster
from model.boosters import BoosterInput, Sizes, hidden_of
from model.layers import DeepLayers, linear, logit_head


class MaskBlock(nn.Module):
    """relu(LayerNorm(W (mask * x))), the mask being two layers over the embeddings of the instance."""

    def __init__(self, seen: int, inputs: int, outputs: int, ratio: float) -> None:
        super().__init__()
        aggregated = max(1, round(inputs * ratio))
        self.aggregate, self.project = linear(seen, aggregated), linear(aggregated, inputs)
        self.hidden = nn.Linear(inputs, outputs, bias=False)
        nn.init.kaiming_uniform_(self.hidden.weight, nonlinearity="relu")
        self.norm = nn.LayerNorm(outputs)

    def forward(self, seen_BI: Tensor, x_BX: Tensor) -> Tensor:
        """The instance [B, I] and what is masked [B, X] to [B, H]."""
        mask_BX = self.project(self.aggregate(seen_BI).relu())
        masked_BH: Tensor = self.norm(self.hidden(mask_BX * x_BX)).relu()
        return masked_BH


class MaskNet(nn.Module):
    """Mask blocks, as wide as the first hidden layer, one after another or side by side with deep layers on top."""

    def __init__(self, sizes: Sizes, settings: Booster) -> None:
        super().__init__()
        self.parallel, seen = settings.mask_parallel, sizes.flat
        width = settings.hidden[0] if settings.hidden else sizes.width
        self.norms = nn.ModuleList(nn.LayerNorm(sizes.width) for _ in range(sizes.vectors))
        inputs = [seen] * settings.mask_blocks if self.parallel else [seen] + [width] * (settings.mask_blocks - 1)
        self.blocks = nn.ModuleList(MaskBlock(seen, each, width, settings.mask_ratio) for each in inputs)
        side_by_side = width * settings.mask_blocks if self.parallel else width
        self.deep = DeepLayers(side_by_side, settings.hidden[1:], hidden_of(settings))
        self.head = logit_head(self.deep.outputs)

    def forward(self, seen: BoosterInput, hidden: list[Tensor] | None = None) -> Tensor:
        """Logits [B]; hidden layers: what each block gives, then the deep ones."""
        vectors_BMD = seen.vectors()
        normed = [norm(vectors_BMD[:, field]) for field, norm in enumerate(self.norms)]
        seen_BI, x_BX = seen.flat(), torch.cat((*normed, seen.numbers()), dim=1)
        made = []
        for block in self.blocks:
            made.append(block(seen_BI, x_BX))
            if not self.parallel:
                x_BX = made[-1]
        if hidden is not None:
            hidden += made
        if self.parallel:
            x_BX = torch.cat(made, dim=1)
        logit_B: Tensor = self.head(self.deep(x_BX, hidden)).squeeze(1)
        return logit_B
