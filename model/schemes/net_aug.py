"""NetAug: the light net learns as a part of a widened one too (Cai et al., ICLR 2022, arXiv 2110.08890).

Shapes: B rows, I inputs, H columns of the light net's layer, E columns that are added to it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contracts.app import App
from contracts.nets import Activation
from model.layers import linear, logit_head
from model.light import inputs_of
from model.schemes.scheme import Costs, Said, Scheme, Seen


class NetAug(Scheme):
    """loss = label(light) + lambda * label(widened light net); lambda is the paper's alpha, 1 there (equation 2).

    Each minibatch draws one r of 1 .. `rocket.widen`, and each hidden layer of H columns gets r * H more, the first of
    those that there are. The widened net has all of the light net's parameters as they are, so its loss moves them.
    Added columns have the light net's activation (ReLU for prelu) and with norm = "layer" a norm of their own without
    scale. Wide, second-order and bias terms are the light net's. What is added is never published.
    """

    asks_hidden = draws = follows = True

    def __init__(self, app: App) -> None:
        super().__init__()
        layout, model, self._most = app.layout, app.config.model, app.config.rocket.widen
        self._widths, self._activation = model.light.layers, model.light.activation
        self._normed = model.light.norm == "layer"
        inputs = len(layout.light_ids) * model.embedding_dim + len(layout.light_dense)
        whole = [inputs, *((1 + self._most) * width for width in self._widths)]
        more = [self._most * width for width in self._widths]
        #: to the columns added to each layer, from all below
        self.into = nn.ModuleList(linear(a, b) for a, b in zip(whole, more, strict=False))
        #: from the columns added to a layer to the light net's own above it; the last, to the logit
        self.across = nn.ParameterList(
            linear(a, b).weight.detach() for a, b in zip(more[:-1], self._widths[1:], strict=True)
        )
        self.across.append(logit_head(more[-1]).weight.detach())

    def judge(self, seen: Seen) -> Said:
        """The logit [B] of the widened net."""
        if not torch.is_grad_enabled():
            return Said()
        times = int(torch.randint(1, self._most + 1, ()))
        own_BI = inputs_of(seen.embedding_BX, seen.dense_BN)
        more_BE = own_BI[:, :0]
        for layer, width in enumerate(self._widths):
            all_BI = torch.cat((own_BI, more_BE), dim=1)
            weight_EI, bias_E = self.into[layer].get_parameter("weight"), self.into[layer].get_parameter("bias")
            linear_BH = seen.light.mlp[layer](own_BI)
            if layer:
                linear_BH = linear_BH + more_BE @ self.across[layer - 1][:, : more_BE.shape[1]].T
            own_BI = seen.light.bent(linear_BH, layer)
            added = times * width
            more_BE = self._bent(F.linear(all_BI, weight_EI[:added, : all_BI.shape[1]], bias_E[:added]))
        head_B = seen.light.mlp[-1](own_BI).squeeze(1) + (more_BE @ self.across[-1][:, : more_BE.shape[1]].T).squeeze(1)
        beside_B = seen.light_B - seen.light.mlp[-1](seen.layers[-1]).squeeze(1)
        return Said(others=(head_B + beside_B,))

    def terms(self, light_B: Tensor, layers: tuple[Tensor, ...], said: Said, costs: Costs) -> Tensor | None:
        """The label loss of the widened net."""
        del light_B, layers
        return costs.weight * costs.label(said.others[0]) if costs.weight else None

    def _bent(self, x_BE: Tensor) -> Tensor:
        x_BE = F.layer_norm(x_BE, x_BE.shape[1:]) if self._normed else x_BE
        return bent_as(self._activation, x_BE)


def bent_as(activation: Activation, x_BE: Tensor) -> Tensor:
    """Columns after an activation; those that have parameters count as ReLU.

    >>> bent_as("prelu", torch.tensor([[-1.0, 2.0]])).tolist()
    [[0.0, 2.0]]
    """
    if activation == "silu":
        return F.silu(x_BE)
    return F.gelu(x_BE, approximate="tanh") if activation == "gelu" else x_BE.relu()
