"""The net that serves, exactly as `contracts.weights` publishes it: first order, pairs, and a small MLP.

Shapes: B rows, F id features, N dense features, D embedding width, H hidden width.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contracts.nets import Light
from contracts.weights import ACTIVATION_CODES
from model.layers import linear, logit_head, second_order


class LightNet(nn.Module):
    """bias + sum of wide[ids] + wide_dense . dense + fm * pairs of embeddings + mlp(concat(embedding[ids], dense)).

    Each term but the bias is there where the settings say so. The second-order term is Rendle's (ICDM 2010) times one
    learnt number, 1 at first, so that embeddings which also feed an MLP need not agree with it on their scale.

    Args:
        ids: F, id features that the light net sees.
        dense: N, dense features that it sees.
        width: D of an embedding.
        settings: which terms, how many layers, what follows each.
        prior_logit: where the bias starts: a new net predicts the app's prior.
        trunk: so many of its lowest hidden layers are shared with the booster.

    Example::

        >>> net = LightNet(2, 1, width=4, settings=Light(hidden=(8,), fm=True), prior_logit=0.0)
        >>> net(torch.zeros(3, 8), torch.zeros(3, 2), torch.zeros(3, 1)).shape
        torch.Size([3])
    """

    def __init__(
        self, ids: int, dense: int, *, width: int, settings: Light, prior_logit: float, trunk: int = 0
    ) -> None:
        super().__init__()
        self._ids, self._trunk, self._activation = ids, trunk, settings.activation
        widths = (ids * width + dense, *settings.layers)
        layers = [linear(a, b) for a, b in pairwise(widths)]
        self.mlp = nn.ModuleList([*layers, logit_head(widths[-1])] if settings.deep else [])
        self.wide_dense = nn.Parameter(torch.zeros(dense)) if settings.wide else None
        self.bias = nn.Parameter(torch.full((1,), prior_logit))
        self.fm = nn.Parameter(torch.ones(1)) if settings.fm else None
        normed = settings.layers if settings.norm == "layer" else ()
        self.norms = nn.ModuleList(nn.LayerNorm(outputs) for outputs in normed)
        bent = settings.layers if settings.activation == "prelu" else ()
        self.slopes = nn.ParameterList(nn.Parameter(torch.full((outputs,), 0.25)) for outputs in bent)

    def lowest(self, embedding_BX: Tensor, dense_BN: Tensor, hidden: list[Tensor] | None = None) -> Tensor:
        """The trunk: what its last layer gives, [B, H]; what each gives is put behind `hidden`."""
        return self._climb(inputs_of(embedding_BX, dense_BN), range(self._trunk), hidden)

    def forward(
        self,
        embedding_BX: Tensor,
        wide_BF: Tensor | None,
        dense_BN: Tensor,
        *,
        trunk_BH: Tensor | None = None,
        hidden: list[Tensor] | None = None,
    ) -> Tensor:
        """Logits [B].

        Args:
            embedding_BX: embeddings, [B, F * D].
            wide_BF: first-order weights; None without a wide term.
            dense_BN: dense features.
            trunk_BH: what `lowest` gave, where some layers are shared; the layers above go on from there.
            hidden: a list behind which each layer's output is put, [B, H]; None costs nothing.
        """
        logit_B = self.bias.expand(dense_BN.shape[0])
        if len(self.mlp):
            x_BI = inputs_of(embedding_BX, dense_BN) if trunk_BH is None else trunk_BH
            first = 0 if trunk_BH is None else self._trunk
            x_BI = self._climb(x_BI, range(first, len(self.mlp) - 1), hidden)
            logit_B = self.mlp[-1](x_BI).squeeze(1) + self.bias
        if wide_BF is not None:
            logit_B = logit_B + wide_BF.sum(1)
        if self.wide_dense is not None and dense_BN.shape[1]:
            logit_B = logit_B + dense_BN @ self.wide_dense
        if self.fm is not None and self._ids:
            logit_B = logit_B + self.fm * second_order(embedding_BX.view(embedding_BX.shape[0], self._ids, -1))
        return logit_B

    def codes(self) -> dict[str, Tensor]:
        """What is published beside the parameters so that the arrays alone say what the net is."""
        code = ACTIVATION_CODES.get(self._activation)
        return {} if code is None or len(self.mlp) < 2 else {"activation": torch.tensor([float(code)])}

    def _climb(self, x_BI: Tensor, layers: range, hidden: list[Tensor] | None) -> Tensor:
        for layer in layers:
            x_BI = self.bent(self.mlp[layer](x_BI), layer)
            if hidden is not None:
                hidden.append(x_BI)
        return x_BI

    def bent(self, x_BH: Tensor, layer: int) -> Tensor:
        """A hidden layer's linear part, [B, H], after its norm and activation."""
        if len(self.norms):
            x_BH = self.norms[layer](x_BH)
        if self._activation == "relu":
            return x_BH.relu()
        if self._activation == "prelu":
            return F.prelu(x_BH, self.slopes[layer])
        return F.silu(x_BH) if self._activation == "silu" else F.gelu(x_BH, approximate="tanh")


def inputs_of(embedding_BX: Tensor, dense_BN: Tensor) -> Tensor:
    """What the first layer sees: embeddings, then numbers."""
    return torch.cat((embedding_BX, dense_BN), dim=1) if dense_BN.shape[1] else embedding_BX
