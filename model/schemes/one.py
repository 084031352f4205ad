"""ONE: an ensemble of branches on a shared trunk teaches its own branches (Lan et al., NeurIPS 2018, arXiv 1806.04606).

Shapes: B rows, I columns of the trunk, K branches with the light net, H hidden width.
"""

import torch
from torch import Tensor, nn

from contracts.app import App
from model.layers import Hidden, linear, logit_head
from model.light import inputs_of
from model.schemes.scheme import Costs, Said, Scheme, Seen


class One(Scheme):
    """loss = sum over branches of label(z_k) + label(z_e) + lambda * sum over branches of hint(z_k, z_e).

    The paper's equation 8, where the hint is T^2 * KL at T = 3: `hint = "bernoulli_kd"`, `hint_temperature = 3`. The
    trunk is the light net below its deepest hidden layer (the embeddings, where it has one). The light net itself is
    the first branch, `rocket.branches` others have a hidden layer and a head of their own; its wide, second-order and
    bias terms stand in every branch's logit. z_e weighs the branches by a gate: linear layer over the trunk, batch
    norm, ReLU, softmax (equation 5). The ensemble stands in the booster's place and is detached in the hint, but its
    label moves gate, branches and light net. Branches and gate are never published.
    """

    asks_hidden = teaches = follows = True

    def __init__(self, app: App) -> None:
        super().__init__()
        layout, light = app.layout, app.config.model.light
        inputs = len(layout.light_ids) * app.config.model.embedding_dim + len(layout.light_dense)
        below, width = (inputs, *light.layers)[-2:]
        after = Hidden(light.activation, light.norm)
        self.others = nn.ModuleList(
            nn.Sequential(linear(below, width), after.after(width), logit_head(width))
            for _ in range(app.config.rocket.branches)
        )
        branches = 1 + len(self.others)
        self.gate = nn.Sequential(linear(below, branches), nn.BatchNorm1d(branches), nn.ReLU())

    def judge(self, seen: Seen) -> Said:
        """The ensemble's logit, and that of each branch but the light net."""
        trunk_BI = seen.layers[-2] if len(seen.layers) > 1 else inputs_of(seen.embedding_BX, seen.dense_BN)
        beside_B = seen.light_B - seen.light.mlp[-1](seen.layers[-1]).squeeze(1)
        others = tuple(beside_B + branch(trunk_BI).squeeze(1) for branch in self.others)
        weight_BK = self.gate(trunk_BI).softmax(1)
        ensemble_B = (weight_BK * torch.stack((seen.light_B, *others), dim=1)).sum(1)
        return Said(ensemble_B, others=others)

    def terms(self, light_B: Tensor, layers: tuple[Tensor, ...], said: Said, costs: Costs) -> Tensor | None:
        """Label and hint of the other branches; those of light net and ensemble are the loss's own."""
        del light_B, layers
        total = torch.stack([costs.label(logit_B) for logit_B in said.others]).sum()
        if costs.weight and said.booster_B is not None:
            ensemble_B = said.booster_B
            total = total + costs.weight * torch.stack([costs.follow(z_B, ensemble_B) for z_B in said.others]).sum()
        return total
