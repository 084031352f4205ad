"""Be your own teacher: exits at the light net's hidden layers (Zhang et al., ICCV 2019, arXiv 1905.08094).

Shapes: B rows, H hidden width; layer C is the deepest.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from contracts.app import App
from model.layers import linear, logit_head
from model.schemes.scheme import Costs, Said, Scheme, Seen


class OwnTeacher(Scheme):
    """A teacher that is the student's own last layer.

        loss = label(light) + sum over exits i of (1 - a) * label(z_i) + lambda * a * hint(z_i, light)
                            + lambda * l * sum over layers i below the deepest of ||map_i(F_i) - F_C||^2

    The paper's equations 4 to 6, with a = `rocket.exit_share`, l = `rocket.exit_feature_weight`; the squared norm is
    summed over columns, a mean over rows. There is an exit, one linear layer, at every hidden layer; they follow the
    light net's whole logit, wide term included, and it and F_C are detached. Nothing of the exits is published.
    """

    asks_hidden = follows = True

    def __init__(self, app: App) -> None:
        super().__init__()
        rocket, widths, prior = app.config.rocket, app.config.model.light.layers, app.config.serving.prior_ctr
        self._share, self._feature_weight = rocket.exit_share, rocket.exit_feature_weight
        self.exits = nn.ModuleList(logit_head(width) for width in widths)
        self.maps = nn.ModuleList(linear(width, widths[-1]) for width, _ in pairwise(widths))
        for leave in self.exits:
            nn.init.constant_(leave.get_parameter("bias"), math.log(prior / (1 - prior)))

    def judge(self, seen: Seen) -> Said:
        """A logit [B] of each exit."""
        if not torch.is_grad_enabled():
            return Said()
        return Said(others=tuple(leave(layer).squeeze(1) for leave, layer in zip(self.exits, seen.layers, strict=True)))

    def terms(self, light_B: Tensor, layers: tuple[Tensor, ...], said: Said, costs: Costs) -> Tensor | None:
        """What the exits and the maps cost."""
        share, deepest_BH = costs.weight * self._share, layers[-1].detach()
        total = torch.zeros((), device=light_B.device)
        for logit_B in said.others:
            total = total + (1 - self._share) * costs.label(logit_B) + share * costs.follow(logit_B, light_B)
        for mapped, layer_BH in zip(self.maps, layers, strict=False):
            distance_B = (mapped(layer_BH) - deepest_BH).square().sum(1)
            total = total + costs.weight * self._feature_weight * costs.weigh(distance_B)
        return total
